"""The code of a page of the documentation: its blocks in order, and how they are run."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invariscope import cli

_FENCE = re.compile(r"^```(python|yaml|sh)\n(.*?)^```$", re.M | re.S)
_FILE = re.compile(r"# FILE: (\S+)\n")


@dataclass(frozen=True)
class Block:
    """Code of one language; ``file``: it is the text of that file, and is not run."""

    language: str
    text: str
    line: int
    file: str | None


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page that are run or written: of Python, of the shell, and files."""
    found = []
    text = page.read_text()
    for match in _FENCE.finditer(text):
        named = _FILE.match(match[2])
        if match[1] != "yaml" or named:
            line = text.count("\n", 0, match.start()) + 2
            found.append(Block(match[1], match[2], line, named[1] if named else None))
    return found


def run(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    """Run a block in the working folder: Python in ``namespace``, commands of ours in this process."""
    if block.file is not None:
        Path(block.file).parent.mkdir(parents=True, exist_ok=True)
        Path(block.file).write_text(block.text)
    elif block.language == "python":
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
    else:
        for command in commands(block):
            code = cli.main(command)
            assert code == cli.DONE, f"{page}:{block.line}: {shlex.join(command)} gives {code}"


def commands(block: Block) -> list[list[str]]:
    """The commands of ours in a block of the shell; pip's are not ours."""
    lines = block.text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and line[0] == "invariscope"]
