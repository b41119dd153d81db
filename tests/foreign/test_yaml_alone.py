"""One zoo of every kind of entry, and one data set of every kind, measured by the command from YAML alone.

The values are those of plain loops with torchvision's transforms, and of a confusion matrix over the data's classes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from invariscope import cli
from invariscope.analysis.tables.load import load
from invariscope.zoo.loading import build_model

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = {"size": 32, "mean": 0.5, "std": 0.25}
FIVE, NINE = "zoo:smallcnn?classes=5", "zoo:smallcnn?classes=9"
SIZES = ((50, 61), (40, 40), (77, 45), (41, 90))
Transform = Callable[[Image.Image], Tensor]


def photograph(seed: int, height: int, width: int) -> Image.Image:
    y, x = np.meshgrid(np.linspace(0, 3, height), np.linspace(0, 4, width), indexing="ij")
    waves = np.stack([np.sin(x * y + seed), np.cos(x + seed * y), np.sin(seed * x - y)], -1)
    noise = np.random.default_rng(seed).normal(0, 30, waves.shape)
    return Image.fromarray(np.clip(127 + 90 * waves + noise, 0, 255).astype(np.uint8))


PICTURES = [photograph(number, *SIZES[number % len(SIZES)]) for number in range(25)]


def transforms() -> dict[str, tuple[dict[str, Any], Transform]]:
    """What ``input`` says, and torchvision's own steps to the same pixels."""
    from torchvision import transforms as T

    bicubic, nearest = T.InterpolationMode.BICUBIC, T.InterpolationMode.NEAREST
    normal, plain = T.Normalize(MEAN, STD), T.Normalize((0.5,) * 3, (0.25,) * 3)
    on_tensors = [T.PILToTensor(), T.Resize(40, antialias=False), T.CenterCrop(32), T.ConvertImageDtype(torch.float)]
    imagenet = {"size": 32, "mean": list(MEAN), "std": list(STD)}
    raw = {"size": 32, "mean": [104, 117, 123], "std": [50, 55, 60], "range": 255, "order": "bgr", "resize": 36}
    steps = T.Compose([T.Resize(36), T.CenterCrop(32), T.ToTensor()])
    mean, std = (torch.tensor(raw[name], dtype=torch.float)[:, None, None] for name in ("mean", "std"))
    compose = T.Compose
    return {
        "bicubic": (
            {**imagenet, "resize": 36, "interpolation": "bicubic", "crop": "centre"},
            compose([T.Resize(36, bicubic), T.CenterCrop(32), T.ToTensor(), normal]),
        ),
        "exact": (
            {**PLAIN, "resize": [40, 36], "interpolation": "nearest"},
            compose([T.Resize((40, 36), nearest), T.CenterCrop(32), T.ToTensor(), plain]),
        ),
        "not antialiased": ({**PLAIN, "resize": 40, "antialias": False}, compose([*on_tensors, plain])),
        "tall": (
            {**PLAIN, "size": [40, 32], "resize": 44},
            compose([T.Resize(44), T.CenterCrop((40, 32)), T.ToTensor(), plain]),
        ),
        "blue first": (raw, lambda image: (steps(image).flip(0) * 255 - mean) / std),
    }


def zeros(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(value) for name, value in state.items()}


