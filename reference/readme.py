"""The first pages of summaries in README and the documents: verdict, headline figure and primary statements.

Run `python -m reference.readme docs/demo/summary.md docs/bundled-zoo.md --marker headline`: what stands between
`<!-- headline -->` and `<!-- /headline -->` is written anew, the links to files beside the summary with its folder.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from invariscope.base.errors import InputError
from invariscope.base.files import write_whole


def first_page(summary: str, folder: str) -> str:
    """What a summary shows before its first fold, without its title; images are sought in ``folder``."""
    page = summary.partition("<details>")[0].partition("\n")[2].strip()
    return re.sub(r"(!\[[^\]]*\]\()([^/)]+\))", rf"\g<1>{folder}/\g<2>", page)


def replace_between(text: str, content: str, marker: str) -> str:
    """``text`` with ``content``, between blank lines, in the place of what stands between the two ends of a marker.

    Raises:
        InputError: an end does not stand there once, or they stand the wrong way round.
    """
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise InputError(f"the text needs {begin} and after it {end}, once each, around what is to be replaced")
    head, _, rest = text.partition(begin)
    return f"{head}{begin}\n\n{content.strip()}\n\n{end}{rest.partition(end)[2]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite a part of a README; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reference.readme", description=__doc__)
    parser.add_argument("summary", type=Path, help="the summary, in a folder beside the README")
    parser.add_argument("readme", type=Path, help="the file with the markers")
    parser.add_argument("--marker", default="headline", help="which part")
    given = parser.parse_args(arguments)
    try:
        folder = Path(os.path.relpath(given.summary.parent, given.readme.parent)).as_posix()
        page = first_page(given.summary.read_text(encoding="utf-8"), folder)
        text = replace_between(given.readme.read_text(encoding="utf-8"), page, given.marker)
        write_whole(given.readme, text.encode())
    except (InputError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
