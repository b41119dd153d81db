"""``input:`` gives the pixels that torchvision's and timm's own evaluation transforms give."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from invariscope import cli
from invariscope.analysis.tables.load import load
from invariscope.base.errors import DataError
from invariscope.collectors import corrupt
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.given import as_pixels
from invariscope.zoo.datasets.imageset import ImageSet
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.loading import build_model, default_input

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = ((90, 71), (71, 90), (64, 64), (300, 40))


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth and rough parts, so that every kernel gives other pixels."""
    random = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(0, 3, height), np.linspace(0, 4, width), indexing="ij")
    smooth = 127 + 90 * np.stack([np.sin(x * y), np.cos(x + y), np.sin(3 * x - y)], -1)
    return np.clip(smooth + random.normal(0, 25, smooth.shape), 0, 255).astype(np.uint8)


def prepared(pixels: np.ndarray, spec: InputSpec) -> torch.Tensor:
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    return PreparedImages(ImageSet("one", images, torch.zeros(1, dtype=torch.int64), ("a",)), spec)[:][0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("resize", "interpolation"), [(48, "bilinear"), (41, "bicubic"), ((45, 57), "bilinear"), ((40, 40), "nearest")]
)
def test_pixels_are_those_of_torchvision(
    torchvision: ModuleType, shape: tuple[int, int], resize: int | tuple[int, int], interpolation: str
) -> None:
    from torchvision import transforms as T

    pixels = photograph(*shape)
    method = T.InterpolationMode(interpolation)
    steps = [T.Resize(resize, method), T.CenterCrop((40, 35)), T.ToTensor(), T.Normalize(MEAN, STD)]
    expected = T.Compose(steps)(Image.fromarray(pixels))
    made = prepared(pixels, InputSpec((40, 35), MEAN, STD, resize, interpolation))
    assert torch.allclose(made, expected, atol=2e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_without_antialiasing_pixels_are_those_of_torchvision_on_tensors(
    torchvision: ModuleType, interpolation: str
) -> None:
    from torchvision import transforms as T

    pixels = photograph(90, 71)
    method = T.InterpolationMode(interpolation)
    steps = [T.Resize(44, method, antialias=False), T.CenterCrop(40), T.ConvertImageDtype(torch.float32)]
    expected = T.Compose([*steps, T.Normalize(MEAN, STD)])(torch.from_numpy(pixels).permute(2, 0, 1))
    made = prepared(pixels, InputSpec(40, MEAN, STD, 44, interpolation, antialias=False))
    assert torch.allclose(made, expected, atol=2e-6)
    smooth = prepared(pixels, InputSpec(40, MEAN, STD, 44, interpolation))
    assert interpolation == "nearest" or not torch.allclose(made, smooth, atol=0.1)


def test_blue_first_and_values_up_to_255() -> None:
    pixels = photograph(40, 40)
    spec = InputSpec(40, (104.0, 117.0, 123.0), (1.0, 2.0, 4.0), order="bgr", range=255)
    blue_first = torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1).float()
    expected = (blue_first - torch.tensor([104.0, 117, 123])[:, None, None]) / torch.tensor([1.0, 2, 4])[:, None, None]
    assert torch.allclose(prepared(pixels, spec), expected, atol=1e-4)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    plain = PreparedImages(
        ImageSet("one", images, torch.zeros(1, dtype=torch.int64), ("a",), background=(9, 8, 7)), spec
    )
    assert torch.allclose(plain.background, torch.tensor([7 - 104.0, (8 - 117) / 2, (9 - 123) / 4]))
    assert torch.allclose(plain.black, torch.tensor([-104.0, -117 / 2, -123 / 4]))


@pytest.mark.parametrize("model", ["timm:resnet18", "timm:convnext_tiny.in12k_ft_in1k_384", "timm:test_resnet"])
def test_what_timm_does_is_taken_over(timm: ModuleType, model: str) -> None:
    from timm.data import create_transform, resolve_data_config

    config = timm.models.get_pretrained_cfg(model.removeprefix("timm:")).to_dict()
    transform = create_transform(**resolve_data_config({}, pretrained_cfg=config))
    pixels = photograph(420, 333)
    made = prepared(pixels, default_input(model))
    assert torch.allclose(made, transform(Image.fromarray(pixels)), atol=5e-6)


def test_what_torchvision_does_is_taken_over(torchvision: ModuleType) -> None:
    from torchvision.models import get_model_weights

    pixels = photograph(420, 333)
    for name in ("resnet18", "efficientnet_b1", "inception_v3"):
        transform = get_model_weights(name).DEFAULT.transforms()
        made = prepared(pixels, default_input(f"torchvision:{name}"))
        assert torch.allclose(made, transform(Image.fromarray(pixels)), atol=5e-6), name


def test_masks_are_resized_as_the_images_are(torchvision: ModuleType) -> None:
    from torchvision import transforms as T

    mask = np.random.default_rng(0).integers(0, 5, (60, 83)).astype(np.uint8)
    images = torch.zeros(1, 3, 60, 83, dtype=torch.uint8)
    masks = torch.from_numpy(mask)[None]
    whole = ImageSet("one", images, torch.zeros(1, dtype=torch.int64), ("a",), masks, tuple("abcde"))
    made = PreparedImages(whole, InputSpec(40, MEAN, STD, 45, "bicubic")).masks(slice(None))
    steps = T.Compose([T.Resize(45, T.InterpolationMode.NEAREST), T.CenterCrop(40)])
    assert np.array_equal(made[0].numpy(), np.asarray(steps(Image.fromarray(mask))))