def layouts(state: dict[str, Tensor], folder: Path) -> dict[str, dict[str, Any]]:
    """Files of the same weights as scripts save them, and what an entry says of each."""
    pickled: dict[str, tuple[Any, dict[str, Any]]] = {
        "ema.pth": ({"model": zeros(state), "model_ema": state, "epoch": 3}, {"key": "model_ema"}),
        "parallel.ckpt": ({f"module._orig_mod.{k}": v for k, v in state.items()}, {"prefix": "module."}),
        "renamed.bin": ([{k.replace("conv", "c"): v for k, v in state.items()}], {"rename": {"c.": "conv."}}),
        "counted.model": ({**state, "a.total_ops": torch.zeros(1), "by": Path("x")}, {"ignore": ["total_ops", "by"]}),
    }
    for name, (content, _) in pickled.items():
        torch.save(content, folder / name)
    names = list(state)
    shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, part in shards.items():
        save_file({name: state[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return {**{name: more for name, (_, more) in pickled.items()}, "model.safetensors.index.json": {}}


def balanced(network: nn.Module, images: Tensor) -> nn.Module:
    """The network with a bias at which it says every class somewhere."""
    with torch.no_grad():
        network.linear.weight.mul_(20)
        network.linear.bias -= network(images).mean(0)
    return network


def collect(folder: Path, entries: list[dict[str, Any]], data: str, *more: str) -> Any:
    """The tables of a zoo of these entries; nothing but its YAML says how they are read."""
    (folder / "zoo.yaml").write_text(yaml.safe_dump({"checkpoints": entries}))
    out = folder / f"tables{len(list(folder.glob('tables*')))}"
    command = ["collect", str(folder), "--data", data, "--out", str(out), "--shift", "", "--allow-code", *more]
    assert cli.main(command) == cli.DONE
    return load(out, keep_older=True)  # one network with several inputs counts once in an analysis


def test_every_kind_of_entry(torchvision: ModuleType, tmp_path: Path) -> None:
    for number, picture in enumerate(PICTURES):
        place = tmp_path / "data" / "val" / "abcde"[number % 5]
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{number // 5}.png")
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    inputs = transforms()
    pictures = {name: torch.stack([steps(picture) for picture in PICTURES]) for name, (_, steps) in inputs.items()}
    torch.manual_seed(0)
    five, nine = (balanced(build_model(model).eval(), pictures["bicubic"]) for model in (FIVE, NINE))
    save_file(five.state_dict(), zoo / "five.safetensors")
    save_file(nine.state_dict(), zoo / "nine.safetensors")
    entries, expected = [], {}
    labels = torch.arange(25) % 5

    def add(name: str, input: dict[str, Any], logits: Tensor, **more: Any) -> None:
        entries.append({"name": name, "input": input, **{"model": FIVE, "weights": "five.safetensors", **more}})
        expected[name] = (logits.argmax(1) == labels).double().mean().item()

    bicubic = inputs["bicubic"][0]
    with torch.inference_mode():
        for name, (settings, _) in inputs.items():
            add(name, settings, five(pictures[name]))
        for file, more in layouts(five.state_dict(), zoo).items():
            add(file, bicubic, five(pictures["bicubic"]), weights=file, **more)
        for name, classes, outputs in (
            ("offset", {"offset": 4}, [4, 5, 6, 7, 8]),
            ("subset", [7, 0, 3, 5, 1], [7, 0, 3, 5, 1]),
        ):
            chosen = nine(pictures["bicubic"])[:, outputs]
            add(name, bicubic, chosen, model=NINE, weights="nine.safetensors", classes=classes)
    rows = collect(
        zoo, entries, f"imagefolder:{tmp_path / 'data'}", "--split", "val", "--collect", "invariance"
    ).invariance
    assert rows.set_index("checkpoint")["value"].to_dict() == pytest.approx(expected, abs=1e-12)
    assert len(set(expected.values())) >= 4, "a wrong input is another accuracy"


def encoded(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


PIXELS = np.stack([np.asarray(photograph(number, 32, 32)) for number in range(20)])
BYTES = [encoded(image) for image in PIXELS]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LARGE = pa.struct(
    [pa.field("bytes", pa.large_binary(), nullable=False), ("path", pa.dictionary(pa.int32(), pa.string()))]
)
LABELS = [number * 7 % 5 for number in range(20)]


def shards(folder: Path) -> str:
    """Of two encodings, of which one names the split."""
    for number, (struct, label) in enumerate(((STRUCT, pa.int64()), (LARGE, pa.int16()))):
        rows = slice(10 * number, 10 * number + 10)
        images = pa.array([{"bytes": one, "path": None} for one in BYTES[rows]], struct)
        schema = pa.schema([pa.field("img", struct), pa.field("label", label, nullable=not number)])
        table = pa.Table.from_arrays([images, pa.array(LABELS[rows], label)], schema=schema)
        pq.write_table(table, folder / f"test-0000{number}-of-00002.parquet")
    return f"{folder}/test-00000-of-00002.parquet"


def lists(folder: Path) -> str:
    type_ = pa.list_(pa.list_(pa.list_(pa.uint8())))
    pq.write_table(pa.table({"pixels": pa.array(PIXELS.tolist(), type_), "label": LABELS}), folder / "a.parquet")
    return f"{folder}/a.parquet"


def paths(folder: Path) -> str:
    (folder / "images").mkdir()
    for number, content in enumerate(BYTES):
        (folder / "images" / f"{number}.png").write_bytes(content)
    images = pa.array([{"bytes": None, "path": f"images/{number}.png"} for number in range(20)], STRUCT)
    pq.write_table(pa.table({"image": images, "label": LABELS}), folder / "b.parquet")
    return f"{folder}/b.parquet"


def two_labels(folder: Path) -> str:
    images = pa.array([{"bytes": one, "path": None} for one in BYTES], STRUCT)
    table = pa.table({"image": images, "coarse": [0] * 20, "fine": LABELS, "id": list(range(20))})
    pq.write_table(table, folder / "c.parquet")
    return f"{folder}/c.parquet?label_column=fine"


@pytest.mark.parametrize("kind", [shards, lists, paths, two_labels])
def test_every_kind_of_parquet(kind: Callable[[Path], str], tmp_path: Path, network: nn.Module) -> None:
    images = (torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    torch.manual_seed(1)
    model = balanced(build_model(FIVE).eval(), images)
    save_file(model.state_dict(), tmp_path / "five.safetensors")
    with torch.inference_mode():
        hits = model(images).argmax(1) == torch.tensor(LABELS)
    (tmp_path / "data").mkdir()
    entry = {"model": FIVE, "weights": "five.safetensors", "input": PLAIN}
    rows = collect(tmp_path, [entry], f"parquet:{kind(tmp_path / 'data')}", "--collect", "invariance").invariance
    assert rows["value"].tolist() == [pytest.approx(hits.double().mean().item(), abs=1e-12)]
    assert 0 < hits.sum() < 20


PAINTER = """
from torch import nn

def Painter(outputs=7):
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, outputs, 1))
"""


def test_miou_is_over_the_classes_of_the_data_and_leaves_void_out(tmp_path: Path) -> None:
    """Seven outputs on five classes: two of the outputs are no class of the data, and what is said of them is wrong."""
    masks = np.random.default_rng(1).integers(0, 6, (20, 32, 32)).astype(np.uint8)
    images = pa.array([{"bytes": one, "path": None} for one in BYTES], STRUCT)
    held = pa.array([{"bytes": encoded(mask), "path": None} for mask in masks], STRUCT)
    pq.write_table(pa.table({"image": images, "mask": held}), tmp_path / "a.parquet")
    (tmp_path / "nets.py").write_text(PAINTER)
    torch.manual_seed(2)
    model = build_model("python:nets.py:Painter", tmp_path).eval()
    shown = (torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        model[2].bias -= model(shown).mean((0, 2, 3))
        said = model(shown).argmax(1).numpy()
    torch.save(model.state_dict(), tmp_path / "a.pth")
    entry = {"model": "python:nets.py:Painter", "weights": "a.pth", "input": PLAIN}
    data = f"parquet:{tmp_path / 'a.parquet'}?classes=sky,road,car,tree,sign,void"
    rows = collect(tmp_path, [entry], data, "--collect", "segmentation").segmentation.set_index("score")
    known = masks != 5
    confusion = np.zeros((5, 7), dtype=int)
    np.add.at(confusion, (masks[known], said[known]), 1)
    assert confusion[:, 5:].sum() > 0
    union = [confusion[c].sum() + confusion[:, c].sum() - confusion[c, c] for c in range(5)]
    assert rows.loc["miou", "value"] == pytest.approx(
        np.mean([confusion[c, c] / union[c] for c in range(5)]), abs=1e-12
    )
    assert rows.loc["pixel_accuracy", "value"] == pytest.approx((said == masks)[known].mean(), abs=1e-12)
    assert rows.loc["miou", "n_classes"] == 5
