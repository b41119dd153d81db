"""Folders of images as people have them, measured by the command alone: labels, splits, and what lies beside them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from invariscope import cli
from invariscope.base.errors import DataError
from invariscope.collectors import ShiftPlan, measure_invariance
from invariscope.collectors.engine.sharing import read_images, write_images
from invariscope.collectors.measure.invariance import measure_accuracy
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.files import ImageFiles
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages

MODEL = "zoo:smallcnn?classes=5"
SIZES = ((50, 61), (40, 40), (77, 45), (41, 90))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INPUT = {"size": 32, "mean": list(MEAN), "std": list(STD), "resize": 36, "interpolation": "bicubic", "crop": "centre"}


def photograph(seed: int, height: int, width: int) -> Image.Image:
    y, x = np.meshgrid(np.linspace(0, 3, height), np.linspace(0, 4, width), indexing="ij")
    waves = np.stack([np.sin(x * y + seed), np.cos(x + seed * y), np.sin(seed * x - y)], -1)
    noise = np.random.default_rng(seed).normal(0, 30, waves.shape)
    return Image.fromarray(np.clip(127 + 90 * waves + noise, 0, 255).astype(np.uint8))


def write(folder: Path, names: list[str], first: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in names]
    for number, file in enumerate(files, first):
        photograph(number, *SIZES[number % len(SIZES)]).save(file)
    return files


@pytest.fixture
def zoo(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    folder = tmp_path / "zoo"
    folder.mkdir()
    save_file(state, folder / "one.safetensors")
    entry = {"model": MODEL, "weights": "one.safetensors", "input": INPUT}
    (folder / "zoo.yaml").write_text(yaml.safe_dump({"checkpoints": [entry]}))
    return folder


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Five classes in a split, images of four sizes."""
    for number, name in enumerate("abcde"):
        write(tmp_path / "data" / "val" / name, [f"{i}.png" for i in range(6)], 6 * number)
    return tmp_path / "data"


def collect(zoo: Path, data: Path, *more: str) -> tuple[int, Any]:
    out = zoo.parent / "tables"
    command = ["collect", str(zoo), "--data", f"imagefolder:{data}", "--out", str(out), "--n-shifts", "3"]
    code = cli.main([*command, "--shift", "circular", "--max-shift", "3", "--collect", "invariance", *more])
    return code, ds.dataset(out / "invariance").to_table().to_pandas() if (out / "invariance").exists() else None


def test_accuracy_is_that_of_a_plain_loop_with_torchvision(
    torchvision: ModuleType, zoo: Path, photographs: Path, network: nn.Module
) -> None:
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder

    method = T.InterpolationMode.BICUBIC
    steps = T.Compose([T.Resize(36, method), T.CenterCrop(32), T.ToTensor(), T.Normalize(MEAN, STD)])
    with torch.inference_mode():
        hits = [int(network(steps(image)[None]).argmax()) == y for image, y in ImageFolder(photographs / "val")]
    assert 0 < sum(hits) < len(hits)
    code, rows = collect(zoo, photographs, "--split", "val")
    assert code == cli.DONE
    measured = rows[rows["score"] == "accuracy"]["value"].item()
    assert measured == pytest.approx(np.mean(hits), abs=1e-12)


def test_several_jobs_read_the_files_too(zoo: Path, photographs: Path, tmp_path: Path) -> None:
    images = load_dataset(f"imagefolder:{photographs}", split="val")
    assert isinstance(images.images, ImageFiles)
    write_images(images, tmp_path)
    again, spec = read_images(tmp_path), InputSpec(32, MEAN, STD, 36)
    assert again.fingerprint == images.fingerprint
    assert torch.equal(PreparedImages(again, spec)[3:7], PreparedImages(images, spec)[3:7])


def test_pixels_are_decoded_batch_by_batch_and_in_order(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_dataset(f"imagefolder:{photographs}", split="val")
    opened: list[str] = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file, **o: opened.append(str(file)) or real(file, **o))
    prepared = PreparedImages(images.tail(2), InputSpec(32, MEAN, STD))
    rows = torch.tensor([4, 0])
    some = prepared[rows]
    assert len(opened) == 2, "what is not asked for is not decoded"
    assert torch.equal(some, torch.stack([prepared[4:5][0], prepared[0:1][0]]))
    assert images.labels[:7].tolist() == [0, 1, 2, 3, 4, 0, 1]


def test_images_of_one_size_stay_in_their_files_where_they_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    for number in range(3):
        photograph(number, 20, 30).save(tmp_path / "a" / f"{number}.png")
    whole = load_dataset(f"imagefolder:{tmp_path}")
    monkeypatch.setattr("invariscope.zoo.datasets.imagefolder.IN_MEMORY", 3 * 3 * 20 * 30 - 1)
    files = load_dataset(f"imagefolder:{tmp_path}")
    assert isinstance(whole.images, Tensor)
    assert isinstance(files.images, ImageFiles)
    assert files.background == whole.background
    spec = InputSpec(16, MEAN, STD)
    assert torch.allclose(PreparedImages(files, spec)[:], PreparedImages(whole, spec)[:], atol=1e-6)


