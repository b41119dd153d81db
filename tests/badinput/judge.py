"""What is asked of a refusal: its exit code, one line, nothing written, in little time and memory."""

from __future__ import annotations

import re
from typing import Any

from cases import Case

SECONDS, BYTES = 10, 3 << 29
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def problems(case: Case, found: dict[str, Any]) -> list[str]:
    """What is wrong with how a command ended; nothing where it refused as it should."""
    wrong = []
    code, said = found["code"], found["out"] + found["err"]
    if code not in case.codes:
        wrong.append(f"exit code {code}")
    if "Traceback" in said:
        wrong.append("a traceback")
    lines = found["err"].strip("\n").splitlines()
    if 3 not in case.codes and len(lines) != 1:
        wrong.append(f"{len(lines)} lines")
    if 3 not in case.codes and found["out"]:
        wrong.append("output")
    if case.word and case.word not in said:
        wrong.append(f"no word {case.word!r}")
    if CONTROL.search(said):
        wrong.append("a control character")
    left = [path for path in found["changed"] if not case.leaves or re.search(r"\.(tmp|part)$", path)]
    if left:
        wrong.append(f"left {', '.join(left[:3])}")
    if max(found["cpu"], found["seconds"] / 3) > SECONDS:  # other processes may keep it waiting
        wrong.append(f"{found['seconds']:.0f} s")
    if found["bytes"] > BYTES:
        wrong.append(f"{found['bytes'] / 2**30:.1f} GiB")
    if any(path.endswith("ran") for path in found["changed"]):
        wrong.append("code ran")
    return wrong
