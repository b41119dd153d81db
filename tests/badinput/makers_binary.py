"""Bad inputs of bytes: weights, images, data sets and tables that are not what they were."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from makers import HOSTILE, maker


def part(here: Path, table: str) -> Path:
    """The first part of a table."""
    return sorted((here / "tables" / table).glob("*.parquet"))[0]


@maker
def weights(here: Path, rest: str) -> None:
    """The first weights file, spoilt in a way."""
    path = here / "zoo" / "max.safetensors"
    content = path.read_bytes()
    changed = {
        "empty": b"",
        "cut": content[:-7],
        "header": content[:40],
        "rubbish": random.Random(0).randbytes(5000),
        "claim": struct.pack("<Q", 1 << 62) + content[8:],
        "json": struct.pack("<Q", 5) + b"[1,2]",
        "nul": b"\0" * 4096,
    }
    path.write_bytes(changed[rest])


@maker
def empty_tensors(here: Path, count: str) -> None:
    header = {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(int(count))}
    text = json.dumps(header).encode()
    (here / "zoo" / "max.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)


# ---- images


def png(width: int, height: int, *, whole: bool = False) -> bytes:
    """A PNG that claims a size, or has it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 1) * height)) if whole else zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@maker
def image(here: Path, rest: str = "image.png") -> None:
    (here / rest).write_bytes(png(32, 32, whole=True))


@maker
def pngs(here: Path, rest: str) -> None:
    """``pngs COUNT SIDE``: a folder per class of images of this size."""
    count, side = map(int, rest.split())
    content = png(side, side, whole=True)
    for number in range(count):
        path = here / "images" / f"c{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@maker
def claims(here: Path) -> None:
    (here / "images" / "a").mkdir(parents=True)
    (here / "images" / "a" / "0.png").write_bytes(png(60_000, 60_000))


