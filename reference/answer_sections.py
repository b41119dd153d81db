"""The sections of RESULTS.md."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from invariscope.analysis.designs.assigned import HELD_OUT, POPULATION
from invariscope.analysis.designs.robust import ACCURACY, KEPT, robustness_association
from invariscope.analysis.designs.verdicts import ABOVE, BELOW, POOLED, TOTAL, WITHIN, causes
from invariscope.analysis.say.numbers import ranged
from invariscope.analysis.stats.correlation import correlate
from invariscope.base.words import counted
from invariscope.zoo.recipe import read_recipe
from reference.answer_leg import leg_progress
from reference.answer_study import CELLS, PUBLISHED, READINGS, RECIPES, RIVALS, TIPS, Answer, planned
from reference.answer_tables import (
    KINDS,
    Statements,
    chain_table,
    left_out,
    named,
    pair_table,
    published_table,
    robustness_table,
    share_table,
    short_names,
)
from reference.pairs import MeanDifference, differences, mean_difference
from reference.words import markdown


def progress(answer: Answer) -> str:
    """How much of the plan is there, in one paragraph below the verdict."""
    counts = answer.rows.drop_duplicates(["checkpoint", "data"]).groupby("data").size()
    there = {name: (int(counts.get(f"{name}/test", 0)), total) for name, total in planned().items()}
    there["second leg"] = leg_progress(answer.folder)
    told = [f"{name} {measured} of {total}" for name, (measured, total) in there.items()]
    whole = all(measured == total for measured, total in there.values())
    state = "The study is whole" if whole else "**The study is partial**: the plan says how parts are analysed"
    return f"{state}. Networks measured, of those planned: {', '.join(told)}."


def explained(answer: Answer, figures: str) -> Iterator[str]:
    """What goes with consistency where MSB does not: causes named, shares, figures."""
    named = causes(answer.results.statements)
    for row in named.to_dict("records"):
        rivals = [words for key, words in RIVALS.items() if row[key]]
        yield (
            f"**{str(row['shift_kind']).capitalize()} shifts:** at equal everything else assigned, consistency goes "
            f"with {' and '.join(rivals) if rivals else 'no rival at the level fixed in advance'} "
            "(p ≤ 0.01 after Holm's correction over both rivals and kinds)."
        )
    yield share_table(answer.found)
    yield (
        "Shares of the variance of logit consistency over the drawn operators of a cell (LMG, the Shapley value of R²; "
        "MSB and its square are one). The equivariance error (`see`: what is left after the best shift when a site's "
        "input is moved) was measured in the trained network and not assigned: association, not cause. That of the "
        "operator on noise (`operator_equivariance_error`) is known before any training."
    )
    yield f"![MSB and the equivariance error against consistency]({figures}/mechanism.png)"
    yield f"![Shares of the variance]({figures}/importance.png)"


def linked(answer: Answer) -> Iterator[str]:
    """The chain of drifts, where drift was measured."""
    if answer.frames.tables.drift.empty:
        return
    bundled, digits = len(read_recipe(RECIPES / "population_bundled.yaml")), planned()["digits"]
    yield "## Which link carries it"
    yield chain_table(answer.rows, answer.frames["drift"], answer.data)
    yield (
        "Standardised paths, the other causes of a link held equal, over the networks of P and R; CR2 intervals, "
        "clusters are drawn operators and blocks. Drift: how far the pooled features of a shifted image are from those "
        "of the image, against how far images are apart. Exploratory: which variables a link has was chosen on the "
        f"bundled zoo, {bundled} of the {digits} networks of the digits cell. Associations, "
        "since none but the operator was assigned."
    )


def paired(found: Statements) -> Iterator[str]:
    """Statement 6."""
    table = pair_table(found)
    if table:
        yield "## Pairs that differ in one thing"
        yield table
        yield (
            "Networks of one cell and training seed; `lme` weighs the pixels of a window as `soft` does, in another "
            "function. From six pairs on there is a p (sign flips), corrected over these comparisons alone."
        )


def robust(answer: Answer) -> Iterator[str]:
    """Robustness over drawn operators, where it was measured."""
    if answer.frames.tables.robustness.empty:
        return
    table = robustness_association(answer.frames)
    images = int(answer.frames["robustness"]["n_images"].max())
    yield "## Does low MSB help robustness?"
    yield robustness_table(table, ACCURACY, READINGS)
    yield (
        f"Spearman's correlation with accuracy on the first {images} test images, over drawn operators (ranks within "
        "cell, padding and augmentation; 95 % intervals, jackknife over operators). The same with the change of "
        "accuracy, that under attack or corruption less the network's own clean one (higher: less is lost):"
    )
    yield robustness_table(table, KEPT, READINGS)
    asked = _under_attack(table)
    clear = asked[asked["low"] * asked["high"] > 0]
    yield (
        f"Exploratory; no interval is widened for their number. Of {len(asked)} correlations of "
        f"corrected MSB, {len(clear)} have an interval without zero, {int((clear['r'] > 0).sum())} of them above it "
        "(more MSB goes with more accuracy, or less lost)."
    )


def _under_attack(table: pd.DataFrame) -> pd.DataFrame:
    mine = (table["cell"] == POOLED) & (table["reading"] == "msb_corrected") & (table["condition"] != "clean")
    return table[mine & np.isfinite(table["r"].astype(float))]


def in_one_cell(answer: Answer, figures: str) -> Iterator[str]:
    """Published operators within one cell, in numbers and drawn."""
    yield (
        "The published operators and their strengths within one cell (data set, architecture, padding): Pearson's r of "
        "MSB, literal and corrected, and of the equivariance error, with both scores. *Over* specifications "
        "(intervals: jackknife over operators), and *within* operators, along the strength of each (`soft`, `lp`, "
        "`blur`, `tips`). Associations of these operators; those consistent by construction take no part."
    )
    yield published_table(answer.compared)
    missing = [named(data) for data in answer.data if data not in answer.compared]
    if missing:
        yield f"Published operators are not trained yet on {' and '.join(missing)}."
    for data in answer.compared:
        name = named(data)
        yield f"![Published operators, {name}]({figures}/{name}/{PUBLISHED}.png)"


def claims(answer: Answer) -> str:
    """The paper's claims beside what was found."""
    tips = list(_claims_on_tips(answer.rows))
    body = [*_claims_on_msb(answer.found), *tips]
    table = markdown(["claimed", "asked of", "found", "verdict"], body)
    if not tips:
        return table
    return (
        f"{table}\n\nThose on TIPS are exploratory: not in the plan, {len(tips)} tests without a correction, and "
        "intervals that say what other training seeds would give in these cells (a data set, an architecture and a "
        "padding), not what other cells would."
    )


