"""Write RESULTS.md of the population study from its tables: every number and every verdict in it is computed here.

Run `python -m reference.answer TABLES OUT RESULTS.md [FIRST]`: OUT takes statements, summary and figures, FIRST
is the folder of the first study's tables, beside which the answer is put. `make figures` does this for the published
tables. The study may be partial: what is there is analysed as the plan says, and how much that is stands beside it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from invariscope.analysis import Frames, Results, TableError, analyze_tables, load, save_figures
from invariscope.analysis.designs.assigned import HELD_OUT, POPULATION, has_population, published
from invariscope.analysis.designs.published_cell import OVER, PublishedCell
from invariscope.analysis.designs.published_cell import WITHIN as ALONG
from invariscope.analysis.designs.robust import ACCURACY, KEPT, robustness_association
from invariscope.analysis.designs.verdicts import OPEN, POOLED, TOTAL, WITHIN, causes, is_primary_plan
from invariscope.analysis.say.numbers import ranged
from invariscope.analysis.say.opening import FIGURE_FILE, summary_text
from invariscope.analysis.stats.correlation import correlate
from invariscope.analysis.tables.checkpoints import own
from invariscope.analysis.tables.plans import filled, shifted
from invariscope.base.files import write_together, write_whole
from invariscope.base.words import counted
from invariscope.zoo.recipe import read_recipe
from reference.answer_tables import (
    ERROR,
    KINDS,
    Statements,
    chain_table,
    left_out,
    material,
    missed,
    pair_table,
    power_table,
    predicted_of,
    prediction_table,
    published_table,
    robustness_table,
    share_table,
    short_names,
    statement_table,
    told,
)
from reference.pairs import MeanDifference, differences, mean_difference
from reference.words import MISSING, markdown

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "data" / "recipes"
CELLS = ("digits", "mnist", "cifar10")
"""Data sets of the study, in the order of the plan; a recipe each."""

HEADLINE = "population"
FIGURES = (HEADLINE, "rotations", "mechanism", "importance", "heldout", "drawn")
PUBLISHED = "published_operators"
TIPS, PHASE_TIPS = "tips", "tips(pool=phase)"
RIVALS = {"aliasing": "the equivariance error of the sites", "selectivity": "selectivity"}
READINGS = {"msb_corrected": "corrected MSB", "see": "equivariance error", "selectivity": "selectivity"}


@dataclass(frozen=True)
class Answer:
    """The study's frames, what the analysis found, and the first study's rows where they are given."""

    frames: Frames
    results: Results
    found: Statements
    first: pd.DataFrame

    @classmethod
    def of(cls, folder: str | Path, first: str | Path | None = None) -> Answer:
        """Load and analyse.

        Raises:
            TableError: the tables hold no drawn operators.
        """
        frames = Frames(load(str(folder)))
        if not has_population(frames["joined"]):
            raise TableError(f"{folder}: no drawn operators: name the tables of the population study")
        results = analyze_tables(frames)
        rows = own(Frames(load(str(first)))["joined"]) if first else pd.DataFrame()
        return cls(frames, results, Statements(results.statements), rows)

    @property
    def rows(self) -> pd.DataFrame:
        """Last snapshots under the primary plans."""
        rows = filled(shifted(own(self.frames["joined"])))
        return rows[rows["final"].astype(bool) & is_primary_plan(rows)]

    @property
    def data(self) -> list[str]:
        """Data sets that are there, in the plan's order."""
        there = set(self.rows["data"])
        return [f"{name}/test" for name in CELLS if f"{name}/test" in there]


def planned() -> dict[str, int]:
    """Runs of the recipes by data set."""
    return {name: len(read_recipe(RECIPES / f"population_{name}.yaml")) for name in CELLS}


