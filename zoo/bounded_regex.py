"""Regular expressions that somebody else wrote, with a bound on their time: Python's own engine has none.

A pattern such as ``(a+)+$`` takes longer than the age of the universe on a key of a hundred letters. The substitution
runs in a Python of its own, which is stopped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

LONGEST = 500
"""Characters of a pattern."""

SECONDS = 10.0
"""For all keys of a file; those of a network of 400 layers take 0.001 s."""

_CHILD = """
import json, re, sys
pattern, to, texts = json.load(sys.stdin)
try:
    compiled = re.compile(pattern)
    print(json.dumps([None if compiled.search(text) is None else compiled.sub(to, text) for text in texts]))
except (re.error, IndexError, RecursionError, OverflowError, MemoryError) as problem:
    print(json.dumps(str(problem) or type(problem).__name__))
"""


def substitute(pattern: str, to: str, texts: Sequence[str]) -> list[str | None]:
    """``re.sub`` of every text; None where nothing of it fits.

    Raises:
        ValueError: no regular expression, no replacement for it, or more than ``SECONDS``; in words.
    """
    if len(pattern) > LONGEST:
        raise ValueError(f"it has {len(pattern)} characters, and may have {LONGEST}")
    given = json.dumps([pattern, to, list(texts)])
    # -I -S: nothing of the user's is imported; 0.02 s.
    command = [sys.executable, "-I", "-S", "-c", _CHILD]
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=SECONDS, check=True)
    except subprocess.TimeoutExpired as problem:
        told = f"it takes more than {SECONDS:g} seconds: write it without a repeat inside of a repeat"
        raise ValueError(told) from problem
    except (OSError, subprocess.CalledProcessError) as problem:
        raise ValueError(f"it cannot be run ({type(problem).__name__})") from problem
    found = json.loads(done.stdout)
    if isinstance(found, str):
        raise ValueError(found)
    made: list[str | None] = found
    return made
