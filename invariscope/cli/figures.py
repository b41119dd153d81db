"""``figures``: the figures, and the tables of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from invariscope.base.errors import InputError
from invariscope.base.paths import folder_to_write
from invariscope.cli.common import DONE, draw_all, load_tables, names
from invariscope.cli.flags import CodeFlag
from invariscope.zoo.code_leave import refuse_code

PYTHON = "python:"


@dataclass(frozen=True)
class Figures(CodeFlag):
    """Draw the figures, and write the tables of the paper (CSV, Markdown and LaTeX), from the tables.

    Example: invariscope figures out/tables --out out/figures --only msb_invariance --x selectivity --hue padding_mode
    """

    tables: Positional[str]
    """Folder of tables, or its URI."""
    out: Path
    """Folder for the figures."""
    only: str | None = None
    """Names of figures and of tables of the paper, or python:FILE.py:NAME, a function of your own; all by default."""
    format: str = "png"
    """File formats of figures: png, pdf, svg."""
    x: Annotated[str | None, arg(aliases=["--reading"])] = None
    """What is drawn across, in the figures with a reading there: a reading of sites, for example selectivity or see, or
    a metric of the manifest."""
    score: Annotated[str | None, arg(aliases=["--y"])] = None
    """What is drawn up, in the figures with a score there: a score, for example fidelity, or a metric that is a
    share."""
    data: str | None = None
    """The data set that is drawn where the tables hold several; by default the one with most checkpoints."""
    hue: str | None = None
    """The factor of colours and markers in the figures of single checkpoints: any of the manifests; operator by
    default."""
    facet: str | None = None
    """The factor whose values have panels of their own in msb_invariance."""
    by: str | None = None
    """The factors that tell the rows of the paper's tables apart, the comparable ones last: architecture,operator."""
    width: Literal["double", "single"] = "double"
    """How wide: across a page of two columns, or one column."""
    keep_nondeterministic: bool = False
    """Take in networks that give other logits on a second pass or in other batches."""

    def run(self) -> int:
        """Draw and print the paths."""
        from invariscope.analysis.figures import FIGURES

        folder_to_write(self.out)
        only = names(self.only) if self.only else None
        own = [name for name in only or () if name.startswith(PYTHON)]
        refuse_code(own, self.allow_code)
        added: dict[str, str] = {}
        try:
            for name in own:
                added[name] = add_user_figure(name)
            chosen = None if only is None else [added.get(name, name) for name in only]
            tables = load_tables(self.tables, keep_nondeterministic=self.keep_nondeterministic)
            draw_all(
                tables,
                self.out,
                only=chosen,
                formats=names(self.format),
                reading=self.x,
                score=self.score,
                data=self.data,
                hue=self.hue,
                facet=self.facet,
                by=names(self.by) if self.by else None,
                width=self.width,
            )
        finally:
            for name in added.values():
                FIGURES.remove(name)
        return DONE


def add_user_figure(specification: str) -> str:
    """Run the file of ``python:FILE.py:NAME`` and register the figure; returns NAME.

    Raises:
        InputError: another form, a file that cannot be run, no such function, or a name that is taken.
    """
    from invariscope.analysis.figures import FIGURES
    from invariscope.zoo.user_code import find_code, load_user_object

    place, _, name = specification.removeprefix(PYTHON).rpartition(":")
    if not place or not name.isidentifier():
        raise InputError(f"{specification}: write {PYTHON}FILE.py:NAME, where NAME is a function of frames")
    FIGURES.add(name, load_user_object(find_code(place, Path.cwd()), name))
    return name
