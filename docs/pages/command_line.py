"""The page of the command line, from what every command prints for ``--help``."""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from unittest import mock

from invariscope import cli

_TITLE = re.compile(r"^╭─ (.+?) ─*╮$")
_COLUMNS = "80"
"""Of the terminal that is pretended: one box of flags below the other."""


@dataclass
class Help:
    """What a command prints for ``--help``: its usage, its text, and its flags in groups, each with its meaning."""

    usage: str
    text: str
    groups: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


def printed(*arguments: str) -> str:
    """What ``--help`` prints on a terminal without colours."""
    told = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    plain = mock.patch.dict(os.environ, {"COLUMNS": _COLUMNS, "NO_COLOR": "1", "TERM": "dumb"})
    with plain, redirect_stdout(told), suppress(SystemExit):
        cli.parse([*arguments, "--help"])
    told.seek(0)
    return re.sub("\x1b\\[[0-9;]*m", "", told.read())


def read(command: str) -> Help:
    """The help of a command, taken apart."""
    before, _, after = printed(command).partition("╭")
    usage, _, text = before.partition("\n\n")
    found = Help(" ".join(usage.removeprefix("usage: ").split()), text.strip())
    rows: list[list[str]] = []
    for line in f"╭{after}".splitlines():
        if title := _TITLE.match(line):
            rows = []
            found.groups[title[1]] = rows  # type: ignore[assignment]
        elif line.startswith("│ ") and (inside := line[2:].rstrip(" │")):
            if inside.startswith("──"):
                rows.clear()  # what stood above the line is about the group
            elif not inside.startswith(" "):
                flag, _, meaning = inside.partition("  ")
                rows.append([flag.strip(), meaning.strip()])
            elif rows:
                rows[-1][1] = f"{rows[-1][1]} {inside.strip()}".strip()
    found.groups = {name: [(flag, meaning) for flag, meaning in kept] for name, kept in found.groups.items()}
    return found


def page() -> str:
    """The page, in Markdown."""
    parts = ["# Command line", "Every command says this itself: `invariscope COMMAND --help`.", exit_codes()]
    for command in cli.COMMANDS:
        help_ = read(command)
        parts += [f"## {command}", f"```text\n{help_.usage}\n```", _text(help_.text)]
        for group, flags in help_.groups.items():
            shown = [(flag, meaning) for flag, meaning in flags if not flag.startswith("-h")]
            if shown:
                parts.append(f"**{group.capitalize()}**")
                parts.append("\n".join(["| flag | meaning |", "| --- | --- |", *(_row(*one) for one in shown)]))
    return "\n\n".join(parts) + "\n"


def exit_codes() -> str:
    """What the exit codes mean."""
    return (
        f"Exit codes: {cli.DONE} all done; {cli.BAD_INPUT} bad input, which one line names; {cli.WITH_FAILURES} done, "
        f"but some tasks failed; {cli.INTERRUPTED} stopped by Ctrl-C."
    )


def _text(text: str) -> str:
    """The description, its example as a block."""
    said = []
    for paragraph in text.split("\n\n"):
        line = " ".join(paragraph.split())
        lead, *items = paragraph.split("\n- ")
        if items:
            said.append(
                "\n".join(
                    [escaped(" ".join(lead.split())), "", *(f"* {escaped(' '.join(one.split()))}" for one in items)]
                )
            )
        elif line.startswith("Example: "):
            said.append(f"```text\n{line.removeprefix('Example: ')}\n```")
        else:
            said.append(escaped(line))
    return "\n\n".join(said)


def _row(flag: str, meaning: str) -> str:
    shown = flag.replace("{None}|", "").replace("|", "\\|")
    return f"| `{shown}` | {escaped(meaning.replace(' (default: None)', ''))} |"


def escaped(text: str) -> str:
    """Text as Markdown shows it, in a cell of a table too: letter by letter, but for what stands in backticks."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts = [text]
    shown = [re.sub(r"([\\`*_{}\[\]<>|$#~])", r"\\\1", part) for part in parts[::2]]
    code = [part.replace("|", "\\|") for part in parts[1::2]]
    return "`".join(one for pair in zip(shown, [*code, ""], strict=True) for one in pair).removesuffix("`")