def _claims_on_msb(found: Statements) -> Iterator[list[str]]:
    asked = (
        ("MSB and consistency are negatively correlated", "corrected MSB, drawn operators", "2", TOTAL, False),
        ("the same", "literal MSB, drawn operators whose channels take ranks", "2", "Spearman of msb", False),
        ("less MSB makes a network more shift invariant", "rotations; points per unit of MSB", "1", WITHIN, True),
    )
    for claim, of, statement, quantity, points in asked:
        for kind in KINDS:
            row = found.row(statement, quantity, kind)
            if row is not None:
                told = found.number(statement, quantity, kind, points=points)
                yield [f"{claim} ({kind} shifts)", of, told, _of_a_fall(found.verdict(row))]


def _of_a_fall(verdict: str) -> str:
    """A verdict on a number as one on the claim that it is below zero."""
    return verdict.replace(BELOW, "holds").replace(ABOVE, "the opposite holds")


def _claims_on_tips(rows: pd.DataFrame) -> Iterator[list[str]]:
    """TIPS beside max pooling and blurred subsampling, in matched pairs of the networks held out."""
    for base, words in (("max", "max pooling"), ("blur(m=3)", "blurred subsampling")):
        for score, kinds in (("accuracy", KINDS[:1]), ("consistency", KINDS), ("fidelity", KINDS)):
            for kind in kinds:
                of_kind = rows[(rows["shift_kind"] == kind) & (rows[POPULATION] == HELD_OUT)]
                mean = mean_difference(differences(_unaugmented(of_kind), TIPS, [score], base)[score])
                if mean.pairs:
                    where = f" ({kind} shifts)" if score != "accuracy" else ""
                    points = ranged(100 * mean.estimate, 100 * mean.low, 100 * mean.high, 1, sign="+")
                    found = f"{points} points"
                    yield [f"TIPS has a higher {score} than {words}{where}", mean.rests_on, found, _sided(mean)]


def _sided(mean: MeanDifference) -> str:
    if not np.isfinite(mean.low) or mean.low * mean.high <= 0:
        return "open"
    return "higher here" if mean.estimate > 0 else "lower here"


