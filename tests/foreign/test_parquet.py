"""Parquet files as other libraries write them: shards, columns, lists of numbers, paths, labels, masks with void."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from invariscope.base.errors import DataError
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.source import DataSource

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
LABELS = [2, 0, 1, 1, 0, 2]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


BYTES = [encoded(image) for image in PIXELS]
IMAGES = pa.array([{"bytes": one, "path": None} for one in BYTES], STRUCT)


def write(file: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    table = pa.table({name: pa.array(value) if isinstance(value, list) else value for name, value in columns.items()})
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file)
    return file


def read(spec: object, **options: Any) -> tuple[np.ndarray, list[int]]:
    data = load_dataset(f"parquet:{spec}", **options)
    return data.images.permute(0, 2, 3, 1).numpy(), data.labels.tolist()


LABEL_TYPES = {
    "not null": pa.field("label", pa.int64(), nullable=False),
    "dictionary": pa.field("label", pa.dictionary(pa.int32(), pa.int64())),
    "narrow": pa.field("label", pa.int16()),
}


@pytest.mark.parametrize("second", LABEL_TYPES)
@pytest.mark.parametrize("images", ["struct", "large", "not null", "dictionary"])
def test_a_second_shard_of_another_encoding_is_read(second: str, images: str, tmp_path: Path) -> None:
    halves = (IMAGES[:3], IMAGES[3:])
    write(tmp_path / "test-00000-of-00002.parquet", {"image": halves[0], "label": pa.array(LABELS[:3], pa.int64())})
    types = {
        "struct": STRUCT,
        "large": pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())]),
        "not null": pa.struct([pa.field("bytes", pa.binary(), nullable=False), ("path", pa.string())]),
        "dictionary": pa.struct([("bytes", pa.binary()), ("path", pa.dictionary(pa.int32(), pa.string()))]),
    }
    rows = [{"bytes": one, "path": None} for one in BYTES[3:]]
    label = LABEL_TYPES[second]
    values = pa.array(LABELS[3:], pa.int64())
    values = values.dictionary_encode() if second == "dictionary" else values.cast(label.type)
    schema = pa.schema([pa.field("image", types[images]), label])
    pq.write_table(
        pa.Table.from_arrays([pa.array(rows, types[images]), values], schema=schema),
        tmp_path / "test-00001-of-00002.parquet",
    )
    pixels, labels = read(tmp_path)
    assert np.array_equal(pixels, PIXELS)
    assert labels == LABELS


def test_one_shard_stands_for_all_or_is_refused(tmp_path: Path) -> None:
    for part in range(3):
        rows = slice(2 * part, 2 * part + 2)
        write(tmp_path / f"test-0000{part}-of-00003.parquet", {"img": IMAGES[rows], "label": LABELS[rows]})
    spec = tmp_path / "test-00001-of-00003.parquet"
    assert read(spec)[1] == LABELS
    assert load_dataset(f"parquet:{spec}").name == f"{tmp_path.name}/test"
    signatures = DataSource(f"parquet:{spec}").signatures()
    assert len(signatures) == 3
    (tmp_path / "test-00002-of-00003.parquet").unlink()
    for place in (spec, tmp_path):
        with pytest.raises(
            DataError, match=r"is one of 3 files, and test-00002-of-00003\.parquet is not there: put all"
        ):
            read(place, limit=2)


@pytest.mark.parametrize("nested", ["lists", "fixed lists", "grey lists", "lists of two channels"])
def test_lists_of_numbers_are_images(nested: str, tmp_path: Path) -> None:
    shown = {"grey lists": PIXELS[..., 0], "lists of two channels": PIXELS[..., :2]}.get(nested, PIXELS)
    type_: pa.DataType = pa.uint8()
    for length in reversed(shown.shape[1:]):
        type_ = pa.list_(type_, length) if nested == "fixed lists" else pa.list_(type_)
    file = write(tmp_path / "test.parquet", {"pixel_values": pa.array(shown.tolist(), type_), "label": LABELS})
    pixels, labels = read(file)
    assert np.array_equal(pixels, shown if shown.ndim == 4 else shown[..., None])
    assert labels == LABELS


def test_paths_below_the_files_folder_are_images_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for number, content in enumerate(BYTES):
        (folder / "images" / f"{number}.png").write_bytes(content)
    paths = [f"images/{number}.png" for number in range(6)]
    structs = pa.array([{"bytes": None, "path": path} for path in paths], STRUCT)
    assert np.array_equal(read(write(folder / "a.parquet", {"image": structs, "label": LABELS}))[0], PIXELS)
    features = {"picture": {"_type": "Image"}}
    assert np.array_equal(read(write(folder / "b.parquet", {"picture": paths, "label": LABELS}, features))[0], PIXELS)
    (tmp_path / "secret.png").write_bytes(BYTES[0])
    for path in ("../secret.png", str(tmp_path / "secret.png"), "images/9.png"):
        lone = pa.array([{"bytes": None, "path": path}], STRUCT)
        with pytest.raises(DataError, match="is no file below"):
            read(write(folder / "c.parquet", {"image": lone, "label": [0]}))


def test_the_labels_are_found_by_their_feature_or_asked_for(tmp_path: Path) -> None:
    columns = {"image": IMAGES, "id": list(range(6)), "breed": LABELS, "kind": [1, 0, 1, 1, 0, 0]}
    names = {"_type": "ClassLabel", "names": ["x", "y", "z"]}
    one = write(tmp_path / "one.parquet", columns, {"breed": names})
    assert read(one)[1] == LABELS
    assert load_dataset(f"parquet:{one}").classes == ("x", "y", "z")
    two = write(tmp_path / "two.parquet", columns, {"breed": names, "kind": {**names, "names": ["p", "q"]}})
    with pytest.raises(DataError, match=r"labels \(breed, kind\): choose with \?label_column=breed"):
        read(two)
    data = load_dataset(f"parquet:{two}?label_column=kind")
    assert (data.labels.tolist(), data.classes) == ([1, 0, 1, 1, 0, 0], ("p", "q"))
    assert len(DataSource(f"parquet:{two}?label_column=kind").signatures()) == 1
    none = load_dataset(f"parquet:{two}?label_column=none")
    assert (none.labelled, none.classes, set(none.labels.tolist())) == (False, (), {-1})


def test_labels_that_are_all_hidden_are_none(tmp_path: Path) -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["x", "y"]}}
    hidden = load_dataset(f"parquet:{write(tmp_path / 'a.parquet', {'image': IMAGES, 'label': [-1] * 6}, features)}")
    assert not hidden.labelled


def test_masks_with_void_and_class_names_by_what_stands_behind_the_path(tmp_path: Path) -> None:
    masks = np.random.default_rng(1).integers(0, 4, (6, 5, 7)).astype(np.uint8)
    masks[0, 0, 0] = 255
    held = pa.array([{"bytes": encoded(mask), "path": None} for mask in masks], STRUCT)
    file = write(tmp_path / "a.parquet", {"image": IMAGES, "annotation": held})
    plain = load_dataset(f"parquet:{file}")
    assert np.array_equal(plain.masks.numpy(), masks)
    assert plain.mask_classes == ("0", "1", "2", "3")
    named = load_dataset(f"parquet:{file}?classes=sky,road,car,void")
    expected = np.where(masks == 3, 255, masks)
    assert np.array_equal(named.masks.numpy(), expected)
    assert named.mask_classes == ("sky", "road", "car")
    numbered = load_dataset(f"parquet:{file}?void=3")
    assert np.array_equal(numbered.masks.numpy(), expected)
    assert numbered.mask_classes == ("0", "1", "2")
    first = load_dataset(f"parquet:{file}?void=0&classes=none,road,car,sky")
    assert np.array_equal(first.masks.numpy(), np.where(masks == 0, 255, masks))
    assert first.mask_classes == ("none", "road", "car", "sky")
    other = write(tmp_path / "b.parquet", {"left": IMAGES, "right": held})
    chosen = load_dataset(f"parquet:{other}?image_column=left&mask_column=right")
    assert np.array_equal(chosen.masks.numpy(), masks)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("label_colum=a", "unknown key 'label_colum': did you mean 'label_column'"),
        ("label_column=labl", "did you mean 'label'"),
        ("label_column=", "give it a value"),
        ("label_column", "write what follows the"),
        ("image_column=imge", "did you mean 'image'"),
        ("mask_column=none&void=x&label_column=label", None),
    ],
)
def test_what_stands_behind_the_path_is_checked(query: str, message: str | None, tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", {"image": IMAGES, "label": LABELS})
    if message is None:
        assert read(f"{file}?{query}")[1] == LABELS
        return
    with pytest.raises(DataError) as caught:
        read(f"{file}?{query}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
