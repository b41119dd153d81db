"""Small files that claim or unpack to far more than a machine holds: refused in one line, before memory is taken."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from invariscope.base.errors import DataError, InputError, WeightsError
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.weights import load_weights

LARGE = 2**26


def refused(load: Callable[[], object], error: type[InputError], message: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(error, match=message) as caught:
            load()
        assert tracemalloc.get_traced_memory()[1] < LARGE // 4
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(10)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w", 8) as bomb:
        for entry in plain.infolist():
            storage = entry.filename.endswith("data/0")
            bomb.writestr(entry.filename, bytes(LARGE) if storage else plain.read(entry))
    assert (tmp_path / "bomb.pth").stat().st_size < LARGE // 100
    refused(lambda: load_weights(tmp_path / "bomb.pth"), WeightsError, "would unpack to 67")


@pytest.mark.parametrize("header", [struct.pack("<Q", 2**31) + b"{}", None])
def test_a_safetensors_header_that_claims_gigabytes_is_refused(tmp_path: Path, header: bytes | None) -> None:
    claim = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    text = json.dumps(claim).encode()
    (tmp_path / "a.safetensors").write_bytes(header or struct.pack("<Q", len(text)) + text)
    refused(lambda: load_weights(tmp_path / "a.safetensors"), WeightsError, "is no whole safetensors file")


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [60_000, 20_000, 8_200])
def test_a_png_that_claims_gigapixels_is_refused(tmp_path: Path, side: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(png(side, side))
    refused(lambda: load_dataset(f"imagefolder:{tmp_path}"), DataError, "pixels")


def test_a_parquet_file_with_an_absurd_row_group_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invariscope.zoo.datasets.parquet.MAX_COLUMN", LARGE // 2)
    images = pa.array([png(8, 8), bytes(LARGE)], pa.binary())
    table = pa.table({"image": images, "label": [0, 1]})
    pq.write_table(table, tmp_path / "bomb.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < LARGE // 100
    refused(lambda: load_dataset(f"parquet:{tmp_path / 'bomb.parquet'}"), DataError, "row group 0 holds 67")


@pytest.mark.parametrize("nested", [True, False])
def test_a_parquet_file_that_repeats_an_image_without_end_is_refused(
    tmp_path: Path, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invariscope.zoo.datasets.parquet.MAX_REPEATED", LARGE // 8)
    image, count = png(8, 8) + bytes(LARGE // 256), 64
    values = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([image])).cast(pa.binary())
    images = pa.StructArray.from_arrays([values], ["bytes"]) if nested else values
    pq.write_table(pa.table({"image": images, "label": [0] * count}), tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < LARGE // 1000
    refused(lambda: load_dataset(f"parquet:{tmp_path / 'bomb.parquet'}"), DataError, "repeats images to more than")


def test_an_honest_file_passes(tmp_path: Path) -> None:
    state = {"a": torch.arange(10.0)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        assert torch.equal(load_weights(tmp_path / name)["a"], state["a"])
