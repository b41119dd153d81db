"""The figure influence draws the refits that it names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from invariscope.analysis.figures.influence import _limits, influence
from invariscope.analysis.stats.regression import FractionalLogit, leave_one_out
from invariscope.base.errors import TableError


@pytest.fixture(scope="module")
def frame(simulate):
    zoo = simulate.Zoo(seeds=2, epochs=(24.0,), padding_modes=("zeros",), architectures=("smallcnn", "resnet8"))
    return simulate.simulate_frame(zoo)


def _expected(frame, kind):
    rows = frame[frame["shift_kind"] == kind]
    rows = rows.assign(msb_corrected=rows["msb_corrected"].round(9))
    model = FractionalLogit("m", "consistency", ("msb_corrected", "accuracy"), ("architecture", "data"))
    return leave_one_out(rows, model).set_index("left_out")


@pytest.mark.parametrize("width", ["double", "single"])
def test_slopes_intervals_and_distances_are_those_of_the_refits(frame, width):
    figure = influence(frame, width=width)
    assert len(figure.axes) == 4
    for row, kind in enumerate(("circular", "zero")):
        expected = _expected(frame, kind)
        left, right = figure.axes[2 * row : 2 * row + 2]
        names = [label.get_text() for label in left.get_yticklabels()]
        assert names[-2:] == sorted(names[-2:], key=lambda n: expected.loc[n.split()[-1], "estimate"]) or row == 1
        assert sorted(name.split()[-1] for name in names) == sorted(set(frame["operator"]) | {"smallcnn", "resnet8"})
        for position, name in enumerate(names):
            refit = expected.loc[name.split()[-1]]
            for ax, column in ((left, "estimate"), (right, "cooks_distance")):
                (point,) = [line for line in ax.lines if line.get_label() == name.split()[-1]]
                np.testing.assert_allclose(point.get_xydata(), [[refit[column], position]], rtol=1e-9)
            ends = [line.get_xdata() for line in left.lines if list(line.get_ydata()) == [position, position]]
            assert any(np.allclose(pair, refit[["low", "high"]].astype(float)) for pair in ends)
        (whole,) = [line for line in left.lines if line.get_label() == "nothing left out"]
        assert whole.get_xdata()[0] == pytest.approx(expected.loc["", "estimate"], rel=1e-12)
        assert f"n = {expected.loc['', 'n']}" in left.get_title(loc="left")


def test_the_caption_names_every_refit_and_the_axis_holds_every_slope(frame):
    figure = influence(frame)
    for kind in ("circular", "zero"):
        expected = _expected(frame, kind)
        for name in ("max", "soft"):
            text = f"{expected.loc[name, 'estimate']:.2f} [{expected.loc[name, 'low']:.2f}".replace("-", "−")
            assert f"{kind}, without operator {name}: {text}" in figure.caption
        low, high = figure.axes[0].get_xlim()
        assert expected["estimate"].dropna().between(low, high).all()
    assert "digits test is the only value of data" in figure.caption
    assert "CR2" in figure.caption


def test_a_long_interval_runs_off_the_axis():
    rows = [("", -1.0, -2.0, 0.0), ("op1", 0.0, -100.0, 2.0), ("op2", -1.5, -2.5, 1.0)]
    table = pd.DataFrame(rows, columns=["left_out_kind", "estimate", "low", "high"])
    low, high = _limits(table)
    # Slopes and the interval of all rows span -2 to 0: the interval to -100 is cut twice as far beyond.
    assert low == pytest.approx(-6 - 0.04 * 8)
    assert high == pytest.approx(2 + 0.04 * 8)


def test_accuracy_against_itself_is_refused(frame):
    with pytest.raises(TableError, match="choose a score such as consistency"):
        influence(frame, score="accuracy")
