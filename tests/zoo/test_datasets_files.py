"""Data sets read from files: written here pixel by pixel, damaged in every way, and the real ones where they are."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from invariscope.base.errors import DataError
from invariscope.zoo.datasets import load_dataset

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(array: np.ndarray, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()


def pixels(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def write_parquet(file: Path, columns: dict, features: dict | None = None, **options) -> Path:
    arrays = {}
    for name, values in columns.items():
        is_image = isinstance(values, list) and isinstance(next((v for v in values if v is not None), None), bytes)
        structs = [{"bytes": value, "path": None} for value in values] if is_image else values
        arrays[name] = pa.array(structs, IMAGE) if is_image else pa.array(values)
    table = pa.table(arrays)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, **options)
    return file


def refused(message: str, spec: str, **options) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(spec, **options)
    assert "\n" not in str(caught.value)


def test_parquet_with_labels_and_class_names(tmp_path):
    raw = pixels(6, 5, 7, 3)
    columns = {"img": [encoded(image) for image in raw], "label": [2, 0, 1, 0, 2, 1]}
    features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["x", "y", "z"]}}
    file = write_parquet(tmp_path / "mine" / "test.parquet", columns, features, row_group_size=2)
    data = load_dataset(f"parquet:{file}")
    np.testing.assert_array_equal(data.images.permute(0, 2, 3, 1).numpy(), raw)
    assert data.labels.tolist() == [2, 0, 1, 0, 2, 1]
    assert (data.name, data.classes, data.masks) == ("mine/test", ("x", "y", "z"), None)
    by_folder = load_dataset(f"parquet:{file.parent}", limit=3)
    assert by_folder.fingerprint == data.head(3).fingerprint
    assert by_folder.name == "mine/test"


@pytest.mark.parametrize(
    "layout", ["{split}.parquet", "data/{split}-0000{part}-of-00002.parquet", "{split}/{part}.parquet"]
)
def test_parquet_folders(tmp_path, layout):
    raw = pixels(4, 3, 3)
    n_parts = 2 if "{part}" in layout else 1
    for split in ("train", "test"):
        for part in range(n_parts):
            rows = slice(part * 2, part * 2 + 2) if n_parts == 2 else slice(None)
            images = [encoded(image if split == "test" else 255 - image) for image in raw[rows]]
            file = tmp_path / layout.format(split=split, part=part)
            write_parquet(file, {"image": images, "label": list(range(len(images)))})
    test, train = (load_dataset(f"parquet:{tmp_path}", split=split) for split in ("test", "train"))
    np.testing.assert_array_equal(test.images[:, 0].numpy(), raw)
    np.testing.assert_array_equal(train.images[:, 0].numpy(), 255 - raw)
    assert len(load_dataset(f"parquet:{tmp_path}", limit=3)) == 3
    refused("has no val.parquet", f"parquet:{tmp_path}", split="val")


def test_parquet_reads_only_the_row_groups_it_needs(tmp_path, monkeypatch):
    columns = {"image": [encoded(image) for image in pixels(8, 3, 3)], "label": [0] * 8}
    file = write_parquet(tmp_path / "test.parquet", columns, row_group_size=2, compression="none")
    content = bytearray(file.read_bytes())
    last = pq.ParquetFile(file).metadata.row_group(3).column(0)
    content[last.data_page_offset : last.data_page_offset + 20] = b"\xff" * 20
    file.write_bytes(content)
    assert len(load_dataset(f"parquet:{file}", limit=4)) == 4
    refused("cannot be read as parquet", f"parquet:{file}")


def test_parquet_limit_is_exact_past_one_batch_of_rows(tmp_path):
    columns = {"image": [encoded(np.zeros((1, 1), np.uint8))] * 1100, "label": list(range(1100))}
    file = write_parquet(tmp_path / "test.parquet", columns)
    assert load_dataset(f"parquet:{file}", limit=1050).labels.tolist() == list(range(1050))


def test_large_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    file = write_parquet(tmp_path / "test.parquet", {"image": [GOOD], "label": [0]})
    monkeypatch.setattr("invariscope.zoo.datasets.decoding.MAX_PIXELS", 63)
    refused("image 0 has 8 x 8 pixels, more than 63", f"parquet:{file}")
    monkeypatch.setattr("invariscope.zoo.datasets.decoding.MAX_PIXELS", 80)
    refused("would grow to 9 x 9", f"parquet:{file}", size=9)


def test_parquet_with_masks(tmp_path):
    raw, classes = pixels(3, 4, 6, 3), np.array([[0, 2, 2, 0, 1, 1]] * 4, dtype=np.uint8)
    masks = [np.roll(classes, shift, axis=1) for shift in range(3)]
    palette = Image.fromarray(masks[2]).convert("P")
    palette.putdata(masks[2].ravel().tolist())
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    columns = {
        "image": [encoded(image) for image in raw],
        "mask": [encoded(masks[0]), encoded(masks[1].astype(np.int32), "TIFF"), buffer.getvalue()],
    }
    file = write_parquet(tmp_path / "test.parquet", columns, {"classes": ["sky", "road", "void"]})
    data = load_dataset(f"parquet:{file}")
    expected = np.where(np.stack(masks) == 2, 255, np.stack(masks))
    np.testing.assert_array_equal(data.masks.numpy(), expected)
    assert (data.mask_classes, data.classes, data.labels.tolist()) == (("sky", "road"), (), [-1, -1, -1])
    unnamed = load_dataset(f"parquet:{write_parquet(tmp_path / 'other.parquet', columns)}")
    np.testing.assert_array_equal(unnamed.masks.numpy(), np.stack(masks))
    assert unnamed.mask_classes == ("0", "1", "2")
    # Twice the size: every mask pixel becomes four of the same class, and the middle square is kept.
    large = load_dataset(f"parquet:{file}", size=8)
    doubled = expected.repeat(2, axis=1).repeat(2, axis=2)[:, :, 2:10]
    np.testing.assert_array_equal(large.masks.numpy(), doubled)
    assert large.images.shape == (3, 3, 8, 8)


def test_parquet_with_image_mask_and_label(tmp_path):
    columns = {
        "image": [encoded(image) for image in pixels(2, 4, 4)],
        "segmentation": [encoded(np.zeros((4, 4), np.uint8))] * 2,
        "label": [1, 0],
    }
    data = load_dataset(f"parquet:{write_parquet(tmp_path / 'test.parquet', columns)}")
    assert (data.labels.tolist(), data.classes, data.mask_classes) == ([1, 0], ("0", "1"), ("0",))


def test_images_of_all_modes_become_grey_or_rgb(tmp_path):
    grey = pixels(1, 4, 4)[0]
    colour = pixels(1, 4, 4, 3)[0]
    with_alpha = np.dstack([colour, np.full((4, 4), 255, np.uint8)])
    columns = {"image": [encoded(grey), encoded(colour), encoded(with_alpha)], "label": [0, 0, 0]}
    data = load_dataset(f"parquet:{write_parquet(tmp_path / 'test.parquet', columns)}")
    expected = np.stack([np.dstack([grey] * 3), colour, colour])
    np.testing.assert_array_equal(data.images.permute(0, 2, 3, 1).numpy(), expected)
    bilevel = encoded(np.array([[True, False], [False, True]]))
    black_white = write_parquet(tmp_path / "bw.parquet", {"image": [bilevel], "label": [0]})
    assert load_dataset(f"parquet:{black_white}").images.tolist() == [[[[255, 0], [0, 255]]]]


def test_images_of_different_sizes_need_a_size(tmp_path):
    columns = {"image": [encoded(pixels(1, 6, 9, 3)[0]), encoded(pixels(1, 12, 6, 3)[0])], "label": [0, 1]}
    file = write_parquet(tmp_path / "test.parquet", columns)
    refused("image 0 has 6 x 9 pixels and image 1 12 x 6: give size=", f"parquet:{file}")
    data = load_dataset(f"parquet:{file}", size=6)
    first = np.asarray(Image.open(io.BytesIO(columns["image"][0])))
    np.testing.assert_array_equal(data.images[0].permute(1, 2, 0).numpy(), first[:, 1:7])
    assert load_dataset(f"parquet:{file}", size=3).images.shape == (2, 3, 3, 3)


def bomb() -> bytes:
    """A PNG of 50,000 x 50,000 pixels in its header and nothing behind."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    end = b"IEND"
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)),
            struct.pack(">I", 0) + end + struct.pack(">I", zlib.crc32(end)),
        ]
    )


