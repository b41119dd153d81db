"""Bad inputs, made from good ones: functions by name, each of which changes the folder that it is given."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

MODEL = "zoo:smallcnn?operator={}&width=4&in_channels=1"
INPUT = "{size: 32, mean: [0.5], std: [0.25]}"

TEXTS = {
    "NUL": "a\0b",
    "LONG": "x" * 300,
    "ESC": "a\x1b[31mred",
    "EMPTY": "",
    "BLANKS": "soft(" + " " * 4000,
    "MODEL_OF_BLANKS": "zoo:smallcnn?operator=soft(" + " " * 4000,
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
    """Copy the good input, and change it by the functions that a text names: ``zoo;; entry {"name": [1]}``."""
    import makers_binary  # noqa: F401  # which makes its functions known

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
            f"labels: digits, factors: {{operator: {operator}, architecture: smallcnn, seed: {number}, run: r{number}"
            "}}"
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
    code = cli.main([*collect, "--n-shifts", "3", "--collect", "checkpoints,layers,invariance"])
    return code or cli.main(["pack", str(zoo), "--out", str(base / "packs")])


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
