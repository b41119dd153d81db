"""Which columns of a parquet file hold the images, the masks and the labels."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import pyarrow as pa

from invariscope.base.errors import DataError
from invariscope.base.names import unknown

IMAGE_NAMES = ("image", "img")
MASK_NAMES = ("mask", "segmentation", "annotation", "semantic", "label")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")
NONE = "none"

KEYS = ("label_column", "image_column", "mask_column", "classes", "void")
"""What a specification may say behind its path: ``parquet:PATH?label_column=coarse_label``."""


@dataclass(frozen=True)
class Columns:
    """Names of the image, the mask and the label column; one of the last two may be missing, or both."""

    image: str
    mask: str | None
    label: str | None

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        return [name for name in (self.image, self.mask, self.label) if name]


def read_query(path: str) -> tuple[str, dict[str, str]]:
    """A path and what stands behind it.

    Raises:
        DataError: an unknown key, or one without a value.
    """
    if "?" not in path or os.path.exists(os.path.expanduser(path)):
        return path, {}
    place, _, text = path.partition("?")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise DataError(f"parquet:{path}: write what follows the ? like label_column=coarse_label") from None
    for key, value in pairs:
        if key not in KEYS:
            raise DataError(f"parquet:{path}: {unknown('key', key, KEYS)}")
        if not value:
            raise DataError(f"parquet:{path}: {key} is empty: give it a value, or leave it out")
    return place, dict(pairs)


def plain(type_: pa.DataType) -> pa.DataType:
    """A type without what does not change a value: dictionaries, the width of offsets, nullability."""
    if pa.types.is_dictionary(type_):
        return plain(type_.value_type)
    if pa.types.is_large_binary(type_):
        return pa.binary()
    if pa.types.is_large_string(type_):
        return pa.string()
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, plain(field.type)) for field in type_])
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return pa.list_(plain(type_.value_type))
    return pa.int64() if pa.types.is_integer(type_) else type_


def is_encoded(type_: pa.DataType) -> bool:
    """Whether a column holds images as bytes."""
    if pa.types.is_struct(type_):
        return any(field.name == "bytes" for field in type_)
    return bool(pa.types.is_binary(plain(type_)))


def is_pixels(type_: pa.DataType) -> bool:
    """Whether a column holds images as lists of lists of numbers of 8 or 16 bits."""
    depth = 0
    while pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        type_, depth = type_.value_type, depth + 1
    return depth in (2, 3) and bool(pa.types.is_uint8(type_) or pa.types.is_uint16(type_))


def deep_pixels(type_: pa.DataType) -> bool:
    """Whether the numbers of such a column have 16 bits."""
    while not pa.types.is_integer(type_):
        type_ = type_.value_type
    return bool(pa.types.is_uint16(type_))


def find_columns(schema: pa.Schema, name: str, asked: Mapping[str, str], features: Mapping[str, Any]) -> Columns:
    """The columns, by what is asked for, by their types, by their features, and by their names.

    Raises:
        DataError: they cannot be told apart; the line names them all, and what to ask for.
    """
    described = ", ".join(f"{field.name} ({field.type})" for field in schema)
    for key in KEYS[:3]:
        if asked.get(key) not in (None, NONE, *schema.names):
            raise DataError(f"{name}: {key}: {unknown('column', asked[key], schema.names)}")
    has_images = [field.name for field in schema if _has_images(field, features)]
    label = asked.get("label_column")
    masks = [one for one in has_images if any(part in one.lower() for part in MASK_NAMES)]
    masks = [asked["mask_column"]] if "mask_column" in asked else masks
    masks = [one for one in masks if one not in (asked.get("image_column"), NONE)]
    images = [one for one in has_images if one not in masks]
    if "image_column" in asked:
        images = [asked["image_column"]]
    elif len(images) > 1:
        images = [one for one in images if one.lower() in IMAGE_NAMES]
    if len(images) != 1 or len(masks) > 1:
        raise DataError(
            f"{name} has the columns {described}: give one image column (struct with bytes, named image or img where "
            "there are several) and at most one mask column, or name them: ?image_column=NAME&mask_column=NAME"
        )
    mask = masks[0] if masks else None
    if label is not None:
        return Columns(images[0], mask, None if label == NONE else label)
    found = _labels(schema, features, bool(mask))
    if len(found) > 1:
        raise DataError(
            f"{name} has several columns of labels ({', '.join(found)}): choose with ?label_column={found[0]} behind "
            "the path"
        )
    if not found and not mask:
        raise DataError(
            f"{name} has the columns {described}: give an integer column named label, or a mask column; or "
            f"?label_column=NAME behind the path, ?label_column={NONE} for images without labels"
        )
    return Columns(images[0], mask, found[0] if found else None)


def _has_images(field: pa.Field, features: Mapping[str, Any]) -> bool:
    feature = features.get(field.name)
    is_image = isinstance(feature, dict) and feature.get("_type") == "Image"
    return is_image or is_encoded(field.type) or is_pixels(field.type)


def _labels(schema: pa.Schema, features: Mapping[str, Any], has_mask: bool) -> list[str]:
    """The columns that may be the labels, all but the best kind left out."""
    numbers = [field.name for field in schema if _is_number(plain(field.type))]
    exact = [one for one in numbers if one.lower() == "label"]
    classes = [
        one for one in numbers if isinstance(features.get(one), dict) and features[one].get("_type") == "ClassLabel"
    ]
    named = [one for known in LABEL_NAMES for one in numbers if one.lower() == known]
    return exact[:1] or classes or named or (numbers if len(numbers) == 1 and not has_mask else [])


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_))


def features_of(schema: pa.Schema, name: str) -> dict[str, Any]:
    """The features that the library `datasets` writes into the metadata; empty without them."""
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return {}
    try:
        features = json.loads(raw)["info"]["features"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{name}: the huggingface entry of the schema is not as that library writes it") from error
    return features if isinstance(features, dict) else {}
