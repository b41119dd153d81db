"""The whole analysis of a joined frame: every correlation and regression, the statements fixed in advance, the words
for them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.designs import design_table, dose_trends, swap_changes
from invariscope.analysis.designs.assigned import Settings, has_population, published
from invariscope.analysis.designs.assigned_statements import COLUMNS as STATEMENT_COLUMNS
from invariscope.analysis.designs.assigned_statements import statements
from invariscope.analysis.designs.dose import ALIKE
from invariscope.analysis.designs.metrics import metric_correlations
from invariscope.analysis.results import Results
from invariscope.analysis.say.assigned_words import assigned_fold, cause_lines
from invariscope.analysis.say.headline import headline
from invariscope.analysis.say.metric_findings import metric_fold
from invariscope.analysis.say.opening import Fold
from invariscope.analysis.say.rival_words import rival_folds
from invariscope.analysis.say.statements import bullets
from invariscope.analysis.say.summary import summary_folds
from invariscope.analysis.say.verdict import opening_of
from invariscope.analysis.say.vocabulary import IMAGES, Vocabulary, first_measured
from invariscope.analysis.stats.asked import Asked
from invariscope.analysis.stats.cells import (
    BY_CHECKPOINT,
    BY_OPERATOR,
    BY_RUN,
    CELL,
    OPERATOR_CELL,
    Cell,
    cells_of,
    operator_cells,
)
from invariscope.analysis.stats.correlation import correlate
from invariscope.analysis.stats.permutation import adjusted
from invariscope.analysis.stats.primary import primary_statements
from invariscope.analysis.stats.regression.suite import SITE, Suite
from invariscope.analysis.stats.resampling import DEFAULT_INTERVAL
from invariscope.analysis.stats.rivals import PLANNED, WHICH, Rivals
from invariscope.analysis.tables.checkpoints import DETERMINISTIC, NOT_GIVEN, metrics_of, own
from invariscope.analysis.tables.frames import Frames
from invariscope.analysis.tables.joined import with_sites
from invariscope.analysis.tables.load import Tables
from invariscope.analysis.tables.plans import PLAN, shifted
from invariscope.base.errors import TableError
from invariscope.base.names import unknown
from invariscope.base.progress import each
from invariscope.collectors.schema import MSB_READINGS, OTHER_READINGS

_NEEDED = [
    *("checkpoint", "operator", "operator_spec", "architecture", "padding_mode", "cluster", "final", "data"),
    *(*PLAN, "plan_hash", "n_images", "n_sites_unmeasured", *MSB_READINGS),
]


def analyze(
    frame: pd.DataFrame,
    *,
    swaps: pd.DataFrame | None = None,
    vocabulary: Vocabulary = IMAGES,
    scores: Sequence[str] | None = None,
    interval: str = DEFAULT_INTERVAL,
    resamples: int = 2000,
    permutations: int = 999,
    seed: int = 0,
    settings: Settings | None = None,
    power: pd.DataFrame | None = None,
    every_pair: bool = False,
    rivals: str = "primary",
) -> Results:
    """Correlations, regressions, designs and the primary statements of a frame from :func:`join`.

    Each shift kind and plan is analysed apart; with and without plain subsampling; on the last snapshot of every run
    and, where there are others, on all snapshots. Correlations are taken per data set, regressions over all of them
    with the data set as a factor. Slopes of single sites need a frame from :func:`with_sites`, swaps
    one from :func:`swap_frame`. ``vocabulary`` says which columns are score and accuracy, and how they are called;
    ``scores`` takes the place of its scores. ``interval``, ``resamples``, ``permutations`` and ``seed`` are those
    of :func:`correlate`; its ``p_holm`` and ``p_bh`` are taken over all correlations of a cluster
    design, of whatever cell. Which pairs of a reading and a score there are in which cell says
    :class:`~invariscope.analysis.stats.asked.Asked`: all of them with ``every_pair``. Networks from elsewhere
    (:func:`own`) take part in nothing. Where operators were drawn (factor ``population``), ``statements`` holds what
    version 2 of the plan says, and everything else is of the published operators alone; ``settings`` are those
    of its tests. ``power``: a table of :func:`invariscope.analysis.stats.power.power`, from which the verdict says how
    many operators it takes. ``rivals``: of which cells the rivals of MSB are predictors too (``WHICH`` of module
    ``stats.rivals``), in rows whose ``role`` is exploratory and which no statement and no correction of the others
    sees.

    Raises:
        TableError: the frame lacks a column, or holds no shifts; an unknown choice of rivals; the score of the
            vocabulary is not among ``scores``.
    """
    if rivals not in WHICH:
        raise TableError(unknown("choice of rivals", rivals, WHICH))
    scores = vocabulary.scores if scores is None else scores
    found = [name for name in scores if name in frame.columns]
    frame = own(frame)
    assigned = _assigned(frame, vocabulary, settings)
    frame = published(frame)
    if len(assigned) and frame.empty:
        return _assigned_alone(assigned, vocabulary)
    metrics = [name for name in metrics_of(frame) if frame[name].notna().any()]
    rows = _prepare(frame, found, vocabulary, metrics)
    if not found:
        raise TableError(f"the frame has none of the scores {', '.join(scores)}; collect `{vocabulary.table}` first")
    if vocabulary.score not in found:
        raise TableError(
            f"{vocabulary.score} is what the statements are on: have it among the scores, which are {found}"
        )
    apart, together = list(cells_of(rows, ["data"])), list(cells_of(rows, []))
    suite = Suite(vocabulary.score, vocabulary.accuracy, vocabulary.split)
    options = {"interval": interval, "resamples": resamples, "permutations": permutations, "seed": seed}
    asked = Asked(vocabulary.score, tuple(found), every_pair)
    correlations = adjusted(
        _concat(
            _correlations(cell, asked, vocabulary.accuracy, options) for cell in each("correlations", apart, "cell")
        )
    )
    regressions = _concat(_regressions(cell, asked, suite) for cell in each("regressions", together, "cell"))
    others = Rivals.of(rows, [name for name in found if name in vocabulary.split], vocabulary.accuracy, rivals)
    final = [cell for cell in together if cell.labels["snapshots"] == "final"]
    further = {
        "influence": _concat(cell.tag(suite.influence(cell.rows)) for cell in each("influence", final, "cell")),
        "comparisons": _concat(cell.tag(suite.comparisons(cell.rows)) for cell in final),
        "sites": _concat(cell.tag(suite.sites(cell.rows)) for cell in final),
    }
    if metrics:
        made = (metric_correlations(cell, metrics, found, vocabulary.accuracy, options) for cell in apart)
        further["metrics"] = adjusted(_concat(made))
    primary = primary_statements(correlations, regressions, vocabulary.score)
    designs = _designs(frame, swaps, vocabulary, resamples, seed)
    checks = {name: table for name, table in further.items() if name != "metrics"}
    with_rivals = {
        "correlations": _with_rivals(correlations, others.correlations(apart, options)),
        "regressions": _with_rivals(regressions, others.regressions(together)),
    }
    return Results(
        **with_rivals,
        **further,
        designs=designs,
        primary=primary,
        opening=opening_of(assigned, primary, rows["operator"].nunique(), vocabulary, power),
        folds=(
            *([assigned_fold(assigned)] if len(assigned) else []),
            *summary_folds(rows, correlations, regressions, primary, designs, vocabulary, **checks),
            *([metric_fold(further["metrics"], metrics, vocabulary)] if metrics else []),
            *rival_folds(**with_rivals, vocabulary=vocabulary),
        ),
        further_lines=(*cause_lines(assigned), *headline(correlations, primary, vocabulary)),
        statements=assigned,
    )


def _with_rivals(planned: pd.DataFrame, exploratory: pd.DataFrame) -> pd.DataFrame:
    marked = planned.assign(role=PLANNED)
    return pd.concat([marked, exploratory], ignore_index=True) if len(exploratory) else marked


def analyze_tables(tables: Tables | Frames, vocabulary: Vocabulary | None = None, **options: Any) -> Results:
    """:func:`analyze` of everything that the tables hold: joined rows with their sites, and swaps.

    ``vocabulary``: whose scores; by default those of whole images, or of pixels where there are no others. Swaps are
    measured on whole images, and take part in their analysis alone. ``options`` are those of :func:`analyze`.
    """
    frames = Frames.of(tables)
    vocabulary = vocabulary or first_measured(frames.tables)
    frame = with_sites(frames[vocabulary.frame], frames.tables)
    swaps = frames["swaps"] if vocabulary is IMAGES else None
    found = analyze(frame, swaps=swaps, vocabulary=vocabulary, **options)
    if not frames.tables.notes:
        return found
    return replace(found, folds=(*found.folds, Fold("Left out", bullets(list(frames.tables.notes)))))


def _assigned(frame: pd.DataFrame, vocabulary: Vocabulary, settings: Settings | None) -> pd.DataFrame:
    """The statements on drawn operators; no row where there are none, or where the scores are not of whole images."""
    if vocabulary is not IMAGES or not has_population(frame):
        return pd.DataFrame(columns=STATEMENT_COLUMNS)
    return statements(frame, settings)


def _assigned_alone(assigned: pd.DataFrame, vocabulary: Vocabulary) -> Results:
    """Results of a zoo in which every operator was drawn."""
    empty = dict.fromkeys(
        ("correlations", "regressions", "influence", "comparisons", "sites", "primary"), pd.DataFrame()
    )
    return Results(
        **empty,
        designs=design_table(),
        opening=opening_of(assigned, pd.DataFrame(), 0, vocabulary),
        folds=(assigned_fold(assigned),),
        further_lines=tuple(cause_lines(assigned)),
        statements=assigned,
    )


def _designs(
    frame: pd.DataFrame, swaps: pd.DataFrame | None, vocabulary: Vocabulary, resamples: int, seed: int
) -> pd.DataFrame:
    """Doses, where the frame says what they are of, and swaps, where there are any."""
    parts = []
    if {"strength", *ALIKE} <= set(frame.columns):
        parts.append(dose_trends(frame, scores=vocabulary.split, accuracy=vocabulary.accuracy))
    if swaps is not None:
        parts.append(swap_changes(swaps, resamples=resamples, seed=seed))
    found = [part for part in parts if len(part)]
    return pd.concat(found, ignore_index=True) if found else design_table()


def _prepare(
    frame: pd.DataFrame, scores: list[str], vocabulary: Vocabulary, metrics: Sequence[str] = ()
) -> pd.DataFrame:
    needed = [*_NEEDED, vocabulary.accuracy]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise TableError(
            f"the frame lacks the columns {', '.join(missing)}; make it with `analysis.join(analysis.load(TABLES))`"
        )
    rows = shifted(frame)
    if rows.empty:
        raise TableError(f"the frame holds no shifts; collect `{vocabulary.table}` with at least one shift kind first")
    sites = [name for name in rows.columns if SITE.fullmatch(str(name))]
    marked = [DETERMINISTIC] if DETERMINISTIC in rows.columns else []
    others = [name for name in OTHER_READINGS if name in rows.columns]
    rows = rows[[*needed, *scores, *others, *sites, *marked, *metrics]]
    instead: dict[str, Any] = {"fill": "", **dict.fromkeys(("operator", "architecture", "padding_mode"), NOT_GIVEN)}
    instead["operator_spec"] = rows["operator"].fillna(NOT_GIVEN)
    text = {name: rows[name].astype(object).where(rows[name].notna(), other) for name, other in instead.items()}
    # Rounding of the forward pass (1e-9 or so for mixing operators) must not decide ranks.
    readings = {name: rows[name].astype(float).round(9) for name in (*MSB_READINGS, *others, *sites)}
    labels = {name: rows[name].astype(object) for name in ("cluster", "data", "shift_kind", "plan", "plan_hash")}
    made = rows.assign(**text, **labels, **readings).reset_index(drop=True)
    return made.assign(**{OPERATOR_CELL: operator_cells(made)})


def _concat(tables: Iterator[pd.DataFrame]) -> pd.DataFrame:
    made = list(tables)
    return pd.concat(made, ignore_index=True) if made else pd.DataFrame(columns=CELL)


def _correlations(cell: Cell, asked: Asked, accuracy: str, options: dict[str, Any]) -> pd.DataFrame:
    made = []
    for number, (readings, scores) in enumerate(asked.blocks(cell.labels)):
        columns = [*readings, *([accuracy] if number == 0 else [])]
        made += _of_block(cell, columns, readings, scores, accuracy, options)
    levels = dict.fromkeys(level for level, _ in made)
    return pd.concat([table for wanted in levels for level, table in made if level == wanted], ignore_index=True)


def _of_block(
    cell: Cell, columns: list[str], readings: list[str], scores: list[str], accuracy: str, options: dict[str, Any]
) -> list[tuple[str, pd.DataFrame]]:
    """The correlations of ``columns`` with ``scores``, and of ``readings`` given or within, by level."""
    rows, draws = cell.rows, {BY_CHECKPOINT: None, BY_RUN: "cluster", BY_OPERATOR: "operator"}
    tables = [("checkpoints", correlate(rows, columns, scores, clusters=draws, **options))]
    partial = ["partial_pearson", "partial_spearman"]
    for covariates in _covariates(rows, accuracy):
        found = correlate(rows, readings, scores, methods=partial, covariates=covariates, clusters=draws, **options)
        tables.append(("checkpoints", found))
    tables.append(("operator means", _of_means(rows, columns, scores, options)))
    found = correlate(
        rows,
        readings,
        scores,
        methods=["within_pearson", "within_partial_pearson"],
        covariates=[accuracy],
        within=OPERATOR_CELL,
        clusters={BY_RUN: "cluster", BY_OPERATOR: "operator"},
        **options,
    )
    tables.append(("within operator", found))
    return [(level, cell.tag(table, level=level)) for level, table in tables]


def _of_means(rows: pd.DataFrame, x: list[str], y: list[str], options: dict[str, Any]) -> pd.DataFrame:
    """Correlations of operator means, each pair's over the networks that have both columns; ``n_missing`` counts the
    networks that have not.
    """
    finite = {name: np.isfinite(rows[name].to_numpy(dtype=float)) for name in (*x, *y)}
    together: dict[bytes, list[tuple[str, str]]] = {}
    for pair in itertools.product(x, y):
        together.setdefault((finite[pair[0]] & finite[pair[1]]).tobytes(), []).append(pair)
    tables = []
    for mask, pairs in together.items():
        complete = np.frombuffer(mask, dtype=bool)
        means = rows[complete].groupby("operator", as_index=False)[[*x, *y]].mean()
        firsts, seconds = (list(dict.fromkeys(side)) for side in zip(*pairs, strict=True))
        found = correlate(means, firsts, seconds, clusters={BY_OPERATOR: "operator"}, **options)
        mine = pd.MultiIndex.from_frame(found[["x", "y"]]).isin(pairs)
        tables.append(found[mine].assign(n_missing=int((~complete).sum())))
    return pd.concat(tables, ignore_index=True)


def _covariates(rows: pd.DataFrame, accuracy: str) -> list[list[str]]:
    varying = [name for name in ("architecture", "padding_mode") if rows[name].nunique() > 1]
    return [[accuracy], *([[accuracy, *varying]] if varying else [])]


def _regressions(cell: Cell, asked: Asked, suite: Suite) -> pd.DataFrame:
    tables = [cell.tag(suite.main(cell.rows, list(asked.scores), asked.pairs(cell.labels)))]
    if cell.labels["snapshots"] == "final" and suite.score in asked.scores:
        tables.append(cell.tag(suite.checks(cell.rows)))
    return pd.concat(tables, ignore_index=True)
