"""The whole analysis of a joined frame: every correlation and regression, the statements fixed in advance, the words
for them.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.designs import design_table, dose_trends, swap_changes, swap_frame
from invariscope.analysis.designs.dose import ALIKE
from invariscope.analysis.say.findings import BY_CHECKPOINT, BY_OPERATOR, BY_RUN, CELL, verdict
from invariscope.analysis.say.summary import headline, write_summary
from invariscope.analysis.stats.correlation import correlate
from invariscope.analysis.stats.coverage import MIN_CLUSTERS
from invariscope.analysis.stats.permutation import adjusted, holm
from invariscope.analysis.stats.regression import suite
from invariscope.analysis.stats.resampling import DEFAULT_INTERVAL
from invariscope.analysis.tables.joined import NOT_GIVEN, Tables, join, own, with_sites
from invariscope.base.errors import TableError
from invariscope.collectors.schema import MSB_READINGS, PRIMARY_READING, PRIMARY_SCORE, SHIFT_KINDS

SCORES = ("consistency", "consistency_to_clean", "fidelity", "kappa")
"""The scores that are correlated with MSB, where the frame has them."""

PLAIN_SUBSAMPLING = ("subsample", "strided")
"""Operators that pool nothing; the subset ``without subsample`` is the rest."""

PRIMARY_KINDS = ("circular", "zero")
PRIMARY_SHIFTS = 9
_PLAN = ["shift_kind", "fill", "n_shifts", "plan"]
_NEEDED = [
    *(
        "checkpoint",
        "operator",
        "operator_spec",
        "architecture",
        "padding_mode",
        "cluster",
        "final",
        "data",
        "accuracy",
    ),
    *("max_shift", "plan_hash", "n_images", "n_sites_unmeasured", *_PLAN, *MSB_READINGS),
]


@dataclass(frozen=True)
class Results:
    """What an analysis found.

    ``correlations``, ``regressions``: every number, one row each. ``influence``: the primary slopes with one operator,
    data set or architecture left out. ``comparisons``: what MSB adds to accuracy, architecture and data set, in sample
    and for what took no part in the fit. ``sites``: slopes of early and late sites. ``designs``: doses and swaps
    (module ``designs``). ``primary``: the statements fixed in advance, (a) Spearman over operator means, (b) the
    fractional logit's slope given accuracy, (c) the slope within operators, with their verdicts, ``p`` (from 15
    operators on) and ``p_holm`` over the primary ones. ``summary``: the same in words, as Markdown. ``headline``: a few
    lines for a terminal.
    """

    correlations: pd.DataFrame
    regressions: pd.DataFrame
    influence: pd.DataFrame
    comparisons: pd.DataFrame
    sites: pd.DataFrame
    designs: pd.DataFrame
    primary: pd.DataFrame
    summary: str
    headline: list[str]


@dataclass(frozen=True)
class _Cell:
    """Rows that are analysed together, and what they are."""

    labels: Mapping[str, object]
    rows: pd.DataFrame

    def tag(self, table: pd.DataFrame, **further: object) -> pd.DataFrame:
        """The table with the cell's labels in front of every row."""
        return pd.concat([pd.DataFrame({**self.labels, **further}, index=table.index), table], axis=1)


def analyze(
    frame: pd.DataFrame,
    *,
    swaps: pd.DataFrame | None = None,
    scores: Sequence[str] = SCORES,
    interval: str = DEFAULT_INTERVAL,
    resamples: int = 2000,
    permutations: int = 999,
    seed: int = 0,
) -> Results:
    """Correlations, regressions, designs and the primary statements of a frame from :func:`join`.

    Each shift kind and plan is analysed apart; with and without plain subsampling; on the last snapshot of every run
    and, where there are others, on all snapshots. Correlations are taken per data set, regressions over all of them
    with the data set as a factor. Slopes of single sites need a frame from :func:`with_sites`, swaps
    one from :func:`swap_frame`. ``interval``, ``resamples``, ``permutations`` and ``seed`` are those
    of :func:`correlate`; its ``p_holm`` and ``p_bh`` are taken over all correlations of a cluster
    design, of whatever cell. Networks from elsewhere (:func:`own`) take part in nothing.

    Raises:
        TableError: the frame lacks a column, or holds no shifts.
    """
    found = [name for name in scores if name in frame.columns]
    frame = own(frame)
    rows = _prepare(frame, found)
    if not found:
        raise TableError(f"the frame has none of the scores {', '.join(scores)}; collect `invariance` first")
    apart, together = list(_cells(rows, ["data"])), list(_cells(rows, []))
    options = {"interval": interval, "resamples": resamples, "permutations": permutations, "seed": seed}
    correlations = adjusted(_concat(_correlations(cell, found, options) for cell in apart))
    regressions = _concat(_regressions(cell, found) for cell in together)
    final = [cell for cell in together if cell.labels["snapshots"] == "final" and PRIMARY_SCORE in found]
    further = {
        "influence": _concat(cell.tag(suite.influence(cell.rows)) for cell in final),
        "comparisons": _concat(cell.tag(suite.comparisons(cell.rows)) for cell in final),
        "sites": _concat(cell.tag(suite.sites(cell.rows)) for cell in final),
    }
    primary = _primary(correlations, regressions)
    designs = _designs(frame, swaps, resamples, seed)
    return Results(
        correlations=correlations,
        regressions=regressions,
        **further,
        designs=designs,
        primary=primary,
        summary=write_summary(rows, correlations, regressions, primary, designs, **further),
        headline=headline(correlations, primary),
    )


