"""Mean corruption error against sums by hand, and what is said of how rows were measured."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from invariscope.analysis.publication.paper_tables import table_robustness
from invariscope.analysis.say.conditions import conditions_said
from invariscope.analysis.stats.corruption_error import corruption_errors
from invariscope.analysis.tables.frames import robustness_frame
from invariscope.analysis.tables.load import Tables
from invariscope.base.errors import TableError

ACCURACY = {
    "a": {"fog": (0.9, 0.5), "snow": (0.8, 0.4), "frost": (1.0, 1.0)},
    "b": {"fog": (0.8, 0.4), "snow": (0.9, 0.7), "frost": (0.5, 0.5)},
}


def rows(accuracy: dict = ACCURACY) -> pd.DataFrame:
    records = [
        {"checkpoint": name, "model": f"m-{name}", "operator": "max" if name == "a" else "avg",
         "condition_kind": "corruption", "condition": corruption, "severity": severity, "accuracy": value}
        for name, corruptions in accuracy.items()
        for corruption, values in corruptions.items()
        for severity, value in zip((1.0, 3.0), values, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(records)


def test_mean_of_ratios_of_sums() -> None:
    found = corruption_errors(rows())
    assert found.reference == "a"
    assert found.notes == ["Left out of mCE, since a makes no error under them: frost."]
    table = found.rows.set_index("checkpoint")
    ratios = np.array([0.8 / 0.6, 0.4 / 0.8])
    assert table.loc["a", "mce"] == pytest.approx(1)
    assert table.loc["b", "mce"] == pytest.approx(ratios.mean())
    half = 12.706204736 * ratios.std(ddof=1) / np.sqrt(2)
    assert table.loc["b", "mce_high"] - ratios.mean() == pytest.approx(half)
    assert table["n_corruptions"].tolist() == [2, 2]
    other = corruption_errors(rows(), "b").rows.set_index("checkpoint")["mce"]
    assert other["a"] == pytest.approx(np.mean([0.6 / 0.8, 0.8 / 0.4, 0.0]))


def test_a_checkpoint_without_some_of_the_corruptions_has_none() -> None:
    some = rows()
    lost = some[(some["checkpoint"] != "b") | (some["condition"] != "fog")]
    found = corruption_errors(lost)
    assert found.rows["checkpoint"].tolist() == ["a"]
    assert "No mCE, for want of some of the corruptions of a: 1 checkpoint." in found.notes


def test_references_that_cannot_be() -> None:
    with pytest.raises(TableError, match="no checkpoint 'c' was measured"):
        corruption_errors(rows(), "c")
    with pytest.raises(TableError, match="operator max was measured under all corruptions: name a reference"):
        corruption_errors(rows().assign(operator="avg"))
    with pytest.raises(TableError, match="there are no corruptions"):
        corruption_errors(rows().assign(condition_kind="clean"))
    with pytest.raises(TableError, match="a makes no error under any corruption"):
        corruption_errors(rows().assign(accuracy=1.0))


def test_the_table_has_the_mean_over_checkpoints(simulate: ModuleType, conditions: ModuleType) -> None:
    zoo = simulate.Zoo(truth="simpson", seeds=2, epochs=(24.0,), padding_modes=("zeros",), architectures=("smallcnn",))
    tables: Tables = conditions.with_conditions(simulate.simulate_tables(zoo))
    frame = robustness_frame(tables)
    errors = frame[frame["condition_kind"] == "corruption"].assign(error=lambda part: 1 - part["accuracy"])
    sums = errors.pivot_table(index="checkpoint", columns="condition", values="error", aggfunc="sum")
    reference = min(frame.loc[frame["operator"] == "max", "checkpoint"])
    mce = (sums / sums.loc[reference]).mean(axis=1)
    of_tips = mce[sorted(set(frame.loc[frame["operator"] == "tips", "checkpoint"]))]
    table = table_robustness(frame)
    row = table.rows[table.rows["operator_spec"] == "tips"].iloc[0]
    assert row["mce"] == pytest.approx(of_tips.mean())
    assert f"as a share of those of {reference}" in table.caption
    named = table_robustness(frame, reference=of_tips.index[0])
    assert f"as a share of those of {of_tips.index[0]}" in named.caption
    with pytest.raises(TableError, match="no checkpoint 'nobody'"):
        table_robustness(frame, reference="nobody")


def test_what_is_said_of_the_conditions() -> None:
    attack = {"condition_kind": "adversarial", "condition": "pgd", "steps": 20, "restarts": 2, "operator": "aps"}
    said = conditions_said(
        pd.DataFrame(
            [
                {
                    **attack,
                    "severity": 0.1,
                    "step_size": 0.025,
                    "note": "gradients see only the chosen phase at 2 sites",
                },
                {**attack, "severity": 0.2, "step_size": 0.05, "note": None, "operator": "max"},
                {"condition_kind": "corruption", "condition": "frost", "note": "constants of x; procedural frost"},
            ]
        )
    )
    assert said == [
        "pgd: 20 steps, steps of 0.25 ε, random starts: 2; each ε attacked afresh.",
        "Gradients see only the chosen phase at 2 sites: aps.",
        "Corruptions: constants of x.",
        "Corruptions: procedural frost.",
    ]
