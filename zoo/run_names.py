"""Names of training runs and of their files, made of specifications and labels."""

from __future__ import annotations

import hashlib
import re

LONGEST_NAME = 120
"""Characters of an operator's specification, or of a label, in the name of a run: file systems take 255 in all."""


def slug(text: str) -> str:
    """Text for a file name: ``soft(beta=4)`` -> ``soft-beta4``, ``tips(pool=phase)`` -> ``tips-phase``.

    A minus is written out, ``soft(-4)`` -> ``soft-minus4``, and a long text ends in a digest of the whole.
    """
    whole = text
    text = re.sub(r"(?<![\w.])-(?=[\d.i])", "minus", text)
    text = re.sub(r"(\w+)=true", r"\1", text, flags=re.IGNORECASE)
    text = re.sub(r"\w+=(?=[A-Za-z])", "", text)
    text = re.sub(r"[^\w.+]+", "-", text.replace("=", "")).strip("-")
    if len(text) <= LONGEST_NAME:
        return text
    return f"{text[:LONGEST_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