GOOD = encoded(pixels(1, 8, 8, 3)[0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [GOOD, b"no image"], "label": [0, 0]}, "image 1 cannot be read as an image"),
        ({"image": [GOOD[:-40]], "label": [0]}, "image 0 is damaged or cut off"),
        ({"image": [GOOD, b""], "label": [0, 0]}, "image 1 cannot be read"),
        ({"image": [GOOD, None], "label": [0, 0]}, "row 1 has no image bytes"),
        ({"image": [bomb()], "label": [0]}, "more than 33554432"),
        ({"image": [encoded(pixels(1, 4, 4)[0].astype(np.float32), "TIFF")], "label": [0]}, "convert it to 8-bit"),
        ({"image": [GOOD, GOOD], "label": [-1, 0]}, "image 0 has the label -1"),
        ({"image": [GOOD, GOOD], "label": [0.0, float("nan")]}, "image 1 has the label nan"),
        ({"image": [GOOD, GOOD], "label": [0, None]}, "image 1 has the label nan"),
        ({"image": [GOOD], "label": [0.5]}, "image 0 has the label 0.5"),
        ({"image": [GOOD], "label": ["cat"]}, "give an integer column named label"),
        ({"image": [GOOD]}, "give an integer column named label, or a mask column"),
        ({"image": [GOOD], "first": [1], "second": [2]}, "give an integer column named label"),
        ({"label": [0]}, "give one image column"),
        ({"left": [GOOD], "right": [GOOD], "label": [0]}, "named image or img where there are several"),
        ({"image": [GOOD], "mask": [GOOD]}, "mask 0 is uint8 of shape"),
        ({"image": [GOOD], "mask": [encoded(np.full((8, 8), 300, np.int32), "TIFF")]}, "from 300 to 300"),
        ({"image": [GOOD], "mask": [encoded(np.zeros((4, 4), np.uint8))]}, "masks are"),
        ({"image": [GOOD], "mask": [encoded(pixels(1, 8, 8)[0])[:-40]]}, "mask 0 is damaged"),
    ],
)
def test_bad_parquet_is_refused_in_one_line(tmp_path, columns, message):
    refused(message, f"parquet:{write_parquet(tmp_path / 'test.parquet', columns)}")


