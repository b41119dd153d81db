"""Any image data set in the Hugging Face parquet layout: an image struct with a label, a mask, or both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from invariscope.base.errors import DataError
from invariscope.zoo.datasets.decoding import decode_images, decode_masks
from invariscope.zoo.datasets.imageset import NO_LABEL, VOID, ImageSet, as_labels

IMAGE_NAMES = ("image", "img")
MASK_NAMES = ("mask", "segmentation", "annotation", "semantic", "label")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")

MAX_COLUMN = 2**31
"""Bytes of one column in one row group beyond which a file is refused before it is decompressed."""

MAX_REPEATED = 2**26
"""Bytes of images that a file may hold beyond its own size: repeated values are stored once, and cost memory each."""

_BATCH_ROWS = 1024


def load_parquet(path: str | None, *, split: str, limit: int | None, size: int | None) -> ImageSet:
    """Read a ``.parquet`` file, or the files of a split of a folder: ``SPLIT.parquet``, ``SPLIT-*.parquet``, the same
    in ``data/``, or ``SPLIT/*.parquet``.

    The image column is a struct ``{bytes, path}`` (or plain binary), a second one whose name says so is the mask, the
    integer column ``label`` (or similar) the label. Class names come from the ``huggingface`` entry of the schema's
    metadata, otherwise the classes are numbered. A mask class named ``void`` becomes 255. With ``limit`` only the
    row groups that are needed are read.

    Raises:
        DataError: for a missing or unreadable file, columns that cannot be told apart, or rows that cannot be used.
    """
    files, name = _find(path, split)
    schema = _schema(files[0])
    image, mask, label = _columns(schema, name)
    wanted = {column: schema.field(column).type for column in (image, mask, label) if column}
    table = _read(files, wanted, limit)
    if table.num_rows == 0:
        raise DataError(f"{name} has no rows: give a data set with at least one image")
    images = decode_images(_encoded(table[image], name), name, size)
    features = _features(schema, name)
    labels = torch.full((len(images),), NO_LABEL)
    classes: tuple[str, ...] = ()
    if label:
        labels = as_labels(table[label].to_numpy(), name)
        names = features.get(label, {}).get("names") if isinstance(features.get(label), dict) else None
        classes = _class_names(names, max(int(labels.max()), 0))
    if not mask:
        return ImageSet(name, images, labels, classes)
    masks = decode_masks(_encoded(table[mask], name), name, size)
    masks, mask_classes = _without_void(masks, features.get("classes"))
    return ImageSet(name, images, labels, classes, masks, mask_classes)


def _find(path: str | None, split: str) -> tuple[list[Path], str]:
    if not path:
        raise DataError("parquet needs a path: write parquet:PATH of a .parquet file or of a folder of them")
    place = Path(path).expanduser()
    if place.is_file():
        return [place], f"{place.resolve().parent.name}/{place.stem}"
    if not place.is_dir():
        raise DataError(f"there is no file or folder {place}: put a .parquet file there, or a folder of them")
    patterns = (f"{split}.parquet", f"{split}-*.parquet")
    for found in (
        [file for pattern in patterns for file in sorted(place.glob(pattern))],
        [file for pattern in patterns for file in sorted((place / "data").glob(pattern))],
        sorted((place / split).glob("*.parquet")),
    ):
        if found:
            return found, f"{place.resolve().name}/{split}"
    there = ", ".join(sorted(file.name for file in place.rglob("*.parquet"))[:5]) or "no parquet file"
    raise DataError(f"{place} has no {split}.parquet or {split}-*.parquet (it has {there}): name a split that it has")


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as parquet: replace it by a whole file") from error


def _read(files: Sequence[Path], wanted: dict[str, pa.DataType], limit: int | None) -> pa.Table:
    """The first ``limit`` rows of the wanted columns, which every file must hold in the same type."""
    batches: list[pa.RecordBatch] = []
    missing = float("inf") if limit is None else limit
    for file in files:
        try:
            room = file.stat().st_size + MAX_REPEATED
            # Values are read as indices into a dictionary, which repeated ones do not enlarge.
            with pq.ParquetFile(file, read_dictionary=_encoded_leaves(wanted)) as parquet:
                schema = parquet.schema.to_arrow_schema()
                if any(schema.field(column).type != type_ for column, type_ in wanted.items()):
                    raise DataError(f"{file} has other column types than {files[0].name}: write both files alike")
                _refuse_bomb(parquet, file)
                # pyarrow reads no nested dictionary over the end of a row group.
                groups = range(parquet.num_row_groups)
                size, columns = int(min(missing, _BATCH_ROWS)), list(wanted)
                for batch in (b for group in groups for b in parquet.iter_batches(size, [group], columns)):
                    batch = batch.slice(0, int(min(missing, batch.num_rows)))
                    room -= sum(_decoded_bytes(batch[column]) for column in batch.schema.names)
                    if room < 0:
                        raise DataError(
                            f"{file} repeats images to more than {MAX_REPEATED} bytes beyond its size: "
                            "leave the copies out"
                        )
                    batches.append(batch)
                    missing -= batches[-1].num_rows
                    if missing <= 0:
                        return pa.Table.from_batches(batches)
        except (pa.ArrowException, OSError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{file} cannot be read as parquet ({reason}): replace it by a whole file") from error
    return pa.Table.from_batches(batches) if batches else pa.table({})


def _encoded_leaves(wanted: dict[str, pa.DataType]) -> list[str]:
    """Paths of the columns of bytes in the file."""
    return [
        f"{column}.bytes" if pa.types.is_struct(type_) else column
        for column, type_ in wanted.items()
        if _is_encoded(type_)
    ]


def _decoded_bytes(column: pa.Array) -> int:
    """Bytes of the values of a column of images, each as often as it stands there; 0 for one of numbers."""
    values = column.field("bytes") if pa.types.is_struct(column.type) else column
    if not pa.types.is_dictionary(values.type):
        return 0
    lengths = pc.binary_length(values.dictionary).cast(pa.int64())
    return pc.sum(lengths.take(values.indices)).as_py() or 0


def _refuse_bomb(parquet: pq.ParquetFile, file: Path) -> None:
    for number in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(number)
        largest = max((group.column(i).total_uncompressed_size for i in range(group.num_columns)), default=0)
        if largest > MAX_COLUMN:
            raise DataError(
                f"{file}: row group {number} holds {largest} bytes in one column, more than {MAX_COLUMN}: "
                "write it in smaller row groups"
            )


def _columns(schema: pa.Schema, name: str) -> tuple[str, str | None, str | None]:
    """Names of the image, the mask and the label column; one of the last two may be missing."""
    described = ", ".join(f"{field.name} ({field.type})" for field in schema)
    encoded = [field.name for field in schema if _is_encoded(field.type)]
    masks = [column for column in encoded if any(part in column.lower() for part in MASK_NAMES)]
    images = [column for column in encoded if column not in masks]
    if len(images) > 1:
        images = [column for column in images if column.lower() in IMAGE_NAMES]
    if len(images) != 1 or len(masks) > 1:
        raise DataError(
            f"{name} has the columns {described}: give one image column (struct with bytes, named image or img where "
            "there are several) and at most one mask column"
        )
    numbers = [field.name for field in schema if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)]
    labels = [column for known in LABEL_NAMES for column in numbers if column.lower() == known]
    if not labels and len(numbers) == 1 and not masks:
        labels = numbers
    if not labels and not masks:
        raise DataError(f"{name} has the columns {described}: give an integer column named label, or a mask column")
    return images[0], masks[0] if masks else None, labels[0] if labels else None


def _is_encoded(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return any(type_.field(i).name == "bytes" for i in range(type_.num_fields))
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def _encoded(column: pa.ChunkedArray, name: str) -> list[bytes]:
    if pa.types.is_struct(column.type):
        column = pa.chunked_array([chunk.field("bytes") for chunk in column.chunks])
    values = column.to_pylist()
    for row, value in enumerate(values):
        if value is None:
            raise DataError(
                f"{name}: row {row} has no image bytes: write the images into the file, not only their paths"
            )
    return values


def _features(schema: pa.Schema, name: str) -> dict[str, Any]:
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return {}
    try:
        features = json.loads(raw)["info"]["features"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{name}: the huggingface entry of the schema is not as that library writes it") from error
    return features if isinstance(features, dict) else {}


def _class_names(names: Any, largest: int) -> tuple[str, ...]:
    if isinstance(names, list) and names:
        return tuple(str(name) for name in names)
    return tuple(str(number) for number in range(largest + 1))


def _without_void(masks: Tensor, names: Any) -> tuple[Tensor, tuple[str, ...]]:
    """Masks with void pixels as 255, and the names of the other classes (``void`` is taken off the end)."""
    inside = masks[masks != VOID]
    classes = _class_names(names, int(inside.max()) if len(inside) else 0)
    if "void" not in classes:
        return masks, classes
    masks = masks.masked_fill(masks == classes.index("void"), VOID)
    return masks, classes[:-1] if classes[-1] == "void" else classes
