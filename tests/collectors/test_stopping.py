"""Measuring until a score is known well enough: the first images of the same plan, and no others."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
import torch

from invariscope.base.errors import DataError
from invariscope.collectors.engine.run import collect
from invariscope.collectors.measure.invariance import measure_invariance
from invariscope.collectors.measure.shifts import ShiftPlan
from invariscope.collectors.measure.stopping import error, steps
from invariscope.collectors.options import Options
from invariscope.zoo.datasets import ImageSet, load_dataset
from invariscope.zoo.datasets.inputs import PreparedImages
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest

ROWS = ["score", "value", "se", "low", "high", "n_images", "n_pairs"]


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_dataset("digits", limit=340)


def measured(repository: Path, images: ImageSet, out: Path, **options: object) -> pd.DataFrame:
    zoo = read_manifest(repository / "data" / "zoo", only="smallcnn-max-circular-s40000-*")
    outcome = collect(zoo, images, out, Options(("invariance",), shift="zero", n_shifts=3, **options), progress=False)
    assert not outcome.failures
    rows = ds.dataset(out / "invariance", format="parquet").to_table().to_pandas()
    assert set(rows.loc[rows["shift_kind"] == "none", "n_images"]) == {len(images)}
    return rows[rows["shift_kind"] == "zero"].reset_index(drop=True)


def test_a_score_known_well_enough_is_that_of_the_first_images(
    repository: Path, images: ImageSet, tmp_path: Path
) -> None:
    """Against the measurement of those images alone; whatever the batches."""
    rows = measured(repository, images, tmp_path / "early", target_se=0.05)
    zoo = read_manifest(repository / "data" / "zoo", only="smallcnn-max-circular-s40000-*")
    plan = ShiftPlan.sampled(256, zoo[0].input.height // 8, 3, "zero")
    first = images.head(256)
    alone = measure_invariance(
        load_checkpoint(zoo[0]), PreparedImages(first, zoo[0].input), first.labels, plan, progress=False
    )
    expected = alone[alone["shift_kind"] == "zero"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows[ROWS], expected[ROWS], rtol=1e-6)
    assert set(rows["n_images"]) == {256}
    again = measured(repository, images, tmp_path / "other", target_se=0.05, batch_size=48)
    pd.testing.assert_frame_equal(rows[ROWS], again[ROWS], rtol=1e-5)


def test_a_score_not_known_so_well_is_that_of_all_images(repository: Path, images: ImageSet, tmp_path: Path) -> None:
    late = measured(repository, images, tmp_path / "late", target_se=1e-6)
    whole = measured(repository, images, tmp_path / "whole")
    pd.testing.assert_frame_equal(late[[*ROWS, "plan_hash"]], whole[[*ROWS, "plan_hash"]])
    assert late["task"].iloc[0] != whole["task"].iloc[0]  # one does not stand for the other


def test_looks_are_at_fixed_numbers_of_images() -> None:
    assert list(steps(600)) == [(0, 256), (256, 512), (512, 600)]
    assert list(steps(256)) == [(0, 256)]
    assert list(steps(3)) == [(0, 3)]


def test_the_error_is_that_of_the_mean_and_at_least_that_of_the_rule_of_three() -> None:
    values = torch.rand(300, generator=torch.Generator().manual_seed(0)).numpy().astype(float)
    mean = sum(values) / 300
    assert error(values) == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / 299 / 300))
    assert error(np.ones(300)) == pytest.approx(3 / 300 / 1.959964, rel=1e-6)
    assert error(np.r_[np.ones(299), 0.9]) == error(np.ones(300))
    assert np.isnan(error(np.ones(1)))
    assert np.isnan(error(np.full(300, np.nan)))  # one shift has no pairs: all images are measured


@pytest.mark.parametrize("target", [0, -1, 1, float("nan"), float("inf")])
def test_a_target_that_is_no_standard_error_is_refused(target: float) -> None:
    with pytest.raises(DataError, match=r"give a standard error between 0 and 1, such as 0\.005"):
        Options(("invariance",), target_se=target)


def test_windows_are_looked_at_for_a_padded_border_as_without_a_target(repository: Path, tmp_path: Path) -> None:
    """The last part may be one image, whose border is plain by chance: of all images it is not."""
    data = load_dataset("digits", limit=257)
    textured = data.images.clone()
    textured[:256] += torch.arange(textured.shape[-1], dtype=textured.dtype) % 3  # no plain border
    textured[256] = 0
    zoo = read_manifest(repository / "data" / "zoo", only="smallcnn-max-circular-s40000-*")
    made = ImageSet("textured", textured, data.labels, data.classes)
    for name, target in (("whole", None), ("late", 1e-6)):
        options = Options(("invariance",), shift="crop", n_shifts=2, target_se=target)
        assert not collect(zoo, made, tmp_path / name, options, progress=False).failures
    late, whole = (ds.dataset(tmp_path / name / "invariance").to_table().to_pandas() for name in ("late", "whole"))
    pd.testing.assert_frame_equal(late[ROWS], whole[ROWS])