def text(answer: Answer, figures: str = "docs/population") -> str:
    """The whole of RESULTS.md; ``figures``: the folder that it links to."""
    found = answer.found
    parts = [
        "# Results",
        "<!-- Written by reference/answer.py (`make figures`); a test compares it with the tables. -->",
        answer.results.opening.markdown(f"{figures}/{HEADLINE}.png"),
        _sure(answer),
        "## Statement by statement",
        "The statements were fixed before any network was trained ([docs/analysis-plan.md](docs/analysis-plan.md), "
        "version 2); (1) and (2) under both kinds of shift are the four that Holm's correction is over. Consistency is "
        "that of two shifts of an image by up to an eighth of its size; a unit of MSB is the way from averaging a "
        "window to sampling its maximum. All numbers, also those at a quarter of the size, are in "
        f"[statements.csv]({figures}/statements.csv).",
        statement_table(found),
        f"![Slopes within blocks of rotations]({figures}/rotations.png)",
        "## If not MSB, what is it?",
        *_explained(answer, figures),
        "## How well published operators are predicted",
        *_predicted(answer, figures),
        *_chain(answer),
        *_pairs(found),
        *_robust(answer),
        "## The figure that a reader of the paper looks for",
        *_published(answer, figures),
        "## The paper's claims, one by one",
        _claims(answer),
        *_beside_the_first(answer),
        "## How sure this is",
        power_table(found),
        _two_tests(found),
        "Seen four times in five: 1.96 and 0.84 standard errors, without Holm's correction. The power at the whole "
        "design was simulated before training: docs/analysis-plan.md, *Power*. " + _reliability(answer),
        "## What was trained and measured",
        material(answer.rows, planned()),
        *_failed(answer),
        "## What this does not say",
        "\n".join(f"* {line}" for line in _limits(answer)),
        "## Again",
        _again(),
        "## Appendix: the first study",
        "118 networks of 12 published operators, with its errata: "
        "[docs/reference/first-study.md](docs/reference/first-study.md). Eleven operators cannot answer the question, "
        "and most of its statements say so.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def findings(answer: Answer) -> str:
    """The findings in five lines, for the README."""
    found = answer.found
    lines = [
        _moved(found),
        _correlated(found),
        _alone(found),
        _by_prediction(found),
        _along_published(answer),
    ]
    return "\n".join(["# Findings", "", *(f"* {line}" for line in lines if line)]) + "\n"


def _each_kind(found: Statements, statement: str, quantity: str, *, points: bool = False) -> list[tuple[str, str]]:
    rows = [(kind, found.row(statement, quantity, kind)) for kind in KINDS]
    return [(kind, told(row, points=points, digits=2)) for kind, row in rows if row is not None]


def _moved(found: Statements) -> str:
    numbers = _each_kind(found, "1", WITHIN, points=True)
    row = found.row("1", WITHIN, KINDS[0])
    if not numbers or row is None:
        return ""
    words = ", ".join(f"{number} under {kind} shifts ({_verdict_of(found, kind)})" for kind, number in numbers)
    return (
        f"**MSB moved alone**, the other weights of a window dealt round, changes consistency by {words}: points from "
        f"averaging to sampling the maximum, {counted(row['n_units'], 'block')} of four networks."
    )


def _verdict_of(found: Statements, kind: str) -> str:
    row = found.row("1", WITHIN, kind)
    return MISSING if row is None else _word(row)


def _correlated(found: Statements) -> str:
    numbers = _each_kind(found, "2", TOTAL)
    row = found.row("2", TOTAL, KINDS[0])
    if not numbers or row is None:
        return ""
    words = " and ".join(f"{number} under {kind} shifts" for kind, number in numbers)
    return f"**Over {counted(row['n_units'], 'operator')} drawn at random** Spearman's correlation of MSB and consistency is {words}."  # noqa: E501


def _alone(found: Statements) -> str:
    def shares(quantity: str) -> list[float]:
        rows = [found.row("4", quantity, kind, cell) for cell in found.cells for kind in KINDS]
        return [100 * float(row["estimate"]) for row in rows if row is not None and np.isfinite(row["estimate"])]

    see, msb = shares("R² of see alone"), shares("R² of msb alone")
    if not see or not msb:
        return ""
    return (
        "**What goes with consistency is aliasing**: how far a site is from moving along with its input (`see`) alone "
        f"explains {_span(see)} of the variance over data sets and kinds of shift, MSB with its square {_span(msb)}. "
        "It was measured, not assigned."
    )


def _span(values: list[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def _by_prediction(found: Statements) -> str:
    words = []
    for kind in KINDS:
        by = [found.row("5", f"{ERROR}, by {model}", kind) for model in ("see", "MSB")]
        if all(row is not None for row in by):
            see, msb = (told(row, digits=1) for row in by)
            words.append(f"{see} points by it and {msb} by MSB under {kind} shifts")
    if not words:
        return ""
    return f"**Published operators**, held out of every fit, are predicted with a mean error of {'; '.join(words)}."


def _along_published(answer: Answer) -> str:
    words = []
    for data in answer.data:
        cell = PublishedCell.of(published(answer.rows[answer.rows["data"] == data]))
        table = cell.coefficients(KINDS[0], ["msb_corrected", "see"], "consistency")
        by = {(row["reading"], row["level"]): row for row in table.to_dict("records")}
        numbers = [
            ranged(by[key]["r"], by[key]["low"], by[key]["high"]) if key in by else MISSING
            for key in (("msb_corrected", OVER), ("msb_corrected", ALONG), ("see", OVER))
        ]
        name = data.partition("/")[0]
        words.append(
            f"{name} {numbers[0]}, along the strength of one operator {numbers[1]}, and {numbers[2]} with `see`"
        )
    return (
        f"**Among published operators in one cell** Pearson's r of MSB and circular consistency is: {'; '.join(words)}."
    )


def _sure(answer: Answer) -> str:
    """How much of the plan is there, in one paragraph below the verdict."""
    counts = answer.rows.drop_duplicates(["checkpoint", "data"]).groupby("data").size()
    told = [f"{name} {int(counts.get(f'{name}/test', 0))} of {total}" for name, total in planned().items()]
    whole = all(int(counts.get(f"{name}/test", 0)) == total for name, total in planned().items())
    state = "The study is whole" if whole else "**The study is partial**: the plan says how parts are analysed"
    return f"{state}. Networks measured, of those planned: {', '.join(told)}."


def _two_tests(found: Statements) -> str:
    """Why a slope whose interval excludes zero may be open."""
    rows = [found.row("1", WITHIN, kind) for kind in KINDS]
    split = [row for row in rows if row is not None and row["low"] * row["high"] > 0 and _word(row) == OPEN]
    if not split:
        return ""
    kinds = " and ".join(f"{row['shift_kind']} shifts (p = {row['p']:.2g} before Holm's correction)" for row in split)
    return (
        f"Under {kinds} the interval of (1) excludes zero and its test does not: the interval asks how far the slope "
        "would be another with other blocks, the randomisation whether the same outcomes, dealt to the ranks of a "
        "block in any other order, give a slope as large. The plan asks for both, so that the statement is open."
    )


def _explained(answer: Answer, figures: str) -> Iterator[str]:
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


def _predicted(answer: Answer, figures: str) -> Iterator[str]:
    table = prediction_table(answer.found)
    yield (
        "Least squares over the drawn operators on what is measured of their sites; the published operators and their "
        "doses take no part in the fit. R² below 0: their mean predicts better."
    )
    yield table
    yield missed(answer.frames["joined"])
    yield f"![Predicted and measured consistency of published operators]({figures}/heldout.png)"
    if TIPS in set(answer.rows["operator_spec"]):
        yield "TIPS, as published and with the phases of the pixels, in networks with circular padding:"
        yield predicted_of(answer.frames["joined"], (TIPS, PHASE_TIPS))


def _chain(answer: Answer) -> Iterator[str]:
    if answer.frames.tables.drift.empty:
        return
    yield "## Which link carries it"
    yield chain_table(answer.rows, answer.frames["drift"], answer.data)
    yield (
        "Standardised paths, the other causes of a link held equal, over the networks of P and R; CR2 intervals, "
        "clusters are drawn operators and blocks. Drift: how far the pooled features of a shifted image are from those "
        "of the image, against how far images are apart. Exploratory: which variables a link has was chosen on the "
        "bundled zoo, a sixth of the digits cell. Associations, since none but the operator was assigned."
    )


def _pairs(found: Statements) -> Iterator[str]:
    table = pair_table(found)
    if table:
        yield "## Pairs that differ in one thing"
        yield table
        yield (
            "Networks of one cell and training seed; `lme` weighs the pixels of a window as `soft` does, in another "
            "function. From six pairs on there is a p (sign flips), corrected over these comparisons alone."
        )


def _robust(answer: Answer) -> Iterator[str]:
    if answer.frames.tables.robustness.empty:
        return
    table = robustness_association(answer.frames)
    images = int(answer.frames["robustness"]["n_images"].max())
    yield "## Does low MSB help robustness?"
    yield robustness_table(table, ACCURACY, READINGS)
    yield (
        f"Spearman's correlation with accuracy on the first {images} test images, over drawn operators (ranks within "
        "cell, padding and augmentation; 95 % intervals, jackknife over operators). The same with the accuracy that is "
        "lost, each network's own clean accuracy taken away:"
    )
    yield robustness_table(table, KEPT, READINGS)
    clear = table[
        (table["cell"] == POOLED) & (table["reading"] == "msb_corrected") & (table["low"] * table["high"] > 0)
    ]
    clear = clear[clear["condition"] != "clean"]
    yield (
        f"Exploratory; no interval is widened for their number. Of {len(_under_attack(table))} correlations of "
        f"corrected MSB, {len(clear)} have an interval without zero, {int((clear['r'] > 0).sum())} of them above it "
        "(more MSB, more accuracy left)."
    )


def _under_attack(table: pd.DataFrame) -> pd.DataFrame:
    mine = (table["cell"] == POOLED) & (table["reading"] == "msb_corrected") & (table["condition"] != "clean")
    return table[mine & np.isfinite(table["r"].astype(float))]


def _published(answer: Answer, figures: str) -> Iterator[str]:
    yield (
        "The published operators and their strengths within one cell (data set, architecture, padding): Pearson's r of "
        "MSB, literal and corrected, and of the equivariance error, with both scores. *Over* specifications "
        "(intervals: jackknife over operators), and *within* operators, along the strength of each (`soft`, `lp`, "
        "`blur`, `tips`). Associations of these operators; those consistent by construction take no part."
    )
    yield published_table(answer.rows, answer.data)
    for data in answer.data:
        name = data.partition("/")[0]
        yield f"![Published operators, {name}]({figures}/{name}/{PUBLISHED}.png)"


def _claims(answer: Answer) -> str:
    body = [*_claims_on_msb(answer.found), *_claims_on_tips(answer.rows)]
    return markdown(["claimed", "asked of", "found", "verdict"], body)


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
                yield [f"{claim} ({kind} shifts)", of, told, _word(row)]


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
    return "holds" if mean.estimate > 0 else "the opposite holds"


def _unaugmented(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in which a specification stands once per cell, padding, augmentation and seed."""
    if "factor_augmentation" in rows:
        plain = rows["factor_augmentation"].isna() | (rows["factor_augmentation"].astype(str) == "none")
        rows = rows[plain]
    return rows.drop_duplicates(["data", "architecture", "padding_mode", "seed", "operator_spec"])


def _word(row: pd.Series) -> str:
    return str(row["verdict"]) if isinstance(row["verdict"], str) and row["verdict"] else MISSING


def _beside_the_first(answer: Answer) -> Iterator[str]:
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
            name = str(data).partition("/")[0]
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


def _reliability(answer: Answer) -> str:
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


def _failed(answer: Answer) -> Iterator[str]:
    told = list(left_out(answer.results.statements))
    yield "Left out of every statement: " + ("; ".join(told) if told else "none") + "."
    table = answer.found.primary
    full = table[(table["statement"] == "ceiling") & (table["note"].astype(str) == "at the ceiling")]
    if len(full):
        cells = sorted(
            {f"{row['cell'].partition('/')[0]} under {row['shift_kind']} shifts" for row in full.to_dict("records")}
        )
        yield (
            "At the ceiling (more than a quarter of the drawn networks at a consistency of 0.995 or above): "
            f"{', '.join(cells)}; pooled statements without them are in statements.csv."
        )


def _limits(answer: Answer) -> Iterator[str]:
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


def _again() -> str:
    return "\n".join(
        [
            "    make figures                      # this page and its figures, from the published tables",
            "    make reproduce SOURCE=FOLDER      # three runs drawn by chance, trained and measured again",
            "    invariscope unpack data/reference/population/digits --out ZOO      # the weights (data/README.md)",
        ]
    )


def main(folder: str, out: Path, page: Path, first: str | None = None) -> None:
    """Write RESULTS.md, and into ``out`` its figures, the statements, the summary and what the README shows."""
    answer = Answer.of(folder, first)
    shutil.rmtree(out, ignore_errors=True)
    for path in save_figures(answer.frames, out, list(FIGURES)):
        print(path)
    written = {
        "statements.csv": answer.results.statements.to_csv(index=False, lineterminator="\n").encode(),
        "summary.md": summary_text(answer.results.opening, answer.results.folds, FIGURE_FILE).encode(),
        FIGURE_FILE: (out / f"{HEADLINE}.png").read_bytes(),
        "findings.md": findings(answer).encode(),
    }
    write_together({out / name: content for name, content in written.items()})
    for data in answer.data:
        for path in save_figures(answer.frames, out / data.partition("/")[0], [PUBLISHED], data=data):
            print(path)
    write_whole(page, text(answer, out.as_posix()).encode())


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
