"""Real checkpoints from elsewhere, end to end: published accuracies, MSB per site, consistency under three shift kinds.

By default on the first 128 test images of CIFAR-10; `INVARISCOPE_FULL=1` (`make test-full`) takes all 10,000.
"""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from invariscope import cli
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest

FULL = os.environ.get("INVARISCOPE_FULL") == "1"
N_IMAGES = 10_000 if FULL else 64

ACCURACY = {
    "akamaster-resnet20": 0.9173,
    "akamaster-resnet56": 0.9339,
    "captum-lenet": 0.5907,
    "ai8x-vgg": 0.9006,
    "mlperf-resnet8": 0.8719,
}
"""Published or logged accuracies on the 10,000 test images; for three of them re-measured by the data's curators."""

SITES = {
    "akamaster-resnet20": ["subsample", "conv"] * 2,
    "akamaster-resnet56": ["subsample", "conv"] * 2,
    "captum-lenet": ["max"] * 2,
    "ai8x-vgg": ["max"] * 4,
    "mlperf-resnet8": ["conv"] * 4,
}


@pytest.fixture(scope="module")
def zoo(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of these tests beside a link to the checkpoints."""
    here = Path(__file__).parent / "third_party"
    folder = tmp_path_factory.mktemp("third_party")
    for name in ("zoo.yaml", "nets.py"):
        shutil.copy(here / name, folder)
    (folder / "checkpoints").symlink_to(shared_data / "checkpoints")
    return folder


@pytest.fixture(scope="module")
def tables(zoo: Path, shared_data: Path) -> Path:
    out = zoo / "tables"
    command = [
        "collect",
        str(zoo),
        "--allow-code",
        "--data",
        f"parquet:{shared_data / 'cifar10' / 'test.parquet'}",
        "--out",
        str(out),
    ]
    command += ["--limit", str(N_IMAGES), "--shift", "circular,zero,crop", "--allow-outside", "--allow-code"]
    if not FULL:
        command += ["--msb-images", "32", "--n-shifts", "2"]
    assert cli.main(command) == cli.DONE
    return out


def read(tables: Path, name: str) -> pd.DataFrame:
    return ds.dataset(tables / name, format="parquet").to_table().to_pandas()


def test_accuracies_are_the_published_ones(tables: Path) -> None:
    rows = read(tables, "invariance").query("shift_kind == 'none'").set_index("checkpoint")["value"]
    assert set(rows.index) == set(ACCURACY)
    for name, published in ACCURACY.items():
        # On a subset of the images, four standard errors of a share of so many.
        allowed = 0.0005 if FULL else 4 * (published * (1 - published) / N_IMAGES) ** 0.5
        assert rows[name] == pytest.approx(published, abs=allowed), name


def test_accuracy_is_that_of_a_plain_loop(tables: Path, zoo: Path, shared_data: Path) -> None:
    batch = next(pq.ParquetFile(shared_data / "cifar10" / "test.parquet").iter_batches(batch_size=200)).to_pylist()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["img"]["bytes"])).convert("RGB")) for row in batch])
    labels = torch.tensor([row["label"] for row in batch])
    images = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255
    checkpoint = next(
        c for c in read_manifest(zoo, allow_outside=True, allow_code=True) if c.name == "akamaster-resnet20"
    )
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (checkpoint.input.mean, checkpoint.input.std))
    with torch.inference_mode():
        hits = load_checkpoint(checkpoint)((images - mean) / std).argmax(1) == labels
    clean = zoo / "clean"
    data = f"parquet:{shared_data / 'cifar10' / 'test.parquet'}"
    command = [
        "collect",
        str(zoo),
        "--data",
        data,
        "--out",
        str(clean),
        "--allow-code",
        "--only",
        checkpoint.name,
        "--limit",
        "200",
        "--shift",
        "",
    ]
    assert cli.main([*command, "--collect", "invariance", "--allow-outside", "--allow-code"]) == cli.DONE
    measured = read(clean, "invariance").set_index("checkpoint")["value"]["akamaster-resnet20"]
    assert measured == pytest.approx(hits.double().mean().item(), abs=1e-12)


def test_msb_per_site(tables: Path) -> None:
    layers = read(tables, "layers").sort_values(["checkpoint", "depth"])
    kinds = layers.groupby("checkpoint")["site_kind"].agg(lambda values: sorted(values))
    assert kinds.to_dict() == {name: sorted(expected) for name, expected in SITES.items()}
    assert layers["reason"].isna().all()
    pools = layers[layers["site_kind"] == "max"]
    assert (pools[["msb", "msb_weight", "msb_corrected"]] == 1).all(axis=None)
    others = layers[layers["site_kind"] != "max"]
    # Blind to the values, 1 of 4 positions is the maximum; what networks learn moves it, but not to either end.
    assert others["msb"].between(0.1, 0.6).all()
    assert (others["msb"] - others["msb_weight"]).abs().max() < 1e-3
    assert (layers["msb_corrected_se"] < 0.05).all()


def test_consistency_under_three_kinds(tables: Path) -> None:
    rows = read(tables, "invariance").query("score == 'consistency'")
    assert sorted(rows["shift_kind"].unique()) == ["circular", "crop", "zero"]
    assert len(rows) == 15
    assert rows["value"].between(0.4, 1).all()
    assert ((rows["low"] <= rows["value"]) & (rows["value"] <= rows["high"])).all()
    wide = rows.pivot(index="checkpoint", columns="shift_kind", values="value")
    # The deep residual networks are more stable than a five-layer one under every kind.
    assert (wide.loc["akamaster-resnet56"] > wide.loc["captum-lenet"]).all()


def test_robustness_of_a_checkpoint_from_elsewhere(zoo: Path, shared_data: Path) -> None:
    """Undefended: a budget of 4/255 leaves next to nothing; accuracy falls along severities; clean is the published."""
    out, data = zoo / "robustness", f"parquet:{shared_data / 'cifar10' / 'test.parquet'}"
    command = [
        "collect",
        str(zoo),
        "--data",
        data,
        "--out",
        str(out),
        "--limit",
        "64",
        "--allow-outside",
        "--allow-code",
    ]
    command += ["--collect", "robustness", "--only", "captum-lenet", "--robust-images", "64", "--attack-steps", "5"]
    command += ["--eps-linf", "1/255,4/255,16/255", "--norms", "linf", "--severities", "1,5"]
    assert cli.main([*command, "--corruptions", "gaussian_noise,contrast,fog"]) == cli.DONE
    rows = read(out, "robustness")
    assert len(rows) == 1 + 3 + 6
    clean = rows.set_index("condition_kind").loc["clean", "accuracy"]
    assert clean == pytest.approx(ACCURACY["captum-lenet"], abs=4 * (0.25 / 64) ** 0.5)
    attacked = rows[rows["condition_kind"] == "adversarial"].sort_values("severity")["accuracy"].tolist()
    assert clean > attacked[0] > attacked[1] >= attacked[2]
    assert attacked[2] <= 0.1
    severities = rows[rows["condition_kind"] == "corruption"].groupby("severity")["accuracy"].mean()
    # A light corruption may change no more than chance does: four standard errors of a change at 5 % of the images.
    assert severities[5] < severities[1] <= clean + 4 * (0.05 / 64) ** 0.5