@maker
def data_parquet(here: Path, rest: str) -> None:
    """``data.parquet`` of images and labels, spoilt in a way."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images, labels = [png(8, 8, whole=True)] * 4, [0, 1, 0, 1]
    made: dict[str, Callable[[], Any]] = {
        "label": lambda: pa.table({"image": images, "label": [0, 1, 0, 10**9]}),
        "negative": lambda: pa.table({"image": images, "label": [0, 1, 0, -5]}),
        "null": lambda: pa.table({"image": [*images[:3], None], "label": labels}),
        "text": lambda: pa.table({"image": ["a", "b", "c", "d"], "label": labels}),
        "none": lambda: pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}),
        "columns": lambda: pa.table({"a": [1], "b": [2]}),
        "rows": lambda: pa.table(
            {
                "image": pa.DictionaryArray.from_arrays(
                    pa.array([0] * 3_000_000, pa.int32()), pa.array(images[:1])
                ).cast(pa.binary()),
                "label": pa.array([0] * 3_000_000),
            }
        ),
    }
    pq.write_table(made[rest](), here / "data.parquet")


# ---- tables


@maker
def spoil(here: Path, rest: str) -> None:
    """``spoil TABLE HOW``: the first part of a table, no longer what it was."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, how = rest.split()
    path = part(here, table)
    content = path.read_bytes()
    if how in ("fifo", "folder", "device", "loop", "socket"):
        path.unlink()
        if how == "fifo":
            os.mkfifo(path)
        elif how == "folder":
            path.mkdir()
        elif how == "loop":
            path.symlink_to(path.name)
        else:
            path.symlink_to("/dev/zero")
        return
    if how in ("empty", "cut", "rubbish", "magic", "text", "footer", "page", "schema"):
        middle = bytearray(content)
        for place in range(8, min(len(content) // 3, 400)):
            middle[place] ^= 0x5A
        footer = bytearray(content)
        for place in range(len(content) - 60, len(content) - 12):
            footer[place] ^= 0xFF
        schema = bytearray(content)
        size = struct.unpack("<I", content[-8:-4])[0]
        for place in range(len(content) - 8 - size, len(content) - 8 - size + 40):
            schema[place] = 0xFF
        path.write_bytes(
            {
                "empty": b"",
                "cut": content[: len(content) // 2],
                "rubbish": random.Random(1).randbytes(3000),
                "magic": b"PAR1PAR1",
                "text": b"operator,msb\nmax,1\n",
                "footer": bytes(footer),
                "page": bytes(middle),
                "schema": bytes(schema),
            }[how]
        )
        return
    rows = pq.read_table(path)
    column = {"layers": "msb", "invariance": "value", "checkpoints": "n_params"}[table]
    place = rows.column_names.index(column)
    if how == "list":
        rows = rows.set_column(place, column, pa.array([[1.0]] * len(rows)))
    elif how == "words":
        rows = rows.set_column(place, column, pa.array(["much"] * len(rows)))
    elif how == "struct":
        rows = rows.set_column(place, column, pa.array([{"a": 1}] * len(rows)))
    elif how == "lacks":
        rows = rows.drop_columns([column])
    elif how == "twice":
        rows = rows.append_column(column, rows[column])
    elif how == "none":
        rows = rows.slice(0, 0)
    elif how == "nulls":
        rows = rows.set_column(rows.column_names.index("task"), "task", pa.nulls(len(rows), pa.string()))
    elif how == "utf8":
        bad = pa.array([b"\xff\xfe"] * len(rows), pa.binary())
        spoilt = pa.StringArray.from_buffers(len(rows), *bad.buffers()[1:])
        rows = rows.set_column(rows.column_names.index("checkpoint"), "checkpoint", spoilt)
    elif how == "version":
        rows = rows.replace_schema_metadata({"schema_version": "999"})
    elif how == "binaryversion":
        rows = rows.replace_schema_metadata({"schema_version": b"\xff\x1b[31m"})
    elif how == "metadata":
        rows = rows.replace_schema_metadata({"schema_version": "1", "pandas": "{", "ARROW:schema": "rubbish"})
    else:
        raise KeyError(how)
    pq.write_table(rows, path)


@maker
def value(here: Path, rest: str) -> None:
    """``value TABLE COLUMN JSON``: a column of the first part has this value in every row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, column, text = rest.split(" ", 2)
    path = part(here, table)
    rows = pq.read_table(path)
    place = rows.column_names.index(column)
    field = rows.schema.field(column)
    filled = pa.array([json.loads(text)] * len(rows), field.type)
    pq.write_table(rows.set_column(place, field, filled), path)


@maker
def factors(here: Path, rest: str) -> None:
    """What stands as factors in the first description."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = part(here, "checkpoints")
    rows = pq.read_table(path)
    place = rows.column_names.index("factors")
    pq.write_table(rows.set_column(place, rows.schema.field("factors"), pa.array([rest] * len(rows))), path)


@maker
def names(here: Path, rest: str) -> None:
    """``names A B C``: the networks, their operators, runs, sites and data have hostile names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chosen = [HOSTILE[name] for name in rest.split()]
    given: dict[str, str] = {}
    texts = (
        "checkpoint",
        "operator",
        "operator_spec",
        "architecture",
        "training_data",
        "run",
        "site",
        "site_kind",
        "reason",
    )
    for path in sorted((here / "tables").glob("*/*.parquet")):
        rows = pq.read_table(path)
        named = [given.setdefault(old, chosen[len(given) % len(chosen)]) for old in rows["checkpoint"].to_pylist()]
        for column in {*texts, "data", "factors"} & set(rows.column_names):
            field = rows.schema.field(column)
            fresh = [chosen[0]] * len(rows) if column == "data" else named
            fresh = [json.dumps({name: name, "labels": name}) for name in named] if column == "factors" else fresh
            rows = rows.set_column(rows.column_names.index(column), field, pa.array(fresh, field.type))
        pq.write_table(rows, path)


@maker
def table_is_file(here: Path, name: str) -> None:
    shutil.rmtree(here / "tables" / name)
    (here / "tables" / name).write_text("a file")


def _repeated(rows: Any, count: int) -> Any:
    """One row of a table so many times."""
    import pyarrow as pa

    columns = []
    for column in rows.slice(0, 1).columns:
        once = pa.array(column.to_pylist(), column.type)
        plain = pa.types.is_string(column.type) or pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
        coded = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), once) if plain else None
        columns.append(pa.array(column.to_pylist() * count, column.type) if coded is None else coded.cast(column.type))
    return pa.Table.from_arrays(columns, schema=rows.schema)


@maker
def rows_bomb(here: Path, count: str) -> None:
    """The layers hold one row so many times."""
    import pyarrow.parquet as pq

    path = part(here, "layers")
    pq.write_table(_repeated(pq.read_table(path), int(count)), path, compression="zstd")


@maker
def signed_bomb(here: Path, count: str) -> None:
    """The same, by somebody who can write a digest."""
    import pyarrow.parquet as pq

    from invariscope.collectors.store.digest import write_digested

    path = part(here, "layers")
    rows = _repeated(pq.read_table(path), int(count))
    with path.open("wb") as file:
        write_digested(file, rows, str(path))


@maker
def parts_bomb(here: Path, rest: str) -> None:
    """``parts_bomb COUNT ROWS``: so many parts of the layers, each with one row so many times."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, size = map(int, rest.split())
    rows = pq.read_table(part(here, "layers"))
    place = rows.column_names.index("task")
    for number in range(count):
        name = pa.array([f"t{number}"] * len(rows))
        named = rows.set_column(place, rows.schema.field(place), name)
        pq.write_table(_repeated(named, size), here / "tables" / "layers" / f"t{number}.parquet", compression="zstd")


@maker
def text_bomb(here: Path, rest: str) -> None:
    """``text_bomb TABLE COLUMN MB``: one text of so many megabytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, column, size = rest.split()
    path = part(here, table)
    rows = pq.read_table(path)
    place = rows.column_names.index(column)
    texts = ["a" * (int(size) << 20), *["b"] * (len(rows) - 1)]
    pq.write_table(rows.set_column(place, rows.schema.field(place), pa.array(texts)), path, compression="zstd")


@maker
def swap_parts(here: Path, table: str) -> None:
    """One part's bytes under another's name."""
    one, two = sorted((here / "tables" / table).glob("*.parquet"))[:2]
    two.write_bytes(one.read_bytes())
