"""Bad inputs, made from good ones: functions by name, each of which changes the folder that it is given."""

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

MODEL = "zoo:smallcnn?operator={}&width=4&in_channels=1"
INPUT = "{size: 32, mean: [0.5], std: [0.25]}"

TEXTS = {
    "NUL": "a\0b",
    "LONG": "x" * 300,
    "ESC": "a\x1b[31mred",
    "EMPTY": "",
    "BLANKS": "soft(" + " " * 4000,
    "SURROGATE": "a\udcff",
}
"""What a word of a command stands for that no line of text can hold."""

HOSTILE = {
    "mathtext": r"$\foo$ $x_",
    "percent": "50% & #1 ~^_{}",
    "html": "<script>alert(1)</script>\"'&amp;",
    "markdown": "a|b `c` **d** [e](javascript:f) <!-- ",
    "formula": "=cmd|'/C calc'!A0",
    "plus": "+1+2",
    "at": "@SUM(1)",
    "minus": "-1-2",
    "latex": r"\input{/etc/passwd}\end{table}",
    "escape": "a\x1b[31mred\x1b]0;title\x07",
    "controls": "a\x00b\x01c\x7fd\x9be",
    "lines": "a\nb\rc\u2028d",
    "direction": "a\u202egnp.exe",
    "long": "n" * 3000,
    "blanks": "   ",
    "wide": "数\U0001f600e\u0301",
}
"""Names that are text and nothing else, by what they would be elsewhere."""

MAKERS: dict[str, Callable[..., None]] = {}


