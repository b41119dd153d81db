"""The first page of README: verdict, headline figure and primary statements of a folder of tables.

Run `python -m reference.readme TABLES README.md --figure docs/demo/msb_invariance.png [--power]`: what stands between
`<!-- headline -->` and `<!-- /headline -->` is written anew, from the tables alone. `--power` simulates how many
operators it takes, as `analyze --power` does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from invariscope.analysis import Frames, Tables, analyze_tables, load
from invariscope.analysis.say.opening import Opening
from invariscope.analysis.say.vocabulary import first_measured
from invariscope.analysis.stats.power import power
from invariscope.base.errors import TableError
from invariscope.base.files import write_whole

BEGIN, END = "<!-- headline -->", "<!-- /headline -->"


def opening_of_tables(tables: Tables, *, with_power: bool = False) -> Opening:
    """The first page that `analyze` gives these tables."""
    frames = Frames(tables)
    vocabulary = first_measured(tables)
    powers = power(frames[vocabulary.frame], score=vocabulary.score) if with_power else None
    return analyze_tables(frames, vocabulary, power=powers).opening


def replace_between(text: str, content: str, begin: str = BEGIN, end: str = END) -> str:
    """``text`` with ``content``, between blank lines, in the place of what stands between two markers.

    Raises:
        TableError: a marker does not stand there once, or they stand the wrong way round.
    """
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise TableError(f"the text needs {begin} and after it {end}, once each, around what is to be replaced")
    head, _, rest = text.partition(begin)
    return f"{head}{begin}\n\n{content.strip()}\n\n{end}{rest.partition(end)[2]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the headline of a README; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reference.readme", description=__doc__)
    parser.add_argument("tables", help="folder of tables")
    parser.add_argument("readme", type=Path, help="the file with the markers")
    parser.add_argument("--figure", help="path of the headline figure, as the file is to link it")
    parser.add_argument("--power", action="store_true", help="simulate how many operators it takes")
    given = parser.parse_args(arguments)
    try:
        text = given.readme.read_text(encoding="utf-8")
        replace_between(text, "")  # before the minutes of the analysis
        opening = opening_of_tables(load(given.tables), with_power=given.power)
        write_whole(given.readme, replace_between(text, opening.markdown(given.figure)).encode())
    except (TableError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
