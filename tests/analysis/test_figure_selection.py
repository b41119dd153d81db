"""Which rows a figure draws: of which data set, plan and snapshots, how rounded, and what it says of the others."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from invariscope.analysis.figures import selection
from invariscope.analysis.figures.msb_invariance import msb_invariance
from invariscope.base.errors import TableError


@pytest.fixture(scope="module")
def everything(simulate: ModuleType) -> pd.DataFrame:
    joined = simulate.simulate_frame(simulate.Zoo(seeds=2, epochs=(8.0, 24.0), padding_modes=("zeros",)))
    return joined.assign(**{name: joined[name].round(9) for name in ("msb", "msb_corrected")})


@pytest.fixture(scope="module")
def frame(everything: pd.DataFrame) -> pd.DataFrame:
    """The last snapshots, which are what figures draw unless told otherwise."""
    return everything[everything["epoch"] == 24].reset_index(drop=True)


def test_one_data_set_and_one_plan_are_chosen_and_the_rest_is_named(frame: pd.DataFrame) -> None:
    few = frame[frame["checkpoint"].isin(frame["checkpoint"].unique()[:5])]
    wider = few.assign(max_shift=8, consistency=0.0)
    usual = frame.assign(max_shift=2, n_shifts=5, consistency=0.1)
    path = frame.assign(plan="path", consistency=0.2)
    elsewhere = few.assign(data="cifar10 test", consistency=0.3)
    smaller = few.assign(n_images=10, consistency=0.4)
    mixed = pd.concat([wider, usual, smaller, path, elsewhere, frame], ignore_index=True)
    chosen = selection.select(mixed, "test", ["consistency"])
    assert chosen.data == "digits test"
    pd.testing.assert_series_equal(
        chosen.rows.set_index(["checkpoint", "shift_kind"])["consistency"].sort_index(),
        frame.set_index(["checkpoint", "shift_kind"])["consistency"].sort_index(),
    )
    notes = " ".join(chosen.notes)
    assert "cifar10 test" in notes
    assert "circular ≤ 8 px × 9 (sampled)" in notes
    assert "zero ≤ 2 px × 5 (sampled)" in notes
    assert "zero ≤ 4 px × 9 (path)" in notes
    assert f"{len(few)} rows" in notes
    other = selection.select(mixed, "test", ["consistency"], data="cifar10 test")
    assert set(other.rows["consistency"]) == {0.3}


def test_rounding_of_the_forward_pass_does_not_decide_ranks(frame: pd.DataFrame) -> None:
    noisy = frame.assign(
        msb_corrected=frame["msb_corrected"] + np.random.default_rng(0).uniform(-4e-11, 4e-11, len(frame))
    )
    drawn = selection.select(noisy, "test", ["msb_corrected"]).rows.set_index(["checkpoint", "shift_kind"])[
        "msb_corrected"
    ]
    assert drawn.to_dict() == frame.set_index(["checkpoint", "shift_kind"])["msb_corrected"].to_dict()


def test_strided_convolutions_count_as_plain_subsampling(frame: pd.DataFrame) -> None:
    named = frame.assign(operator=frame["operator"].replace({"subsample": "strided"}))
    rest = selection.without(named)
    assert rest is not None
    assert set(rest["operator"]) == set(frame["operator"]) - {"subsample"}
    assert selection.without(rest) is None
    assert selection.without(named[named["operator"] == "strided"]) is None


def test_values_that_cannot_be_drawn_are_counted(frame: pd.DataFrame) -> None:
    holes = frame.copy()
    holes.loc[holes["operator"] == "avg", "msb_corrected"] = np.nan
    holes.loc[holes["operator"] == "tips", "consistency"] = np.inf
    figure = msb_invariance(holes)
    assert {"avg", "tips"}.isdisjoint(points.get_label() for points in figure.axes[0].collections)
    assert "Not shown, for want of msb_corrected or consistency or fidelity: 4 checkpoints (8 rows)." in figure.caption
    with pytest.raises(TableError, match="no row with all of msb_corrected"):
        msb_invariance(frame.assign(msb_corrected=np.nan))
    with pytest.raises(TableError, match="needs the columns msb_corrected"):
        msb_invariance(frame.drop(columns="msb_corrected"))


def test_the_background_is_drawn_before_other_fills(frame: pd.DataFrame) -> None:
    zero = frame[frame["shift_kind"] == "zero"]
    other = zero.assign(fill="mean", consistency=0.5)
    heading = msb_invariance(pd.concat([other, zero], ignore_index=True)).axes[0].get_title(loc="left")
    assert heading.startswith("zero shift")
    assert "fill" not in heading
    assert msb_invariance(other).axes[0].get_title(loc="left").startswith("zero shift, ≤ 4 px, mean fill")