def maker(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function known by its name."""
    MAKERS[function.__name__] = function
    return function


def make(text: str, here: Path, base: Path) -> None:
    """Copy the good input, and change it by the functions that a text names: ``zoo; manifest name=[1]``."""
    for step in filter(None, (part.strip() for part in text.split(";;"))):
        name, _, rest = step.partition(" ")
        if name in ("zoo", "tables", "packs"):
            shutil.copytree(base / name, here / name)
        elif name in MAKERS:
            MAKERS[name](here, rest) if rest else MAKERS[name](here)
        else:
            raise KeyError(name)


def make_base(base: Path) -> int:
    """A zoo of two networks, its tables, its pack."""
    import torch
    from safetensors.torch import save_file

    from invariscope import cli
    from invariscope.zoo.loading import build_model

    zoo = base / "zoo"
    zoo.mkdir()
    lines = ["checkpoints:"]
    for number, operator in enumerate(("max", "avg", "blur")):
        torch.manual_seed(number)
        model = MODEL.format(operator)
        save_file(build_model(model).state_dict(), zoo / f"{operator}.safetensors")
        lines.append(
            f"  - {{name: {operator}, model: '{model}', weights: {operator}.safetensors, input: {INPUT}, "
            f"labels: digits, factors: {{operator: {operator}, architecture: smallcnn, seed: {number}, run: r{number}}}}}"
        )
    (zoo / "zoo.yaml").write_text("\n".join(lines) + "\n")
    collect = [
        "collect",
        str(zoo),
        "--data",
        "digits",
        "--limit",
        "12",
        "--out",
        str(base / "tables"),
        "--msb-images",
        "4",
    ]
    code = cli.main([*collect, "--collect", "checkpoints,layers,invariance"])
    return code or cli.main(["pack", str(zoo), "--out", str(base / "packs")])


def part(here: Path, table: str) -> Path:
    """The first part of a table."""
    return sorted((here / "tables" / table).glob("*.parquet"))[0]


def yaml_of(here: Path) -> Path:
    return here / "zoo" / "zoo.yaml"


# ---- files of any kind


@maker
def file(here: Path, rest: str) -> None:
    """``file NAME TEXT``: a file of this text; ``\\n`` and ``\\x00`` as Python has them."""
    name, _, text = rest.partition(" ")
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1", "replace"))


@maker
def folder(here: Path, name: str) -> None:
    (here / name).mkdir(parents=True)


@maker
def fifo(here: Path, name: str) -> None:
    path = here / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


@maker
def loop(here: Path, name: str) -> None:
    """A link that leads to itself."""
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


@maker
def link(here: Path, rest: str) -> None:
    name, target = rest.split()
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@maker
def remove(here: Path, name: str) -> None:
    (here / name).unlink()


@maker
def huge(here: Path, name: str) -> None:
    """A file of 8 GiB without a byte on the disk."""
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as opened:
        opened.truncate(1 << 33)


# ---- manifests and recipes


@maker
def replace(here: Path, rest: str) -> None:
    """``replace OLD => NEW`` in the manifest."""
    old, new = rest.split(" => ")
    text = yaml_of(here).read_text()
    assert old in text
    yaml_of(here).write_text(text.replace(old, new))


@maker
def entry(here: Path, rest: str) -> None:
    """The manifest has one entry alone: these keys over the good ones."""
    import yaml

    good = {"name": "max", "model": MODEL.format("max"), "weights": "max.safetensors"}
    good |= {"input": {"size": 32, "mean": [0.5], "std": [0.25]}}
    yaml_of(here).write_text(yaml.safe_dump({"checkpoints": [{**good, **json.loads(rest)}]}))


@maker
def recipe(here: Path, rest: str = "{}") -> None:
    """A recipe of one small run; these keys over the good ones."""
    import yaml

    good = {"operator": "max", "model": {"width": 2}, "epochs": 1, "limit": 64, "data": "digits"}
    (here / "recipe.yaml").write_text(yaml.safe_dump({"grid": {**good, **json.loads(rest)}}))


@maker
def design(here: Path, rest: str) -> None:
    (here / "design.yaml").write_text(f"grid:\n  - population: {rest}\n")


@maker
def alias_bomb(here: Path, name: str) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (here / name).write_text("\n".join([*lines, "checkpoints: *a11", "grid: *a11", ""]))


@maker
def alias_factors(here: Path) -> None:
    """One value that a manifest of aliases multiplies: the bomb stands where a value is expected."""
    lines = ["checkpoints:", "- &b0 {x: 1}"]
    lines += [f"- &b{n} {{{', '.join(f'k{k}: *b{n - 1}' for k in range(10))}}}" for n in range(1, 14)]
    yaml_of(here).write_text("\n".join([*lines, "- {name: *b13, model: m, weights: w}", ""]))


@maker
def merge_bomb(here: Path, name: str) -> None:
    lines = ["a0: &a0 {" + ", ".join(f"k{k}: 1" for k in range(10)) + "}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 9)]
    (here / name).write_text("\n".join([*lines, "checkpoints: [*a8]", "grid: *a8", ""]))


@maker
def deep(here: Path, name: str) -> None:
    (here / name).write_text("checkpoints: " + "[" * 100_000)


@maker
def grid_bomb(here: Path, rest: str = "12") -> None:
    """A grid of 10 ** 12 runs."""
    keys = [
        "seed",
        "epochs",
        "lr",
        "weight_decay",
        "momentum",
        "batch_size",
        "augment_shift",
        "alpha",
        "failure_weight",
    ]
    keys = [*keys, "wake_up", "limit", "clip_norm"][: int(rest)]
    lines = [
        f"  {key}: [{', '.join(str(n / 10 if key in ('momentum', 'alpha') else n) for n in range(1, 11))}]"
        for key in keys
    ]
    (here / "recipe.yaml").write_text("grid:\n" + "\n".join(lines) + "\n")


@maker
def many(here: Path, rest: str) -> None:
    """A manifest of so many entries without weights."""
    one = "- {name: n%d, model: 'zoo:smallcnn', weights: none.pt, input: " + INPUT + "}"
    yaml_of(here).write_text("checkpoints:\n" + "\n".join(one % n for n in range(int(rest))) + "\n")


# ---- weights


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


@maker
def rows_bomb(here: Path, count: str) -> None:
    """The layers hold one row so many times."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = part(here, "layers")
    rows = pq.read_table(path).slice(0, 1)
    columns = [
        pa.DictionaryArray.from_arrays(
            pa.array([0] * int(count), pa.int32()), pa.array(column.to_pylist(), column.type)
        ).cast(column.type)
        if pa.types.is_string(column.type) or pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
        else pa.array(column.to_pylist() * int(count), column.type)
        for column in rows.columns
    ]
    pq.write_table(pa.Table.from_arrays(columns, schema=rows.schema), path, compression="zstd")


@maker
def code(here: Path, name: str = "zoo/net.py") -> None:
    """A Python file that leaves a trace when it runs."""
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\ndef build():\n    return None\n")


@maker
def readonly(here: Path, name: str) -> None:
    """A file where a folder is wanted: what root cannot write to either."""
    (here / name).write_text("a file")
