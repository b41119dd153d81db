"""Statement 5 on RESULTS.md: how well published operators are predicted, and what the plan lets us say of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from invariscope.analysis.designs.assigned import HELD_OUT, POPULATION, Settings, admitted
from invariscope.analysis.designs.heldout import EXACT, predict_held_out
from invariscope.analysis.designs.verdicts import MSB_GIVEN, OPEN, POOLED, causes, is_primary_plan
from reference.answer_study import PHASE_TIPS, TIPS, Answer
from reference.answer_tables import ERROR, EXPLAINED, KINDS, Statements, named, size_told, told
from reference.words import MISSING, markdown

DIFFERENCE = f"{ERROR}, less that of MSB, by see"
MEDIATES = 0.7
"""Share of the variance of the published operators from which on aliasing is what MSB stands for (the plan)."""


def predicted(answer: Answer, figures: str) -> Iterator[str]:
    """Statement 5, its largest misses, and TIPS."""
    table = prediction_table(answer.found)
    yield (
        "Least squares over the drawn operators on what is measured of their sites; the published operators and their "
        "doses take no part in the fit. R² below 0: their mean predicts better."
    )
    yield table
    yield "\n".join(f"* {line}" for line in told_apart(answer))
    networks = held_out_networks(answer.frames["joined"])
    yield missed(networks)
    yield tied(networks)
    yield f"![Predicted and measured consistency of published operators]({figures}/heldout.png)"
    if TIPS in set(answer.rows["operator_spec"]):
        yield "TIPS, as published and with the phases of the pixels, in networks with circular padding:"
        yield predicted_of(networks, (TIPS, PHASE_TIPS))


def prediction_table(found: Statements) -> str:
    """Statement 5: how well published operators are predicted, by what."""
    body = []
    for kind in KINDS:
        for model in ("MSB", "see", "MSB and see", "MSB, see and selectivity"):
            quantities = (f"{EXPLAINED}, by {model}", f"{ERROR}, by {model}")
            rows = [found.row("5", quantity, kind) for quantity in quantities]
            if rows[1] is None:
                continue
            words = model.replace("see", "equivariance error")
            body.append([kind, words, told(rows[0]), told(rows[1], digits=1), size_told(rows[1])])
    return markdown(["shifts", "predicted by", "R² on logits", "mean error in points", "n"], body)


def held_out_networks(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What statement 5 predicts of each held-out network, by shift kind; no kind under which none was measured."""
    rows, _ = admitted(frame, Settings())
    rows = rows[is_primary_plan(rows)]
    kinds = {kind: rows[rows["shift_kind"] == kind] for kind in KINDS}
    return {
        kind: predict_held_out(members, Settings(resamples=1)).networks
        for kind, members in kinds.items()
        if (members[POPULATION] == HELD_OUT).any()
    }


def predicted_of(predicted: Mapping[str, pd.DataFrame], specifications: Sequence[str]) -> str:
    """Measured and predicted consistency of some published operators, cell by cell; circular padding."""
    body = []
    for kind, networks in predicted.items():
        networks = networks[(networks["padding_mode"] == "circular") & networks["operator"].isin(specifications)]
        for (cell, name), part in networks.groupby(["cell", "operator"], sort=True):
            by = part.set_index("model")["predicted"].to_dict()
            percent = [f"{100 * by[model]:.1f}" if model in by else MISSING for model in ("MSB", "see")]
            body.append([named(str(cell)), kind, f"`{name}`", f"{100 * part['observed'].iloc[0]:.1f}", *percent])
    head = ["data", "shifts", "operator", "consistency measured (%)", "by MSB", "by equivariance error"]
    return markdown(head, body) if body else ""


