"""The table ``robustness``: accuracy of a network under attacks and corruptions and on other data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import DataError, InputError
from invariscope.collectors.measure.attack import NORMS, Attack
from invariscope.collectors.measure.corruptions import CORRUPTIONS, NOTES, SEVERITIES, check_corruption
from invariscope.collectors.measure.corruptions.constants import constants_for
from invariscope.collectors.options import PassOptions, at_least, at_most, one_of
from invariscope.collectors.schema import INT, REAL, TEXT, Collector, column, optional
from invariscope.zoo.datasets.inputs import PreparedImages
from invariscope.zoo.datasets.source import DataSource

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import nn

    from invariscope.collectors.engine.subject import Subject
    from invariscope.collectors.options import Options
    from invariscope.zoo.checkpoint import Checkpoint
    from invariscope.zoo.datasets import ImageSet

KEPT_BYTES = 256 << 20
"""Corrupted images that a process keeps for the next checkpoint; what is beyond is made anew."""

_KEPT: dict[tuple[Any, ...], np.ndarray] = {}
_DRAWN = ("corruption", "constants", "seed")

LARGEST_BUDGET = 10_000
"""Of an attack: in l2 as far as any image is from another, below 5,700 pixels in a square."""


@dataclass(frozen=True)
class RobustnessOptions:
    """Robustness: attacks, corruptions and other data.

    Raises:
        InputError: an unknown name, or a number out of range.
    """

    attacks: tuple[str, ...] = ("pgd",)
    """Attacks: pgd, and of the library torchattacks apgd-ce, apgd-t, fab-t, square, autoattack; '' for none."""
    norms: tuple[str, ...] = NORMS
    """Norms of the attacks."""
    eps_linf: tuple[float, ...] = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
    """Budgets in linf, in units of [0, 1] pixels."""
    eps_l2: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Budgets in l2, in units of [0, 1] pixels."""
    attack_steps: int = 20
    """Steps of an attack; AutoAttack's standard is 100."""
    attack_restarts: int = 1
    """Random starts of an attack; 0: pgd starts from the image itself."""
    attack_step: float | None = None
    """Step size of pgd as a share of the budget; by default 2.5 / steps."""
    corruptions: tuple[str, ...] = ("all",)
    """Corruptions of ImageNet-C by name, all of the 15, or '' for none."""
    severities: tuple[int, ...] = SEVERITIES
    """Severities of the corruptions."""
    robust_images: int = 256
    """First images that are attacked and corrupted."""
    second_data: tuple[str, ...] = ()
    """Other labelled data sets, NAME[:PATH], measured whole; their labels are the classes of the network."""
    second_split: str = "test"
    """Split of other data sets that are embedded."""

    def __post_init__(self) -> None:
        at_least(1, self, "robust_images", "attack_steps")
        at_least(0, self, "attack_restarts")
        at_most(10_000, self, "attack_steps", "attack_restarts", "attack_step")
        for name in ("eps_linf", "eps_l2"):
            if (most := max(getattr(self, name), default=0)) > LARGEST_BUDGET:
                raise InputError(f"{name} is {most:g}: take at most {LARGEST_BUDGET}, in units of [0, 1] pixels")
        if self.corruptions == ("all",):
            object.__setattr__(self, "corruptions", CORRUPTIONS)
        one_of("norm", self.norms, NORMS)
        for settings in _attacks(self, 0):
            _attack(settings)
        for corruption in self.corruptions:
            for severity in self.severities:
                check_corruption(corruption, severity)
        if self.corruptions and not self.severities:
            raise InputError("corruptions without severities: name some of 1 to 5, or no corruptions")


