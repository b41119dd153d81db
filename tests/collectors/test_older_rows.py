"""Rows from before a reading was there: missing in the frames, and told of by a run that finds them done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from invariscope.analysis import join, load
from invariscope.cli.common import tell_outcome
from invariscope.collectors.engine.run import collect
from invariscope.collectors.options import Options
from invariscope.collectors.schema import LATER_COLUMNS, OTHER_READINGS
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet


def test_older_rows_are_told_of(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = Options(("layers", "invariance"), shift=("circular",))
    assert collect(zoo, images, tmp_path, options, progress=False).older == {}
    means = join(load(tmp_path)).set_index("checkpoint")
    assert np.isfinite(means[[*OTHER_READINGS]]).all(axis=None)
    layers = load(tmp_path).layers
    wanted = layers.groupby("checkpoint")[[*OTHER_READINGS]].mean()
    assert means[[*OTHER_READINGS]].loc[wanted.index].to_numpy() == pytest.approx(wanted.to_numpy())
    for file in sorted((tmp_path / "layers").glob("*.parquet"))[:2]:
        rows = pq.read_table(file)
        kept = [name for name in rows.column_names if name not in LATER_COLUMNS]
        pq.write_table(rows.select(kept).replace_schema_metadata(rows.schema.metadata), file)
    again = collect(zoo, images, tmp_path, options, progress=False)
    assert (again.measured, again.older) == (0, {"layers": 2})
    tell_outcome(again, tmp_path)
    assert "layers: 2 tasks done before some of its readings were there" in capsys.readouterr().err
    assert join(load(tmp_path))["see"].notna().sum() == 1