def analyze_tables(tables: Tables, **options: Any) -> Results:
    """:func:`analyze` of everything that the tables hold: joined rows with their sites, and swaps. ``options`` are
    those of :func:`analyze`.
    """
    return analyze(with_sites(join(tables), tables), swaps=swap_frame(tables), **options)


def _designs(frame: pd.DataFrame, swaps: pd.DataFrame | None, resamples: int, seed: int) -> pd.DataFrame:
    """Doses, where the frame says what they are of, and swaps, where there are any."""
    parts = [dose_trends(frame)] if {"strength", *ALIKE} <= set(frame.columns) else []
    parts += [] if swaps is None else [swap_changes(swaps, resamples=resamples, seed=seed)]
    found = [part for part in parts if len(part)]
    return pd.concat(found, ignore_index=True) if found else design_table()


def write_results(results: Results, folder: Path | str, power: pd.DataFrame | None = None) -> list[Path]:
    """Write a CSV file per table (``correlations``, ``regressions``, ``influence``, ``comparisons``, ``sites``,
    ``designs``), ``summary.md``, and ``power.csv`` where there is a table of :func:`power`; each appears
    whole or not at all.
    """
    root = Path(folder)
    texts: dict[str, Callable[[Path], object]] = {
        **{f"{name}.csv": _csv_writer(getattr(results, name)) for name in _CSV},
        "summary.md": lambda path: path.write_text(results.summary, encoding="utf-8"),
    }
    if power is not None:
        texts["power.csv"] = _csv_writer(power)
    temporary = {name: root / f".{name}.{uuid.uuid4().hex}.tmp" for name in texts}
    try:
        root.mkdir(parents=True, exist_ok=True)
        for name, write in texts.items():
            write(temporary[name])
        # All are complete before the first takes its name.
        for name, path in temporary.items():
            os.replace(path, root / name)
    except OSError as error:
        raise TableError(f"{root}: cannot write results here ({error.strerror}); name another folder") from error
    finally:
        for path in temporary.values():
            if path.exists():
                path.unlink()
    return [root / name for name in texts]


_CSV = ("correlations", "regressions", "influence", "comparisons", "sites", "designs")


def _csv_writer(table: pd.DataFrame) -> Callable[[Path], object]:
    return lambda path: table.to_csv(path, index=False, lineterminator="\n")


def _prepare(frame: pd.DataFrame, scores: list[str]) -> pd.DataFrame:
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing:
        raise TableError(
            f"the frame lacks the columns {', '.join(missing)}; make it with `analysis.join(analysis.load(TABLES))`"
        )
    rows = frame[frame["shift_kind"].isin(SHIFT_KINDS)]
    if rows.empty:
        raise TableError("the frame holds no shifts; collect `invariance` with at least one shift kind first")
    sites = [name for name in rows.columns if suite.SITE.fullmatch(str(name))]
    rows = rows[[*_NEEDED, *scores, *sites]]
    instead: dict[str, Any] = {"fill": "", **dict.fromkeys(("operator", "architecture", "padding_mode"), NOT_GIVEN)}
    instead["operator_spec"] = rows["operator"].fillna(NOT_GIVEN)
    text = {name: rows[name].astype(object).where(rows[name].notna(), other) for name, other in instead.items()}
    # Rounding of the forward pass (1e-9 or so for mixing operators) must not decide ranks.
    readings = {name: rows[name].astype(float).round(9) for name in (*MSB_READINGS, *sites)}
    others = {name: rows[name].astype(object) for name in ("cluster", "data", "shift_kind", "plan", "plan_hash")}
    return rows.assign(**text, **others, **readings).reset_index(drop=True)


def _cells(rows: pd.DataFrame, apart: list[str]) -> Iterator[_Cell]:
    """One cell per (data set and) shift plan × subset of operators × choice of snapshots; subsets that change nothing
    left out.
    """
    # Data sets of different image sizes are each shifted by their own eighth: only several on the same data differ.
    several = rows.groupby(["data", *_PLAN])["max_shift"].nunique().max() > 1
    keys = [*apart, *_PLAN, *(["max_shift"] if several else [])]
    for _, plan in rows.groupby(keys, sort=True):
        first = plan.iloc[0]
        labels = {
            "data": first["data"] if plan["data"].nunique() == 1 else "all data sets",
            **{name: first[name] for name in ("shift_kind", "fill")},
            "max_shift": "/".join(map(str, sorted(plan["max_shift"].unique()))),
            **{name: first[name] for name in ("n_shifts", "plan")},
        }
        subsets = {"all operators": plan}
        pooling = plan[~plan["operator"].isin(PLAIN_SUBSAMPLING)]
        if 0 < len(pooling) < len(plan):
            subsets["without subsample"] = pooling
        for subset, of_subset in subsets.items():
            final = of_subset[of_subset["final"]]
            yield _Cell({**labels, "subset": subset, "snapshots": "final"}, final)
            if len(final) < len(of_subset):
                yield _Cell({**labels, "subset": subset, "snapshots": "all"}, of_subset)


