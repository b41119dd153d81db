"""Where TIPS stands: operators beside max pooling, TIPS beside every other, robustness and cost.

Run `python -m reference.tips TABLES` for both forms of TIPS beside max pooling, in matched pairs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import pandas as pd

from invariscope.analysis import Frames, load
from invariscope.analysis.figures.cost import QUANTITIES
from invariscope.analysis.tables.checkpoints import is_elsewhere, own
from invariscope.analysis.tables.robust import robust_accuracies
from invariscope.base.words import counted
from reference.pairs import ALIKE, BASE, CELL, SCORES, differences, mean_difference
from reference.words import kind_on, markdown

KINDS = ("circular", "zero")
TIPS, PHASE_TIPS = "tips", "tips(pool=phase)"
"""The published form, whose phases are regions of the image, and the one whose phases are those of the pixels."""

ROBUST_ABOUT = ["checkpoint", *ALIKE, "operator", "operator_spec"]
"""What describes a network beside its accuracies under attack."""

_PUBLISHED = (
    "The paper's repository gives for ResNet-18 on CIFAR-10 accuracy, consistency under its standard shifts and under "
    "circular ones: max pooling 91.57, 87.41, 89.92, TIPS 98.12, 98.67, 100. A soft mixture of phases is not exactly "
    "equivariant, so that 100 is no property of the operator."
)


def where_tips_stands(final: pd.DataFrame, frames: Frames) -> list[str]:
    """The section's paragraphs; ``final`` are the last snapshots, a row per shift kind."""
    against_max, of_tips = [], []
    for data, rows in final.groupby("data"):
        name, others = str(data).partition("/")[0], sorted(set(rows["operator_spec"]) - {BASE})
        against_max.append(_differences(f"{name}: minus max pooling", rows, {other: (other, BASE) for other in others}))
        rest = {other: (TIPS, other) for other in others if other != TIPS}
        of_tips.append(_differences(f"{name}: TIPS minus", rows, rest))
    parts = [table for table in (*against_max, *of_tips) if table]
    parts.append(
        "Differences between networks that are alike in all but the operator: means over cells (architecture, padding) "
        "of means over seeds, with 95 % t intervals from the spread over seeds within cells; a cell of one seed is "
        "taken to have the spread of the others. They speak of other seeds of these cells, on these test images, and "
        "of no other architecture; operators were not trained in the same cells, so that rows of one table need not be "
        "comparable. Pairs of one seed share the network with max pooling, the order of its images and, where shapes "
        "agree, initial weights. The intervals are many and not widened for it. The MSB of max pooling is 1 and of "
        "average pooling 0 by definition."
    )
    parts.append(_PUBLISHED)
    return [*parts, *_robustness(frames), *_cost(frames)]


def _compared(rows: pd.DataFrame, operator: str, base: str) -> list[str] | None:
    """MSB, accuracy, consistency and fidelity of ``operator`` minus those of ``base``, and the pairs; None without."""
    told = [differences(rows[rows["shift_kind"] == kind], operator, SCORES, base) for kind in KINDS]
    if told[0].empty:
        return None
    means = [mean_difference(told[0][score]) for score in ("msb_corrected", "accuracy")]
    means += [mean_difference(part[score]) for score in ("consistency", "fidelity") for part in told]
    return [*(mean.told for mean in means), means[0].rests_on]


def _head(data: str) -> list[str]:
    scores = [f"{score}, {kind_on(data, kind)}" for score in ("consistency", "fidelity") for kind in KINDS]
    return ["MSB", "accuracy", *scores, "n"]


def _differences(title: str, rows: pd.DataFrame, pairs: Mapping[str, tuple[str, str]]) -> str:
    """A row per name, of the first operator of its pair minus the second; empty where none were trained alike."""
    body = [[name, *cells] for name, pair in pairs.items() if (cells := _compared(rows, *pair))]
    return markdown([title, *_head(title.partition(":")[0])], body) if body else ""


def forms_beside_max(rows: pd.DataFrame) -> Iterator[str]:
    """Both forms of TIPS minus max pooling in matched pairs, a line per form, data set, shift kind and score.

    ``rows``: last snapshots as :func:`invariscope.analysis.join` gives them.
    """
    for (data, kind), of_kind in rows.groupby(["data", "shift_kind"]):
        for form in (TIPS, PHASE_TIPS):
            for score in ("consistency", "accuracy"):
                found = mean_difference(differences(of_kind, form, [score])[score])
                if found.pairs:
                    yield f"{data}, {kind} shifts: {score} of {form} minus max pooling {found.told}, {found.rests_on}"


def _robustness(frames: Frames) -> list[str]:
    robustness = frames.tables.robustness
    if robustness.empty:
        return ["Robustness was not measured on these networks."]
    rows, names = robust_accuracies(frames["robustness"], ROBUST_ABOUT)
    based = rows[rows["operator_spec"] == BASE]
    body = [
        [f"{BASE}, its own accuracy", *(f"{based[name].mean():.3f}" for name in names), counted(len(based), "network")]
    ]
    for operator in sorted(set(rows["operator_spec"]) - {BASE}):
        means = [mean_difference(differences(rows, operator, names)[name]) for name in names]
        body.append([operator, *(mean.told for mean in means), means[0].rests_on])
    cells = rows.groupby(CELL).size()
    where = "; ".join(f"{data}, {architecture}, {padding}" for data, architecture, padding in cells.index)
    images = int(robustness["n_images"].max())
    kinds = robustness.loc[robustness["condition_kind"] == "corruption", "condition"].nunique()
    return [
        "### Robustness",
        markdown(["accuracy minus max pooling's", *names, "n"], body),
        f"Accuracy on the first {images} test images ({where}): clean, under attack by budget, and the mean over "
        f"{counted(kinds, 'corruption')} and their severities. None was trained to be robust, and a network that is "
        "more accurate when clean starts ahead: read a difference beside that of the first column.",
    ]


def _cost(frames: Frames) -> list[str]:
    if frames.tables.cost.empty:
        return ["Cost was not measured on these networks."]
    frame = frames["cost"]
    rows = frame[~is_elsewhere(frame) & frame["relative"].notna()]
    cells = ["architecture", "operator_spec"]
    wide = rows.pivot_table(index=cells, columns="quantity", values="relative", aggfunc="median")
    networks = rows.groupby(cells)["checkpoint"].nunique()
    quantities = [name for name in QUANTITIES if name in wide]
    body = [
        [*cell, *(f"{row[name]:.2f}" for name in quantities), networks[cell]]
        for cell, row in zip(wide.index, wide.to_dict("records"), strict=True)
    ]
    threads = ", ".join(f"{number:.0f}" for number in sorted(rows["threads"].dropna().unique()))
    return [
        "### Cost",
        markdown(["architecture", "operator", *(QUANTITIES[name] for name in quantities), "networks"], body),
        "Multiples of the same network with max pooling; times are medians of pairs of passes taken in turn, with "
        f"{threads or '?'} threads, on the machine that data/README.md names.",
    ]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    networks = own(Frames(load(sys.argv[1]))["joined"])
    print("\n".join(forms_beside_max(networks[networks["final"]])))
