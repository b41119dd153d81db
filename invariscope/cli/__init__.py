"""The command line of invariscope: trained checkpoints -> parquet tables -> correlations -> figures and a report."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from functools import reduce
from operator import or_
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, arg, subcommand

from invariscope.base.errors import InputError, OutputError, is_memory
from invariscope.base.extras import needs_extras
from invariscope.base.names import unknown
from invariscope.base.processes import Stopped, is_asked_for, no_end_by_code
from invariscope.base.terminal import letting_go, one_line_of, say, warn, with_streams
from invariscope.cli import collect
from invariscope.cli.analyze import Analyze
from invariscope.cli.collect import Collect
from invariscope.cli.common import BAD_INPUT, DONE, INTERRUPTED, SIGNALLED, WITH_FAILURES
from invariscope.cli.compact import Compact
from invariscope.cli.demo import Demo
from invariscope.cli.draw import Draw
from invariscope.cli.export import Export
from invariscope.cli.figures import Figures
from invariscope.cli.flags import FlagError, list_rules, with_groups
from invariscope.cli.look import Look
from invariscope.cli.operators import Operators
from invariscope.cli.packing import Pack, Unpack
from invariscope.cli.prune import Prune
from invariscope.cli.report import Report
from invariscope.cli.sites import Sites
from invariscope.cli.status import Status
from invariscope.cli.telling import GROUP, TellingFlags, told
from invariscope.cli.train import Train
from invariscope.cli.verify import Verify

__all__ = ["BAD_INPUT", "COMMANDS", "DONE", "INTERRUPTED", "WITH_FAILURES", "main", "parse"]


COMMANDS = {
    "demo": Demo,
    "draw": Draw,
    "train": Train,
    "operators": Operators,
    "sites": Sites,
    "look": Look,
    "collect": Collect,
    "status": Status,
    "pack": Pack,
    "unpack": Unpack,
    "verify": Verify,
    "compact": Compact,
    "prune": Prune,
    "analyze": Analyze,
    "figures": Figures,
    "report": Report,
    "export": Export,
}
"""The commands by name, in the order of the help."""


def _commands() -> Any:
    """The commands as one type, made when it is wanted: ``collect`` has the options of whatever is registered."""
    made = {**COMMANDS, "collect": collect.command()}
    made = {name: with_groups(command, {GROUP: TellingFlags}) for name, command in made.items()}
    every = reduce(or_, (Annotated[command, subcommand(name)] for name, command in made.items()))
    return Annotated[every, OmitArgPrefixes, arg(name="")]


def _description() -> str:
    from invariscope.analysis.exports import EXPORTERS
    from invariscope.analysis.figures import FIGURES
    from invariscope.analysis.publication import PAPER_TABLES
    from invariscope.collectors.schema import COLLECTORS, SHIFT_KINDS
    from invariscope.zoo.architectures import ARCHITECTURES
    from invariscope.zoo.datasets import DATASETS
    from invariscope.zoo.operators import OPERATORS

    known = {
        "Operators": OPERATORS,
        "Architectures": ARCHITECTURES,
        "Data sets": DATASETS,
        "Collectors": COLLECTORS,
        "Shift kinds": SHIFT_KINDS,
        "Figures": FIGURES,
        "Tables of the paper": PAPER_TABLES,
        "Exporters": EXPORTERS,
    }
    about = "`invariscope --version` prints the version."
    return "\n\n".join([__doc__ or "", about, *(f"{title}: {', '.join(names)}." for title, names in known.items())])


def parse(arguments: Sequence[str] | None = None) -> Any:
    """The command that the arguments ask for; exits with code 2 where they ask for none.

    Raises:
        InputError: a list that cannot be read.
    """
    import tyro

    told = io.StringIO()
    try:
        made, description = _commands(), _description()
        with redirect_stderr(told):
            return tyro.cli(made, prog="invariscope", description=description, args=arguments, registry=list_rules())
    except FlagError as error:
        raise InputError(str(error)) from error
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_unboxed(told.getvalue(), arguments)) from None


_RULE = re.compile("[\u2500-\u257f]{8,}|-{8,}")
_BOX = re.compile("[\u2500-\u257f]+")


def _unboxed(told: str, arguments: Sequence[str] | None) -> str:
    """What the parser says in a box, in one line: what it does not know first, then what it misses."""
    parts: list[list[str]] = [[]]
    for line in re.sub("\x1b\\[[0-9;]*m", "", told).splitlines():
        if _RULE.search(line):
            parts.append([])
        elif text := _BOX.sub(" ", line).strip(" |"):
            parts[-1].append(text)
    said = [" ".join(part).removeprefix("Error parsing ").rstrip(" .") for part in parts[1:] if part]  # after the title
    said = [part for part in said if not part.startswith(("For full helptext", "Argument helptext"))]
    said.sort(key=lambda part: not part.startswith("Unrecognized"))
    command = next((name for name in arguments or () if name in COMMANDS), "")
    return f"{'; '.join(said)}: see `invariscope {f'{command} ' if command else ''}--help`"


def _run(command: Any) -> int:
    """A command's exit code.

    Raises:
        InputError: Python of the user's asked for the end of the process: what was asked for is not done.
    """
    try:
        with no_end_by_code():
            try:
                code: int = command.run()
            except KeyboardInterrupt as stop:
                if is_asked_for(stop):
                    raise
                raise InputError(
                    "Python that was run raised KeyboardInterrupt before the command was done: mend it"
                ) from stop
    except SystemExit as stop:
        raise InputError(
            f"Python that was run asked to end with exit({stop.code!r}) before the command was done: mend it"
        ) from stop
    except Exception as error:
        if is_memory(error):
            raise InputError(
                f"memory ran out ({one_line_of(error)[:200]}): take less at once, or more memory"
            ) from error
        raise
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    with_streams()
    try:
        try:
            return _main(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            with letting_go(sys.stdout):
                sys.stdout.flush()  # here and not at the end of the process, which could not say what is wrong
    except OutputError as error:
        warn(f"invariscope: {one_line_of(error)}")
        return BAD_INPUT


def _main(given: list[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a file or pipe of Windows has no such sign as ≤
    try:
        if given == ["--version"]:
            import invariscope

            say(f"invariscope {invariscope.__version__}")
            return DONE
        if given and not given[0].startswith("-") and given[0] not in COMMANDS:
            raise InputError(unknown("command", given[0], COMMANDS))
        command = parse(given)
        with told(getattr(command, GROUP, TellingFlags())), needs_extras(given[0] if given else "invariscope"):
            return _run(command)
    except InputError as error:
        warn(f"invariscope: {one_line_of(error)}")
        return BAD_INPUT
    except Stopped as stop:
        return SIGNALLED + stop.number
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # of the help, whose reader has gone
        return DONE