def missed(predicted: Mapping[str, pd.DataFrame]) -> str:
    """Which held-out networks the equivariance error predicts worst, and how well it does by padding."""
    lines = []
    for kind, networks in predicted.items():
        known = networks[(networks["model"] == "see") & ~networks["by_construction"]]
        if known.empty:
            continue
        known = known.assign(error=100 * (known["predicted"] - known["observed"]))
        by = known.groupby("padding_mode")["error"].agg(lambda error: error.abs().mean())
        worst = known.reindex(known["error"].abs().sort_values(ascending=False).index).head(3)
        told = [
            f"`{row['operator']}` ({named(row['cell'])}, {row['padding_mode'].removesuffix('s')} padding: predicted "
            f"{100 * row['predicted']:.0f} %, measured {100 * row['observed']:.0f} %)"
            for row in worst.to_dict("records")
        ]
        each = ", ".join(f"{value:.1f} points with {str(mode).removesuffix('s')} padding" for mode, value in by.items())
        lines.append(
            f"* {kind.capitalize()} shifts: the equivariance error is off by {each}; most for {', '.join(told)}."
        )
    return "\n".join(lines)


def tied(predicted: Mapping[str, pd.DataFrame]) -> str:
    """Networks that were built to be consistent and are not."""
    every = pd.concat(predicted.values(), ignore_index=True)
    broken = every[every["by_construction"] & (every["observed"] < EXACT)].drop_duplicates(["cell", "operator"])
    if broken.empty:
        return ""
    told = [
        f"`{row['operator']}` ({named(row['cell'])}: {100 * row['observed']:.0f} %)"
        for row in broken.to_dict("records")
    ]
    return (
        "Consistent by construction and measured otherwise, in networks with circular padding: "
        f"{', '.join(told)}, means of the seeds. Phases that tie are the only way: where no hidden unit of the scoring "
        "network of `lps` is active any more, all phases have one score, and the first is taken "
        "(`iv.explain_invariance` says so of a network). They are in no R², as the plan has it."
    )


def told_apart(answer: Answer) -> Iterator[str]:
    """Whether the equivariance error predicts better than MSB, and what aliasing is to MSB by the plan's rule."""
    named_causes = causes(answer.results.statements).set_index("shift_kind")
    for kind in KINDS:
        row = answer.found.row("5", DIFFERENCE, kind)
        if row is None:
            continue
        more = _at_larger_shifts(answer.found, kind) + _part(answer.found, kind, named_causes)
        yield (
            f"{kind.capitalize()} shifts: the mean error by the equivariance error, less that by MSB, is "
            f"{told(row, digits=1)} points: {told_by(row)}.{more}"
        )


def told_by(row: pd.Series) -> str:
    """What an interval of the difference of errors lets us say."""
    if row["low"] * row["high"] <= 0:
        return "the two cannot be told apart by prediction"
    return f"{'the equivariance error' if row['estimate'] < 0 else 'MSB'} predicts better"


def _at_larger_shifts(found: Statements, kind: str) -> str:
    table = found.table
    mine = (table["statement"] == "5") & (table["quantity"] == DIFFERENCE) & (table["shift_kind"] == kind)
    rows = table[mine & (table["cell"] == POOLED) & ~is_primary_plan(table)].sort_values("max_shift")
    return "".join(
        f" Up to {row['most_shift']:.0f} px it is {told(row, digits=1)}: {told_by(row)}." for _, row in rows.iterrows()
    )


def _part(found: Statements, kind: str, named_causes: pd.DataFrame) -> str:
    """Aliasing is what MSB stands for, or a part of it."""
    explained = found.row("5", f"{EXPLAINED}, by see", kind)
    if kind not in named_causes.index or not named_causes.loc[kind, "aliasing"] or explained is None:
        return ""
    if explained["estimate"] < MEDIATES:
        return f" With R² below {MEDIATES:g} aliasing is part of what goes with consistency, and not all."
    slope = found.row("4", MSB_GIVEN, kind)
    if slope is not None and slope["verdict"] == OPEN:
        r_squared = f"{explained['estimate']:.2f}"
        return f" With R² of {r_squared}, and MSB's slope given it open, aliasing is what MSB stands for."
    return ""