COLUMNS = (
    column("condition_kind", TEXT, "", "clean, adversarial, corruption or data"),
    column("condition", TEXT, "", "the attack, the corruption, or the other data set's name"),
    optional("severity", REAL, "", "corruptions: 1 to 5; attacks: the budget epsilon, in units of [0, 1] pixels"),
    optional("norm", TEXT, "", "attacks: linf or l2"),
    optional("steps", INT, "steps", "attacks: gradient steps"),
    optional("restarts", INT, "", "attacks: random restarts"),
    optional("step_size", REAL, "[0, 1] pixels", "attacks: size of a step"),
    optional("seed", INT, "", "seed of the condition's random numbers"),
    column("accuracy", REAL, "1", "share of images predicted right"),
    optional("se", REAL, "1", "its standard error over images"),
    optional("low", REAL, "1", "lower end of the 95 % interval"),
    optional("high", REAL, "1", "upper end of the 95 % interval"),
    column("n_images", INT, "images", "images measured"),
    optional("note", TEXT, "", "what the number rests on, and what it does not say"),
)


def check(options: Options) -> None:
    """Read the other data sets, which must be there and have labels."""
    chosen = options[RobustnessOptions]
    for spec in chosen.second_data:
        _second(spec, chosen.second_split)


def settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    """A task for clean accuracy, for each attack at each budget, for each corruption, and for each other data set."""
    chosen, seed = options[RobustnessOptions], options[PassOptions].seed
    constants = constants_for(min(checkpoint.input.height, checkpoint.input.width))
    corruptions = [
        {
            "kind": "corruption",
            "corruption": name,
            "severities": sorted(set(chosen.severities)),
            "constants": constants,
            "images": chosen.robust_images,
            "seed": seed,
        }
        for name in dict.fromkeys(chosen.corruptions)
    ]
    others = [
        {
            "kind": "data",
            "spec": spec,
            "split": chosen.second_split,
            "fingerprint": _second(spec, chosen.second_split).fingerprint,
        }
        for spec in dict.fromkeys(chosen.second_data)
    ]
    return [{"kind": "clean", "images": chosen.robust_images}, *_attacks(chosen, seed), *corruptions, *others]


def _attacks(chosen: RobustnessOptions, seed: int) -> list[dict[str, Any]]:
    budgets = {"linf": chosen.eps_linf, "l2": chosen.eps_l2}
    share = chosen.attack_step
    return [
        {
            "kind": "adversarial",
            "name": name,
            "norm": norm,
            "epsilon": epsilon,
            "steps": chosen.attack_steps,
            "restarts": chosen.attack_restarts,
            "step_size": share * epsilon if share is not None and name == "pgd" and epsilon else None,
            "images": chosen.robust_images,
            "seed": seed,
        }
        for name in dict.fromkeys(chosen.attacks)
        for norm in dict.fromkeys(chosen.norms)
        for epsilon in dict.fromkeys(budgets[norm])
    ]


@lru_cache(maxsize=8)
def _second(spec: str, split: str) -> ImageSet:
    """Another data set, decoded once per process."""
    images = DataSource(spec, split, allow_code=True).images  # the options were read with leave
    if not images.classes:
        raise DataError(f"{images.name} has no labels: second data must have those of the network's classes")
    return images


def _attack(settings: Mapping[str, Any]) -> Attack:
    return Attack(**{name: value for name, value in settings.items() if name not in ("kind", "images")})