def test_labels_outside_the_class_names_are_refused(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", {"image": [GOOD], "label": [2]}, {"label": {"names": ["x", "y"]}})
    refused("label 2, outside 0 to 1", f"parquet:{file}")


def test_unreadable_parquet_is_refused(tmp_path):
    file = write_parquet(tmp_path / "test.parquet", {"image": [GOOD] * 9, "label": [0] * 9})
    whole = file.read_bytes()
    for content in (b"", b"PAR1", whole[:-100], whole[100:]):
        file.write_bytes(content)
        refused("cannot be read as parquet", f"parquet:{file}")
    empty = pa.table({"image": pa.array([], IMAGE), "label": pa.array([], pa.int64())})
    pq.write_table(empty, file)
    refused("has no rows", f"parquet:{file}")
    table = pa.table({"image": pa.array([{"bytes": GOOD, "path": None}], IMAGE), "label": [0]})
    pq.write_table(table.replace_schema_metadata({"huggingface": "{"}), file)
    refused("huggingface entry", f"parquet:{file}")


def test_files_of_a_split_that_differ_in_columns_are_refused(tmp_path):
    write_parquet(tmp_path / "test-0.parquet", {"image": [GOOD], "label": [0]})
    write_parquet(tmp_path / "test-1.parquet", {"image": [GOOD], "other": [0]})
    refused(
        r"test-1.parquet has other column types than test-0.parquet \(label: null and int64\)", f"parquet:{tmp_path}"
    )
    write_parquet(tmp_path / "test-1.parquet", {"image": [GOOD], "label": [0.0]})
    refused("test-1.parquet has other column types than test-0.parquet", f"parquet:{tmp_path}")
    assert len(load_dataset(f"parquet:{tmp_path}", limit=1)) == 1


def test_imagefolder(tmp_path):
    raw = {"cat": pixels(3, 4, 4, 3, seed=1), "ant": pixels(2, 4, 4, 3, seed=2)}
    for name, images in raw.items():
        for number, image in enumerate(images):
            file = tmp_path / "pets" / "test" / name / f"{number}.PNG"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(image))
    (tmp_path / "pets" / "test" / "cat" / "notes.txt").write_text("not an image")
    data = load_dataset(f"imagefolder:{tmp_path / 'pets'}")
    assert (data.name, data.classes) == ("pets/test", ("ant", "cat"))
    assert data.labels.tolist() == [0, 1, 0, 1, 1]
    expected = [raw["ant"][0], raw["cat"][0], raw["ant"][1], raw["cat"][1], raw["cat"][2]]
    np.testing.assert_array_equal(data.images.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert load_dataset(f"imagefolder:{tmp_path / 'pets'}", limit=2).labels.tolist() == [0, 1]
    direct = load_dataset(f"imagefolder:{tmp_path / 'pets' / 'test'}")
    assert (direct.name, direct.fingerprint) == ("test", data.fingerprint)


def broken_folder(folder: Path) -> Path:
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "x.jpg").write_bytes(b"\xff\xd8 no jpeg")
    return folder