def test_a_changed_file_is_another_data_set(photographs: Path) -> None:
    before = load_dataset(f"imagefolder:{photographs}", split="val").fingerprint
    photograph(99, *SIZES[0]).save(photographs / "val" / "c" / "3.png")
    assert load_dataset(f"imagefolder:{photographs}", split="val").fingerprint != before


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "valid", "docs"), ("val",)])
def test_splits_are_never_taken_for_classes(names: tuple[str, ...], tmp_path: Path, zoo: Path, capsys: Any) -> None:
    for name in names:
        write(tmp_path / "data" / name / "a", ["0.png", "1.png"])
    code, rows = collect(zoo, tmp_path / "data")
    said = capsys.readouterr().err
    assert (code, rows) == (cli.BAD_INPUT, None)
    assert "and no test: give --split " in said
    assert len(said.strip().splitlines()) == 1


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        write(tmp_path / name, ["0.png"])
    assert load_dataset(f"imagefolder:{tmp_path}").classes == ("bus", "train")


def test_what_lies_beside_the_images_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a", ["0.PNG", "1.JPeG"])
    write(tmp_path / "elsewhere", ["2.png"])
    write(tmp_path / "data" / "a" / ".ipynb_checkpoints", ["0-checkpoint.png"])
    write(tmp_path / "data" / "__MACOSX" / "a", ["3.png"])
    write(tmp_path / "data" / ".git", ["4.png"])
    (tmp_path / "data" / "a" / "._0.png").write_bytes(b"\0" * 100)
    (tmp_path / "data" / "a" / "notes.txt").write_text("none")
    (tmp_path / "data" / "a" / "up").symlink_to(tmp_path / "data" / "a")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "link.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    data = load_dataset(f"imagefolder:{tmp_path / 'data'}")
    assert data.classes == ("a", "b")
    assert sorted(file.name for file in data.images.files) == ["0.PNG", "1.JPeG", "2.png", "link.png"]


def test_an_images_orientation_is_applied(tmp_path: Path) -> None:
    upright = photograph(3, 24, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    (tmp_path / "a").mkdir()
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a" / "0.png", exif=exif)
    upright.save(tmp_path / "a" / "1.png")
    data = load_dataset(f"imagefolder:{tmp_path}")
    assert data.images.shape == (2, 3, 24, 40)
    assert torch.equal(data.images[0], data.images[1])


def test_images_without_labels_have_a_consistency_and_no_accuracy(
    zoo: Path, photographs: Path, tmp_path: Path, capsys: Any
) -> None:
    """A flat `test` beside `val/CLASS`: the consistency is that of the same images with labels."""
    files = sorted((photographs / "val").rglob("*.png"))
    (photographs / "test").mkdir()
    for number, file in enumerate(files):
        (photographs / "test" / f"{number:02}.png").symlink_to(file)
    code, rows = collect(zoo, photographs)
    assert code == cli.DONE
    said = capsys.readouterr().err
    assert "no labels: accuracy and fidelity are missing" in said
    values = rows.set_index("score")["value"]
    assert np.isnan(values["accuracy"])
    assert not {"fidelity", "fidelity_product", "worst_case_accuracy"} & set(values.index)
    code, rows = collect(zoo, photographs, "--split", "val")
    labelled = rows[rows["data"] == "data/val"].set_index("score")["value"]
    assert 0 < labelled["accuracy"] < 1
    # The images stand in another order, so that each has other shifts: it is the same up to chance.
    assert values["consistency"] == pytest.approx(labelled["consistency"], abs=0.25)
    code, _ = collect(zoo, photographs, "--collect", "robustness")
    assert code == cli.BAD_INPUT
    assert "test has no labels, which `robustness` needs: take data with labels, or collect" in capsys.readouterr().err


def test_no_labels_in_python(network: nn.Module) -> None:
    images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 4 - 2
    plan = ShiftPlan.sampled(12, 3, n_shifts=3)
    some = torch.arange(12) % 5
    bare, full = (measure_invariance(network, images, labels, plan).set_index("score") for labels in (None, some))
    assert set(full.index) - set(bare.index) == {"accuracy", "fidelity", "fidelity_product", "worst_case_accuracy"}
    assert bare["value"].equals(full.loc[bare.index, "value"])
    with pytest.raises(DataError, match="accuracy needs labels"):
        measure_accuracy(network, images, None)
    with pytest.raises(DataError, match="or labels=None where there are none"):
        measure_invariance(network, images, torch.tensor([0, -1] * 6), plan)


def test_refusals(tmp_path: Path) -> None:
    write(tmp_path / "mixed" / "a", ["0.png"])
    write(tmp_path / "mixed", ["loose.png"])
    with pytest.raises(DataError, match=r"beside its class folders \(loose\.png\): put them into a folder"):
        load_dataset(f"imagefolder:{tmp_path / 'mixed'}")
    write(tmp_path / "cut" / "a", ["0.png", "1.png"])
    whole = (tmp_path / "cut" / "a" / "1.png").read_bytes()
    (tmp_path / "cut" / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="image 1 is damaged or cut off: replace it"):
        PreparedImages(load_dataset(f"imagefolder:{tmp_path / 'cut'}"), InputSpec(32, MEAN, STD))[:]
