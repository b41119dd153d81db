"""Robustness over drawn operators: correlations as scipy has them, stratum by stratum."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from invariscope.analysis.designs.assigned import POPULATION, Settings
from invariscope.analysis.designs.robust import ACCURACY, KEPT, robustness_association
from invariscope.analysis.designs.simulated import SimulatedDesign, Truth, simulate_study
from invariscope.base.errors import TableError

SETTINGS = Settings(draws=199)


@pytest.fixture(scope="module")
def joined() -> pd.DataFrame:
    frame = simulate_study(Truth("nothing"), SimulatedDesign(cells=("a", "b"), draws=24, blocks=10), 3)
    return frame.assign(model="net")


def attacked(joined: pd.DataFrame) -> pd.DataFrame:
    """The frame ``robustness``: accuracy under two attacks and two corruptions, made by chance from MSB."""
    rng = np.random.default_rng(0)
    once = joined.drop_duplicates(["checkpoint", "data"])
    base = once[["checkpoint", "model", "data", "msb_corrected", "final", POPULATION]].assign(factor_origin=None)
    clean = rng.uniform(0.8, 1, len(base))
    parts = [base.assign(condition_kind="clean", condition="clean", severity=np.nan, norm=None, accuracy=clean)]
    for eps in (1 / 255, 2 / 255):
        fall = 0.3 * base["msb_corrected"] + rng.normal(0, 0.1, len(base)) + 20 * eps
        parts.append(base.assign(condition_kind="adversarial", condition="pgd", severity=eps, norm="linf",
                                 accuracy=clean - fall))  # fmt: skip
    for name in ("fog", "snow"):
        parts.append(base.assign(condition_kind="corruption", condition=name, severity=1.0, norm=None,
                                 accuracy=rng.uniform(0, 1, len(base))))  # fmt: skip
    return pd.concat(parts, ignore_index=True).assign(n_images=100, steps=20, restarts=1)


def test_correlations_are_scipys_within_each_condition_of_training(joined: pd.DataFrame) -> None:
    robust = attacked(joined)
    found = robustness_association({"joined": joined, "robustness": robust}, SETTINGS)  # type: ignore[arg-type]
    drawn = joined[(joined[POPULATION] == "P") & (joined["shift_kind"] == "circular")]
    wide = robust[robust["condition_kind"] != "corruption"].assign(
        name=robust["severity"].fillna(0).mul(255).round().astype(int)
    )
    wide = wide.pivot(index=["checkpoint", "data"], columns="name", values="accuracy").reset_index()
    fog = robust[robust["condition_kind"] == "corruption"].groupby(["checkpoint", "data"])["accuracy"].mean()
    rows = drawn.merge(wide, on=["checkpoint", "data"]).merge(fog.rename("fog"), on=["checkpoint", "data"])
    columns = {"pgd L∞ 1/255": rows[1], "pgd L∞ 2/255": rows[2], "corruptions": rows["fog"]}
    assert set(found["condition"]) == {"clean", *columns}
    for condition, accuracy in columns.items():
        for outcome, score in ((ACCURACY, accuracy), (KEPT, accuracy - rows[0])):
            z, weight = 0.0, 0.0
            for _, part in rows.assign(score=score).groupby(["data", "padding_mode"]):
                r = stats.spearmanr(part["msb_corrected"].round(9), part["score"]).statistic
                z, weight = z + (len(part) - 3) * np.arctanh(r), weight + len(part) - 3
            mine = found[(found["condition"] == condition) & (found["outcome"] == outcome)]
            row = mine[(mine["reading"] == "msb_corrected") & (mine["cell"] == "pooled")].iloc[0]
            assert row["r"] == pytest.approx(np.tanh(z / weight), abs=1e-9)
            assert (row["n"], row["n_units"]) == (48, 24)
    assert set(found["cell"]) == {"pooled", *(f"{name}/smallcnn" for name in ("a", "b"))}
    assert found[found["condition"] == "clean"]["outcome"].eq(ACCURACY).all()


def test_a_reading_or_drawn_operators_that_are_not_there_are_said(joined: pd.DataFrame) -> None:
    robust = attacked(joined)
    frames = {"joined": joined, "robustness": robust}
    found = robustness_association(frames, SETTINGS, ["none"])  # type: ignore[arg-type]
    assert found["note"].eq("none was not measured").all()
    assert found["r"].isna().all()
    with pytest.raises(TableError, match="no operator was drawn at random"):
        robustness_association({**frames, "joined": joined[joined[POPULATION] == "R"]}, SETTINGS)  # type: ignore[arg-type]
    others = robust[robust[POPULATION] == "R"]
    with pytest.raises(TableError, match="no drawn operator was measured under attacks"):
        robustness_association({**frames, "robustness": others}, SETTINGS)  # type: ignore[arg-type]
