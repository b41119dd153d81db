"""What the scores of an analysis are called: those of whole images, or those of pixels.

Both analyses are the same; the score and the accuracy have other columns, other words, and the literature other names
for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from invariscope.analysis.tables.joined import PIXEL_SCORES
from invariscope.analysis.tables.load import Tables
from invariscope.analysis.tables.plans import pixel_consistency_name, shifted
from invariscope.collectors.schema import PRIMARY_SCORE


@dataclass(frozen=True)
class Vocabulary:
    """The columns of the scores, and the words for them.

    ``table`` is where they are measured, ``frame`` (a name of :data:`FRAMES`) what they are analysed in. Columns:
    ``score``, the primary one; ``accuracy``; ``scores``, those correlated with MSB; ``split``, those of them whose
    slopes are split into between and within operators, and followed along doses. Words: ``title`` of the summary;
    ``score_is``, what the score is; ``score_word`` and ``accuracy_word``, the names in sentences; ``score_name``,
    what the literature calls the score under a shift kind.
    """

    table: str
    frame: str
    score: str
    accuracy: str
    scores: tuple[str, ...]
    split: tuple[str, ...]
    title: str
    score_is: str
    score_word: str
    accuracy_word: str
    score_name: Callable[[str], str | None] = field(default=lambda kind: None, repr=False)

    def is_in(self, tables: Tables) -> bool:
        """Whether these scores were measured under a shift."""
        return not shifted(getattr(tables, self.table)).empty

    def against(self, kind: str) -> str:
        """The score under a shift kind, with its name in the literature where it has one for this kind."""
        name = self.score_name(kind)
        return f"{self.score_word} ({name})" if name else self.score_word

    def given(self, covariates: str) -> str:
        """``accuracy + padding_mode`` as ``accuracy, padding mode``."""
        return ", ".join(self.word(name) for name in covariates.split(" + "))

    def word(self, column: str) -> str:
        """A column as a word."""
        return self.accuracy_word if column == self.accuracy else column.replace("_", " ")

    @property
    def accuracy_first(self) -> str:
        """The word for accuracy at the beginning of a sentence."""
        return self.accuracy_word.capitalize() if self.accuracy_word.islower() else self.accuracy_word


IMAGES = Vocabulary(
    table="invariance",
    frame="joined",
    score=PRIMARY_SCORE,
    accuracy="accuracy",
    scores=("consistency", "consistency_to_clean", "fidelity", "kappa"),
    split=("consistency", "fidelity"),
    title="Does maximum-sampling bias go with shift invariance?",
    score_is="*consistency* is the probability that two shifts of an image get the same prediction",
    score_word="consistency",
    accuracy_word="accuracy",
)

PIXELS = Vocabulary(
    table="segmentation",
    frame="pixels",
    score=PIXEL_SCORES[0],
    accuracy="miou",
    scores=PIXEL_SCORES,
    split=("consistency_pixel", "fidelity_pixel"),
    title="Does maximum-sampling bias go with shift invariance of segmentation?",
    score_is="*consistency* is per-pixel consistency: the share of pixels that two shifts of an image put into the "
    "same class once the shifts are undone, over the pixels that both show, void ones left out. Its mean over images "
    "is mASCC under circular shifts, and mASSC under zero and crop shifts. *mIoU* is taken on the unshifted images",
    score_word="per-pixel consistency",
    accuracy_word="mIoU",
    score_name=pixel_consistency_name,
)

VOCABULARIES = (IMAGES, PIXELS)


def measured(tables: Tables) -> list[Vocabulary]:
    """The vocabularies of what was measured under a shift, whole images first."""
    return [vocabulary for vocabulary in VOCABULARIES if vocabulary.is_in(tables)]


def first_measured(tables: Tables) -> Vocabulary:
    """The vocabulary of the main analysis: of whole images where they were measured, or where nothing was."""
    return next(iter(measured(tables)), IMAGES)