def _concat(tables: Iterator[pd.DataFrame]) -> pd.DataFrame:
    made = list(tables)
    return pd.concat(made, ignore_index=True) if made else pd.DataFrame(columns=CELL)


def _correlations(cell: _Cell, scores: list[str], options: dict[str, Any]) -> pd.DataFrame:
    rows, readings = cell.rows, list(MSB_READINGS)
    draws = {BY_CHECKPOINT: None, BY_RUN: "cluster", BY_OPERATOR: "operator"}
    tables = [
        cell.tag(correlate(rows, [*readings, "accuracy"], scores, clusters=draws, **options), level="checkpoints")
    ]
    partial = ["partial_pearson", "partial_spearman"]
    for covariates in _covariates(rows):
        found = correlate(rows, readings, scores, methods=partial, covariates=covariates, clusters=draws, **options)
        tables.append(cell.tag(found, level="checkpoints"))
    tables.append(cell.tag(_of_means(rows, [*readings, "accuracy"], scores, options), level="operator means"))
    found = correlate(
        rows,
        readings,
        scores,
        methods=["within_pearson", "within_partial_pearson"],
        covariates=["accuracy"],
        within="operator",
        clusters={BY_RUN: "cluster", BY_OPERATOR: "operator"},
        **options,
    )
    tables.append(cell.tag(found, level="within operator"))
    return pd.concat(tables, ignore_index=True)


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


def _covariates(rows: pd.DataFrame) -> list[list[str]]:
    varying = [name for name in ("architecture", "padding_mode") if rows[name].nunique() > 1]
    return [["accuracy"], *([["accuracy", *varying]] if varying else [])]


def _regressions(cell: _Cell, scores: list[str]) -> pd.DataFrame:
    tables = [cell.tag(suite.main(cell.rows, scores))]
    if cell.labels["snapshots"] == "final" and PRIMARY_SCORE in scores:
        tables.append(cell.tag(suite.checks(cell.rows)))
    return pd.concat(tables, ignore_index=True)


def _primary(correlations: pd.DataFrame, regressions: pd.DataFrame) -> pd.DataFrame:
    """The statements fixed in advance, for every cell; ``role`` says which were fixed and which are the same on other
    rows.
    """
    kept = [
        "estimate",
        "low",
        "high",
        "effect",
        "n",
        "n_clusters",
        "effective_clusters",
        "leading",
        "nominal",
        "coverage",
    ]
    kept += ["reason", "p"]
    means = correlations.query("level == 'operator means' and method == 'spearman'")
    means = means[(means["x"] == PRIMARY_READING) & (means["y"] == PRIMARY_SCORE)]
    a = means.rename(columns={"r": "estimate"}).assign(
        statement="a", leading="", effect=np.nan, effective_clusters=np.nan
    )
    fits = regressions[(regressions["x"] == PRIMARY_READING) & (regressions["y"] == PRIMARY_SCORE)]
    fits = fits[fits["cluster"] == "operator"]
    b = fits[(fits["model"] == "fractional logit") & (fits["term"] == PRIMARY_READING)].assign(statement="b")
    c = fits[(fits["model"] == "within-between") & (fits["term"] == f"{PRIMARY_READING}_within")].assign(statement="c")
    table = pd.concat([part[[*CELL, "statement", *kept]] for part in (a, b, c)], ignore_index=True)
    numbers = table[["estimate", "low", "high", "n_clusters"]].to_numpy(dtype=float)
    table["verdict"] = [verdict(*row) for row in numbers]
    fixed = (
        table["shift_kind"].isin(PRIMARY_KINDS)
        & table["fill"].isin(("", "mean"))
        & (table["plan"] == "sampled")
        & (table["n_shifts"] == PRIMARY_SHIFTS)
        & (table["snapshots"] == "final")
    )
    table["role"] = np.where(fixed, "primary", "secondary")
    # Below the least number of clusters no test is leant on, so that none counts in the family either.
    tested = fixed & table["p"].notna() & (table["n_clusters"] >= MIN_CLUSTERS)
    table["p"] = table["p"].where(table["n_clusters"] >= MIN_CLUSTERS)
    table["p_holm"] = holm(table["p"].where(tested))
    order = ["role", "shift_kind", "fill", "max_shift", "snapshots", "subset", "statement", "data"]
    return table.sort_values(order, ignore_index=True)
