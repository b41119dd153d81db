"""Several largest shifts in one run: tasks, rows, and what stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from invariscope.analysis import join, load
from invariscope.analysis.tables.load import load_table
from invariscope.base.errors import DataError
from invariscope.collectors.engine.run import collect
from invariscope.collectors.options import Options, ShiftOptions
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet


def test_an_eighth_and_a_quarter(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    both = Options(("layers", "invariance", "drift"), max_shift=("1/8", "1/4"))
    usual, wide = Options(("invariance",)), Options(("invariance",), max_shift=8)
    assert usual.shifts(zoo[0]) == Options(("invariance",), max_shift=4).shifts(zoo[0])
    assert sorted(map(str, both.shifts(zoo[0]))) == sorted(map(str, usual.shifts(zoo[0]) + wide.shifts(zoo[0])))
    outcome = collect(zoo, images, tmp_path, both, progress=False)
    assert not outcome.failures
    assert collect(zoo, images, tmp_path, usual, progress=False).measured == 0
    assert collect(zoo, images, tmp_path, wide, progress=False).measured == 0
    frame = join(load(tmp_path))
    assert frame.groupby(["shift_kind", "max_shift"]).size().to_dict() == {
        (kind, most): 3 for kind in ("circular", "zero") for most in (4, 8)
    }
    drift = load_table(tmp_path, "drift")
    assert drift.groupby(["shift_kind", "max_shift"])["task"].nunique().to_dict() == {
        (kind, most): 3 for kind in ("circular", "zero") for most in (4, 8)
    }


def test_how_shifts_are_given() -> None:
    assert ShiftOptions(max_shift=("1/8", "1/4", "4", "7")).reaches(32) == [4, 8, 7]
    assert ShiftOptions(max_shift=("1/8",)).reaches(7) == [1]
    assert ShiftOptions(max_shift="1/4").reaches(100) == [25]
    assert ShiftOptions(max_shift=[2, 4]).reaches(32) == [2, 4]
    for wrong in ("a", "3/2", "-1", "1/0", ()):
        with pytest.raises(DataError, match="max_shift is"):
            ShiftOptions(max_shift=wrong)