def _unaugmented(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in which a specification stands once per cell, padding, augmentation and seed."""
    if "factor_augmentation" in rows:
        plain = rows["factor_augmentation"].isna() | (rows["factor_augmentation"].astype(str) == "none")
        rows = rows[plain]
    return rows.drop_duplicates(["data", "architecture", "padding_mode", "seed", "operator_spec"])


def beside_the_first(answer: Answer) -> Iterator[str]:
    """The first study's correlation between operators beside this one's."""
    if answer.first.empty:
        return
    body = []
    names = short_names(answer.found.cells)
    rows = answer.first[answer.first["final"].astype(bool)]
    for data, members in rows.groupby("data"):
        for kind in KINDS:
            # Zero shifts of the first study were filled with the mean: a bar on MNIST.
            if kind == "zero" and str(data).startswith("mnist"):
                continue
            name = named(str(data))
            cell = next((cell for cell, told in names.items() if told == name), "")
            now = answer.found.row("2", TOTAL, kind, cell)
            count = f"; {counted(now['n_units'], 'operator')}" if now is not None else ""
            old = _over_means(members[members["shift_kind"] == kind])
            body.append([name, kind, old, answer.found.number("2", TOTAL, kind, cell) + count])
    yield "## Beside the first study"
    yield markdown(["data", "shifts", "first study: Spearman over operator means", "now: over drawn operators"], body)
    yield (
        "The first study observed MSB on published operators: most of them have one near 0 and differ in many other "
        "ways, so that a dozen of them cannot tell MSB from what goes with it. Here MSB was assigned."
    )


def _over_means(rows: pd.DataFrame) -> str:
    """Spearman's correlation of MSB and consistency over the means of operators, in words."""
    means = rows.groupby("operator")[["msb_corrected", "consistency"]].mean().reset_index()
    (found,) = correlate(
        means,
        ["msb_corrected"],
        ["consistency"],
        methods=("spearman",),
        clusters={"operator": "operator"},
        permutations=0,
    ).to_dict("records")
    return f"{ranged(found['r'], found['low'], found['high'])}; {counted(found['n'], 'operator')}"


def reliability(answer: Answer) -> str:
    """How alike two trainings of one drawn operator are."""
    table = answer.found.primary
    rows = table[(table["statement"] == "reliability") & table["shift_kind"].isin(KINDS)]
    parts = []
    for quantity, part in rows.groupby("quantity"):
        ends = part["estimate"].min(), part["estimate"].max()
        name = str(quantity).rpartition(" of ")[2]
        parts.append(f"{ends[0]:.3f} to {ends[1]:.3f} for {name}")
    if not parts:
        return "Second trainings of drawn operators were not measured."
    return f"Intraclass correlation of two trainings of one drawn operator: {', '.join(parts)} over cells and kinds."


def failed(answer: Answer) -> Iterator[str]:
    """Networks left out, and cells at the ceiling."""
    told = list(left_out(answer.results.statements))
    yield "Left out of every statement: " + ("; ".join(told) if told else "none") + "."
    table = answer.found.primary
    full = table[(table["statement"] == "ceiling") & (table["note"].astype(str) == "at the ceiling")]
    if len(full):
        cells = sorted(
            {f"{named(str(row['cell']))} under {row['shift_kind']} shifts" for row in full.to_dict("records")}
        )
        yield (
            "At the ceiling (more than a quarter of the drawn networks at a consistency of 0.995 or above): "
            f"{', '.join(cells)}; pooled statements without them are in statements.csv."
        )


def limits(answer: Answer) -> Iterator[str]:
    """What the study does not say."""
    missing = [name for name in CELLS if f"{name}/test" not in answer.data]
    if missing:
        yield f"Nothing of {' and '.join(missing)}: not measured yet."
    yield (
        "Nothing of windows other than 2×2 (but for the blocks of 3×3), strides other than 2, larger networks, or "
        "images of more than 32 pixels."
    )
    yield (
        "Only (1) is causal, and by design: weight moved to the maximum from the average of the other ranks, at equal "
        "selectivity, low pass and seed. The equivariance error was measured, not assigned."
    )
    yield (
        "Accuracy is a result of the operator and is not held equal; the slope given accuracy stands in "
        "statements.csv, named as no effect of MSB."
    )
    if "mnist/test" in answer.data:
        yield (
            "The digits of MNIST stand in an empty margin: a circular and a zero shift (filled with the black "
            "background) of a few pixels are nearly the same image there, so that its two kinds are no independent "
            "evidence."
        )


def again() -> str:
    """The commands that make this page again."""
    return "\n".join(
        [
            "    make figures                      # this page and its figures, from the published tables",
            "    make reproduce SOURCE=FOLDER      # three runs drawn by chance, trained and measured again",
            "    invariscope unpack data/reference/population/digits --out ZOO      # the weights (data/README.md)",
        ]
    )