def rows(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """The rows of one task."""
    return _MEASURES[settings["kind"]](subject, settings)


def _clean(subject: Subject, settings: Mapping[str, Any]) -> pd.DataFrame:
    images = subject.prepared(limit=settings["images"])
    return _row(subject, subject.model, images, condition_kind="clean", condition="clean")


def _adversarial(subject: Subject, settings: Mapping[str, Any]) -> pd.DataFrame:
    from invariscope.collectors.measure.attacks import PixelModel, measure_attack

    spec = subject.checkpoint.input
    mean, std = ([value / spec.range for value in values] for values in (spec.mean, spec.std))
    network = PixelModel(subject.model, mean, std, order=spec.order)
    attack = _attack(settings)
    pixels = _pixels(subject, settings["images"])
    return measure_attack(network, pixels, pixels.labels, attack, block=subject.attack_block)


def _corruption(subject: Subject, settings: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    found = []
    for severity in settings["severities"]:
        made = _corrupted(subject, settings, severity)
        found.append(
            _row(
                subject,
                subject.model,
                PreparedImages(made, subject.checkpoint.input.as_cut()),
                condition_kind="corruption",
                condition=settings["corruption"],
                severity=float(severity),
                seed=settings["seed"],
                note=_corruption_note(settings),
            )
        )
    return pd.concat(found, ignore_index=True)


def _corruption_note(settings: Mapping[str, Any]) -> str:
    notes = [f"constants of {settings['constants']}"]
    if settings["corruption"] in NOTES:
        notes.append(NOTES[settings["corruption"]])
    return "; ".join(notes)


def _data(subject: Subject, settings: Mapping[str, Any]) -> pd.DataFrame:
    other = _second(settings["spec"], settings["split"])
    if other.fingerprint != settings["fingerprint"]:
        raise DataError(f"{other.name} was changed during the run: run again")
    images = PreparedImages(other, subject.checkpoint.input)
    return _row(subject, subject.model, images, condition_kind="data", condition=other.name)


_MEASURES = {"clean": _clean, "adversarial": _adversarial, "corruption": _corruption, "data": _data}


def _row(subject: Subject, model: nn.Module, images: PreparedImages, **columns: Any) -> pd.DataFrame:
    """Accuracy on images, as a row of the table ``robustness``."""
    import pandas as pd

    from invariscope.collectors.measure.passes import predict_unshifted
    from invariscope.collectors.measure.scores import accuracy

    unshifted = predict_unshifted(model, images, images.labels, batch_size=subject.images_per_pass)
    found = accuracy(unshifted.prediction == images.labels.numpy())
    nothing = dict.fromkeys(("severity", "norm", "steps", "restarts", "step_size", "seed", "note"))
    numbers = {"accuracy": found.value, "se": found.se, "low": found.low, "high": found.high}
    return pd.DataFrame([{**nothing, **columns, **numbers, "n_images": len(images)}])


def _pixels(subject: Subject, limit: int) -> PreparedImages:
    """The first images at the network's size, as pixels in [0, 1]."""
    return PreparedImages(subject.images.head(limit), subject.checkpoint.input.in_pixels())


def _corrupted(subject: Subject, settings: Mapping[str, Any], severity: int) -> ImageSet:
    """The first images at the network's size, corrupted: for every checkpoint of that size the same."""
    import numpy as np
    import torch

    from invariscope.base.errors import DataError
    from invariscope.collectors.measure.corruptions import corrupt
    from invariscope.zoo.datasets.imageset import WHITE

    if subject.images.white != WHITE[torch.uint8]:
        raise DataError(f"{subject.images.name} has images of 16 bits, and corruptions take 8: ask for attacks alone")
    limit, shape = settings["images"], subject.checkpoint.input.in_pixels()
    clean = subject.images.head(limit)
    key = (subject.images.fingerprint, len(clean), shape, severity, *(settings[k] for k in _DRAWN))
    if (made := _KEPT.get(key)) is None:
        pixels = _pixels(subject, limit)
        parts = [
            corrupt(
                (pixels[start : start + 64] * 255).round().clamp(0, 255).to(torch.uint8).numpy(),
                settings["corruption"],
                severity,
                seed=settings["seed"],
                first=start,
                constants=settings["constants"],
            )
            for start in range(0, len(pixels), 64)
        ]
        made = np.concatenate(parts)
        if sum(kept.nbytes for kept in _KEPT.values()) + made.nbytes <= KEPT_BYTES:
            _KEPT[key] = made
    return replace(clean, images=torch.from_numpy(made), masks=None, mask_classes=())


COLLECTOR = Collector(
    "accuracy under attacks and corruptions",
    COLUMNS,
    settings,
    rows,
    RobustnessOptions,
    check,
    conditions=("condition_kind", "condition", "severity", "norm"),
    scores="images",
    of_labels=True,
    definition=2,  # intervals are Wilson's and on the logit scale
)