def test_bad_image_folders_are_refused(tmp_path):
    refused("x.jpg.*cannot be read as an image", f"imagefolder:{broken_folder(tmp_path / 'broken')}")
    (tmp_path / "flat").mkdir()
    refused("has no subfolders", f"imagefolder:{tmp_path / 'flat'}")
    (tmp_path / "flat" / "a").mkdir()
    refused("a has no images", f"imagefolder:{tmp_path / 'flat'}")


def test_real_cifar10_is_read_bit_for_bit(shared_data):
    data = load_dataset(f"parquet:{shared_data / 'cifar10' / 'test.parquet'}", limit=500)
    assert (data.name, tuple(data.images.shape)) == ("cifar10/test", (500, 3, 32, 32))
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    rows = next(pq.ParquetFile(shared_data / "cifar10" / "test.parquet").iter_batches(500)).to_pylist()
    for row in (0, 123, 499):
        expected = np.asarray(Image.open(io.BytesIO(rows[row]["img"]["bytes"])).convert("RGB"))
        np.testing.assert_array_equal(data.images[row].permute(1, 2, 0).numpy(), expected)
        assert int(data.labels[row]) == rows[row]["label"]


def test_real_mnist_is_grey(shared_data):
    data = load_dataset(f"parquet:{shared_data / 'mnist'}", split="train", limit=100)
    assert (data.name, tuple(data.images.shape), data.classes) == ("mnist/train", (100, 1, 28, 28), tuple("0123456789"))
    assert data.images[:, :, 14, 14].float().mean() > 64 > data.images[:, :, 0, 0].float().mean()


def test_real_camvid_has_masks_with_void(shared_data):
    data = load_dataset(f"parquet:{shared_data / 'camvid'}", split="val", limit=6, size=96)
    assert tuple(data.images.shape) == (6, 3, 96, 96)
    assert (len(data.mask_classes), data.mask_classes[0], data.classes) == (11, "sky", ())
    values = set(data.masks.unique().tolist())
    assert 255 in values
    assert values <= {*range(11), 255}
    assert torch.equal(data.labels, torch.full((6,), -1))


def png(colour: int, channels: int, depth: int) -> bytes:
    """A PNG of 4 x 4 pixels, written by hand: Pillow writes no colours of 16 bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = 4 * (b"\0" + bytes(range(4 * channels * depth // 8)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colours_of_16_bits_are_refused_and_not_cut(tmp_path):
    deep = [png(2, 3, 16), png(6, 4, 16), png(4, 2, 16), b"P6 2 2 65535\n" + bytes(24)]
    for number, content in enumerate(deep):
        file = write_parquet(tmp_path / f"{number}" / "test.parquet", {"image": [content], "label": [0]})
        refused(r"image 0 has colours of 16 bits, of which 8 would be read: convert it to 8-bit RGB", f"parquet:{file}")
    for number, (content, shape) in enumerate([(png(2, 3, 8), (3, 4, 4)), (png(0, 1, 16), (1, 4, 4))]):
        file = write_parquet(tmp_path / f"read{number}" / "test.parquet", {"image": [content], "label": [0]})
        assert load_dataset(f"parquet:{file}").images.shape[1:] == shape