def test_the_window_of_a_crop_shift_at_the_centre_is_the_evaluations_view() -> None:
    """As long as the resized image has room for it."""
    pixels, spec = photograph(90, 71), InputSpec(40, MEAN, STD, 64)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    whole = ImageSet("one", images, torch.zeros(1, dtype=torch.int64), ("a",))
    larger = PreparedImages(whole, spec, 48)[:]
    assert torch.equal(larger[..., 4:44, 4:44], PreparedImages(whole, spec)[:])
    assert PreparedImages(whole, spec, 80)[:].shape == (1, 3, 80, 80)


def test_every_part_of_the_input_is_in_the_fingerprint() -> None:
    images = torch.zeros(1, 3, 60, 60, dtype=torch.uint8)
    whole = ImageSet("one", images, torch.zeros(1, dtype=torch.int64), ("a",))
    specs = [
        InputSpec(40, MEAN, STD),
        InputSpec(40, MEAN, STD, 50),
        InputSpec(40, MEAN, STD, (50, 50)),
        InputSpec(40, MEAN, STD, 50, "bicubic"),
        InputSpec(40, MEAN, STD, 50, antialias=False),
        InputSpec(40, MEAN, STD, order="bgr"),
        InputSpec(40, MEAN, STD, range=255),
    ]
    assert len({PreparedImages(whole, spec).fingerprint for spec in specs}) == len(specs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resize": 39}, "resize of at least that size"),
        ({"resize": (50, 39)}, "resize of at least that size"),
        ({"interpolation": "bicubic"}, "add resize"),
        ({"resize": 50, "interpolation": "cubic"}, "did you mean 'bicubic'"),
        ({"resize": 50, "interpolation": "lanczos", "antialias": False}, "leave antialias out"),
        ({"order": "gbr"}, "did you mean"),
        ({"range": 2}, "255 or 65535 for values up to that"),
    ],
)
def test_refusals_say_what_to_write(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        InputSpec(40, MEAN, STD, **arguments)


DEEP = np.random.default_rng(3).integers(0, 65536, (6, 40, 40)).astype(np.uint16)


@pytest.mark.parametrize("kind", ["folder", "files", "parquet", "lists"])
@pytest.mark.parametrize("resize", [None, 36])
def test_sixteen_bits_stay_sixteen(
    kind: str, resize: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grey PNGs of 16 bits, and lists of them, to the values of a plain reckoning; by the command to an accuracy."""
    files = []
    for number, image in enumerate(DEEP):
        files.append(tmp_path / "data" / "ab"[number % 2] / f"{number}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(files[-1])
    where = f"imagefolder:{tmp_path / 'data'}"
    if kind in ("parquet", "lists"):
        where = f"parquet:{tmp_path / 'data.parquet'}"
        column = [file.read_bytes() for file in files] if kind == "parquet" else DEEP.tolist()
        type_ = pa.binary() if kind == "parquet" else pa.list_(pa.list_(pa.uint16()))
        table = pa.table({"image": pa.array(column, type_), "label": [number % 2 for number in range(6)]})
        pq.write_table(table, tmp_path / "data.parquet")
    if kind == "files":
        monkeypatch.setattr("invariscope.zoo.datasets.imagefolder.IN_MEMORY", 0)
    size = 32 if resize else 40
    network = "zoo:smallcnn?width=2&in_channels=1&classes=2"
    model = build_model(network).eval()
    torch.save(model.state_dict(), tmp_path / "a.pth")
    given = {"size": size, "mean": 0.4, "std": 0.2, **({"resize": resize} if resize else {})}
    entry = {"model": network, "weights": "a.pth", "input": given}
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump({"checkpoints": [entry]}))
    shown = [Image.fromarray(image.astype(np.float32)) for image in DEEP]
    if resize:
        shown = [one.resize((36, 36), Image.Resampling.BILINEAR).crop((2, 2, 34, 34)) for one in shown]
    plain = torch.from_numpy(np.stack([np.asarray(one).round() for one in shown]))[:, None] / 65535
    expected = (plain - 0.4) / 0.2
    data = load_dataset(where)
    order = torch.arange(6)
    assert isinstance(data.images, torch.Tensor) == (kind != "files")
    assert data.background[0] > 255
    made = PreparedImages(data, InputSpec(size, (0.4,), (0.2,), resize))
    assert torch.allclose(made[:], expected[order], atol=1e-5)
    assert len(made[:].unique()) > 256
    command = ["collect", str(tmp_path), "--data", where, "--out", str(tmp_path / "t"), "--collect", "invariance"]
    assert cli.main([*command, "--shift", ""]) == cli.DONE
    with torch.inference_mode():
        hits = (model(expected).argmax(1) == torch.arange(6) % 2).float().mean().item()
    assert load(tmp_path / "t").invariance["value"].tolist() == [pytest.approx(hits)]


def test_sixteen_bits_are_no_eight_and_corruptions_say_so(tmp_path: Path) -> None:
    eight, sixteen = torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, 1, 4, 4, dtype=torch.int32)
    sets = [ImageSet("one", images, None) for images in (eight, sixteen)]
    assert sets[0].fingerprint != sets[1].fingerprint
    assert ImageSet.from_numpy(sets[1].to_numpy()).white == 65535
    with pytest.raises(DataError, match="from 0 to 65536, outside 0 to 65535"):
        ImageSet("one", sixteen + 65536 * (torch.arange(4) == 0).int(), None)
    for number, image in enumerate((DEEP[0], DEEP[0].astype(np.uint8))):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "a" / f"{number}.png")
    with pytest.raises(DataError, match="images of 8 and of 16 bits: convert them to one"):
        load_dataset(f"imagefolder:{tmp_path}")
    with pytest.raises(DataError, match="corruptions take uint8"):
        corrupt(DEEP[:, None].astype(np.int32), "fog", 1)
    assert as_pixels(DEEP).dtype == torch.int32
