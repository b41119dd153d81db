"""Any image data set in the Hugging Face parquet layout: an image struct with a label, a mask, or both."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from invariscope.base.errors import DataError
from invariscope.zoo.datasets.decoding import Source, arrays_to_images, decode_images, decode_masks
from invariscope.zoo.datasets.imageset import NO_LABEL, VOID, ImageSet, as_labels
from invariscope.zoo.datasets.parquet_columns import (
    deep_pixels,
    features_of,
    find_columns,
    is_encoded,
    is_pixels,
    plain,
    read_query,
)

MOST_SHARDS = 100_000
"""Files of one split; a name that claims more is taken as it is."""

_SHARD = re.compile(r"-(?P<number>\d+)-of-(?P<count>\d+)$")

MAX_COLUMN = 2**31
"""Bytes of one column in one row group beyond which a file is refused before it is decompressed."""

MAX_REPEATED = 2**26
"""Bytes of images that a file may hold beyond its own size: repeated values are stored once, and cost memory each."""

_BATCH_ROWS = 1024


def load_parquet(path: str | None, *, split: str, limit: int | None, size: int | None) -> ImageSet:
    """Read a ``.parquet`` file, or the files of a split of a folder: ``SPLIT.parquet``, ``SPLIT-*.parquet``, the same
    in ``data/``, or ``SPLIT/*.parquet``. One shard of several (``-00000-of-00003``) stands for all of them.

    The image column is a struct ``{bytes, path}`` (or plain binary, lists of 8-bit numbers, or paths below the file's
    folder), a second one whose name says so is the mask, the labels are the column ``label``, the one of the feature
    ``ClassLabel``, or the one that is called so. Behind the path may stand which they are, and what the metadata do not
    say: ``?label_column=NAME&image_column=NAME&mask_column=NAME&classes=a,b,c&void=11``; ``label_column=none`` for
    images without labels, which they also are where every label is -1. Class names otherwise come from the
    ``huggingface`` entry of the schema's metadata, or the classes are numbered. A mask class named ``void``, or of the
    number ``void``, becomes 255. With ``limit`` only the row groups that are needed are read.

    Raises:
        DataError: for a missing or unreadable file, columns that cannot be told apart, or rows that cannot be used.
    """
    path, asked = read_query(path or "")
    files, name = _find(path, split)
    schema = _schema(files[0])
    features = features_of(schema, name)
    columns = find_columns(schema, name, asked, features)
    wanted = {column: schema.field(column).type for column in columns.names}
    read = _read(files, wanted, limit)
    if not read[columns.image]:
        raise DataError(f"{name} has no rows: give a data set with at least one image")
    images = _pictures(read[columns.image], name, size, files[0].parent)
    given = asked["classes"].split(",") if "classes" in asked else None
    labels = torch.full((len(images),), NO_LABEL)
    classes: tuple[str, ...] = ()
    if columns.label:
        numbers = as_labels(np.concatenate([_numbers(part) for part in read[columns.label]]), name)
        if bool((numbers != NO_LABEL).any()):
            feature = features.get(columns.label)
            names = feature.get("names") if isinstance(feature, dict) else None
            own = names if given is None or columns.mask else given
            labels, classes = numbers, _class_names(own, max(int(numbers.max()), 0))
    if not columns.mask:
        return ImageSet(name, images, labels, classes)
    masks = decode_masks(_encoded(read[columns.mask], name, files[0].parent), name, size)
    masks, mask_classes = _without_void(masks, given or features.get("classes"), asked.get("void"), name)
    return ImageSet(name, images, labels, classes, masks, mask_classes)


def _find(path: str | None, split: str) -> tuple[list[Path], str]:
    if not path:
        raise DataError("parquet needs a path: write parquet:PATH of a .parquet file or of a folder of them")
    place = Path(path).expanduser()
    if os.path.isfile(place):
        stem = _SHARD.sub("", place.stem)
        return _whole([place], place.parent), f"{place.resolve().parent.name}/{stem}"
    if not place.is_dir():
        raise DataError(f"there is no file or folder {place}: put a .parquet file there, or a folder of them")
    patterns = (f"{split}.parquet", f"{split}-*.parquet")
    for found in (
        [file for pattern in patterns for file in sorted(place.glob(pattern))],
        [file for pattern in patterns for file in sorted((place / "data").glob(pattern))],
        sorted((place / split).glob("*.parquet")),
    ):
        if found:
            return _whole(found, found[0].parent), f"{place.resolve().name}/{split}"
    there = ", ".join(sorted(file.name for file in place.rglob("*.parquet"))[:5]) or "no parquet file"
    raise DataError(f"{place} has no {split}.parquet or {split}-*.parquet (it has {there}): name a split that it has")


def _whole(files: list[Path], folder: Path) -> list[Path]:
    """All shards of the sets of which some are given; refuses a set that is not whole."""
    found: list[Path] = []
    for file in files:
        if (shard := _SHARD.search(file.stem)) is None or int(shard["count"]) > MOST_SHARDS:
            found.append(file)
            continue
        start, digits = file.stem[: shard.start()], len(shard["number"])
        names = [f"{start}-{i:0{digits}}-of-{shard['count']}{file.suffix}" for i in range(int(shard["count"]))]
        if missing := [one for one in names if not os.path.isfile(folder / one)]:
            raise DataError(
                f"{file} is one of {len(names)} files, and {', '.join(missing[:3])} "
                f"{'is' if len(missing) == 1 else 'are'} not there: put all of them into one folder, or rename this "
                "one to take it for the whole"
            )
        found += [folder / one for one in names]
    return list(dict.fromkeys(found))


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as parquet: replace it by a whole file") from error


def _read(files: Sequence[Path], wanted: dict[str, pa.DataType], limit: int | None) -> dict[str, list[pa.Array]]:
    """The first ``limit`` rows of the wanted columns, in parts; types must be of the same values."""
    read: dict[str, list[pa.Array]] = {column: [] for column in wanted}
    missing = float("inf") if limit is None else limit
    for file in files:
        try:
            room = file.stat().st_size + MAX_REPEATED
            # Values are read as indices into a dictionary, which repeated ones do not enlarge.
            with pq.ParquetFile(file, read_dictionary=_encoded_leaves(wanted)) as parquet:
                schema = parquet.schema.to_arrow_schema()
                for column, type_ in wanted.items():
                    held = schema.field(column).type if column in schema.names else pa.null()
                    if plain(held) != plain(type_):
                        raise DataError(
                            f"{file} has other column types than {files[0].name} ({column}: {held} and {type_}): write "
                            "both files alike"
                        )
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
                    for column in wanted:
                        read[column].append(batch[column])
                    missing -= batch.num_rows
                    if missing <= 0:
                        return read
        except (pa.ArrowException, OSError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{file} cannot be read as parquet ({reason}): replace it by a whole file") from error
    return read


def _encoded_leaves(wanted: dict[str, pa.DataType]) -> list[str]:
    """Paths of the columns of bytes in the file."""
    return [
        f"{column}.bytes" if pa.types.is_struct(type_) else column
        for column, type_ in wanted.items()
        if is_encoded(type_)
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


def _pictures(parts: Sequence[pa.Array], name: str, size: int | None, folder: Path) -> Tensor:
    """The images of a column: decoded, or as they are where they are lists of numbers."""
    if not is_pixels(parts[0].type):
        return decode_images(_encoded(parts, name, folder), name, size)
    arrays = []
    kind = np.int32 if deep_pixels(parts[0].type) else np.uint8
    for row, value in enumerate(chain.from_iterable(part.to_pylist() for part in parts)):
        try:
            arrays.append(np.array(value, dtype=kind))
        except (ValueError, TypeError):
            raise DataError(f"{name}: row {row} is no image: give lists of one length, of numbers to 255") from None
        if arrays[-1].ndim not in (2, 3) or 0 in arrays[-1].shape:
            raise DataError(f"{name}: row {row} has no pixels: leave it out")
    return arrays_to_images(arrays, name, size)


def _encoded(parts: Sequence[pa.Array], name: str, folder: Path) -> list[Source]:
    """The bytes of each image, or its file."""
    found: list[Source] = []
    for part in parts:
        is_struct = pa.types.is_struct(part.type)
        names = [field.name for field in part.type] if is_struct else []
        values = part.field("bytes").to_pylist() if "bytes" in names else [None] * len(part)
        paths = part.field("path").to_pylist() if "path" in names else [None] * len(part)
        if not is_struct:
            values = part.to_pylist()
        for value, path in zip(values, paths, strict=True):
            value = path if value is None else value
            found.append(value if isinstance(value, bytes) else _file(value, folder, f"{name}: row {len(found)}"))
    return found


def _file(path: Any, folder: Path, what: str) -> Path:
    """The file of an image of which a path is all that there is."""
    file = folder / path if isinstance(path, str) and path else None
    if file is None or not file.resolve().is_relative_to(folder.resolve()) or not os.path.isfile(file):
        said = f" (its path {path!r} is no file below {folder})" if path else ""
        raise DataError(f"{what} has no image bytes{said}: write the images into the file, not only their paths")
    return file


def _numbers(part: pa.Array) -> np.ndarray:
    values = part.dictionary_decode() if pa.types.is_dictionary(part.type) else part
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _class_names(names: Any, largest: int) -> tuple[str, ...]:
    if isinstance(names, list) and names:
        return tuple(str(name) for name in names)
    return tuple(str(number) for number in range(largest + 1))


def _without_void(masks: Tensor, names: Any, number: str | None, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Masks with void pixels as 255, and the names of the other classes (void is taken off the end)."""
    if number is not None and (not number.isdecimal() or int(number) > VOID):
        raise DataError(f"{name}: void is {number!r}: give the number of the class that is none, from 0 to {VOID}")
    if number is not None and names is None:
        masks = masks.masked_fill(masks == int(number), VOID)
    inside = masks[masks != VOID]
    classes = _class_names(names, int(inside.max()) if len(inside) else 0)
    void = int(number) if number is not None else classes.index("void") if "void" in classes else VOID
    masks = masks.masked_fill(masks == void, VOID)
    return masks, classes[:-1] if names is not None and void == len(classes) - 1 else classes
