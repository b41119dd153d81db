"""What is asked of a refusal: its exit code, one line, nothing written, in little time and memory."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cases import Case

SECONDS, BYTES = 10, 3 << 29
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def markup(folder: Path) -> list[str]:
    """Where a name stands as a command in the files that were written."""
    wrong = []
    for path in sorted(file for file in folder.rglob("*") if file.suffix in (".csv", ".md", ".html", ".tex", ".txt")):
        text = path.read_text(errors="replace")
        if path.suffix == ".csv":
            cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
            wrong += [f"{path.name}: {cell!r}" for cell in cells if re.match(r"[=@]|[+-](?![\d.]+(e[+-]\d+)?$)", cell)]
        elif path.suffix == ".html":
            wrong += [f"{path.name}: a script"] if "<script>alert" in text else []
        elif path.suffix == ".md":
            wrong += [f"{path.name}: markup"] if re.search(r"<script|\]\(javascript", text) else []
        elif path.suffix == ".tex":
            wrong += [f"{path.name}: a command"] if re.search(r"\\input\{|(?<!\\)[#%&] |\\end\{table\}\S", text) else []
        if path.suffix != ".html" and CONTROL.search(text):
            wrong.append(f"{path.name}: a control character")
    return wrong


def problems(case: Case, found: dict[str, Any]) -> list[str]:
    """What is wrong with how a command ended; nothing where it refused as it should."""
    wrong = list(found["markup"])
    code, said = found["code"], found["out"] + found["err"]
    if code not in case.codes:
        wrong.append(f"exit code {code}")
    if "Traceback" in said:
        wrong.append("a traceback")
    lines = found["err"].strip("\n").splitlines()
    if case.codes == (2,) and len(lines) != 1:
        wrong.append(f"{len(lines)} lines")
    if case.codes == (2,) and found["out"]:
        wrong.append("output")
    if case.word and case.word not in said:
        wrong.append(f"no word {case.word!r}")
    if CONTROL.search(said):
        wrong.append("a control character")
    left = [path for path in found["changed"] if not case.leaves or re.search(r"\.(tmp|part)$", path)]
    if left:
        wrong.append(f"left {', '.join(left[:3])}")
    if max(found["cpu"], found["seconds"] / 3) > SECONDS and case.kind != "name":  # other processes may keep it waiting
        wrong.append(f"{found['seconds']:.0f} s")
    if found["bytes"] > BYTES:
        wrong.append(f"{found['bytes'] / 2**30:.1f} GiB")
    if any(path.endswith("ran") for path in found["changed"]):
        wrong.append("code ran")
    return wrong
