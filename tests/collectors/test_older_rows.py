"""Rows from before a reading was there: missing in the frames, and told of by a run that finds them done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from invariscope.analysis import join, load
from invariscope.cli.common import tell_outcome
from invariscope.collectors.engine.run import collect
from invariscope.collectors.measure.operator_error import error_of_network, operator_equivariance_error
from invariscope.collectors.options import Options
from invariscope.collectors.schema import LATER_COLUMNS, OPERATOR_ERROR, OTHER_READINGS
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet
from invariscope.zoo.model_string import ModelString


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
    operators = [ModelString.parse(model).arguments["operator"] for model in means["model"]]
    assert means[OPERATOR_ERROR].tolist() == [operator_equivariance_error(str(one)) for one in operators]
    assert len(set(means[OPERATOR_ERROR])) > 1
    files = [*sorted((tmp_path / "layers").glob("*.parquet"))[:2], next((tmp_path / "checkpoints").glob("*.parquet"))]
    for file in files:
        rows = pq.read_table(file)
        kept = [name for name in rows.column_names if name not in LATER_COLUMNS]
        pq.write_table(rows.select(kept).replace_schema_metadata(rows.schema.metadata), file)
    again = collect(zoo, images, tmp_path, options, progress=False)
    assert (again.measured, again.older) == (0, {"checkpoints": 1, "layers": 2})
    tell_outcome(again, tmp_path)
    assert "layers: 2 tasks done before some of its readings were there" in capsys.readouterr().err
    older = join(load(tmp_path))
    assert older["see"].notna().sum() == 1
    assert older[OPERATOR_ERROR].isna().sum() == 1


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("timm:resnet10t", "not one of a zoo: network"),
        ("zoo:resnet20?operator=strided", "no operator"),
        ("zoo:smallcnn?operator=python:ops.py:Fails", "operator 'python:ops.py:Fails': "),
    ],
)
def test_networks_without_an_operator_of_ours_have_no_error_and_say_why(
    model: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "ops.py").write_text("class Fails:\n    pass\n")
    found, why = error_of_network(ModelString.parse(model), tmp_path)
    assert found is None
    assert why is not None
    assert reason in why
    assert error_of_network(ModelString.parse("zoo:smallcnn"), tmp_path) == (operator_equivariance_error("max"), None)
