"""What the commands share: exit codes, lists of names, and the steps that several of them take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import InputError
from invariscope.base.processes import stopped_by_signals
from invariscope.base.terminal import note, say, warn
from invariscope.base.words import counted

if TYPE_CHECKING:
    from invariscope.analysis import Frames, Results, Tables
    from invariscope.analysis.drawing import Drawn
    from invariscope.analysis.say.vocabulary import Vocabulary
    from invariscope.collectors.engine.run import CollectOutcome
    from invariscope.collectors.options import Options
    from invariscope.zoo.checkpoint import Checkpoint
    from invariscope.zoo.datasets.source import DataSource

DONE, BAD_INPUT, WITH_FAILURES, INTERRUPTED = 0, 2, 3, 130
"""Exit codes: all done; bad input (one line says what); done, but some tasks failed; stopped by Ctrl-C."""

SIGNALLED = 128
"""Plus the signal's number: the exit code of a command that SIGTERM or SIGHUP stopped."""


def names(text: str) -> tuple[str, ...]:
    """The names in a list; a comma in brackets, as in ``mix(0.5, soft(2, 2), avg)``, does not end one."""
    found, depth = [""], 0
    for sign in text:
        depth = max(depth + (sign == "(") - (sign == ")"), 0)
        if sign == "," and not depth:
            found.append("")
        else:
            found[-1] += sign
    return tuple(name.strip() for name in found if name.strip())


def at_least_one(option: str, value: int) -> int:
    """A count of an option; refuses one below 1."""
    if value < 1:
        raise InputError(f"{option} is {value}: give a whole number of at least 1")
    return value


def job_count(value: int, option: str = "--jobs") -> int:
    """A number of processes or threads; refuses more than a few for every core, which get into each other's way."""
    most = max(32, 4 * (os.cpu_count() or 1))
    if at_least_one(option, value) > most:
        raise InputError(f"{option} is {value}: take at most {most}, four for every core")
    return value


def run_collect(
    checkpoints: Sequence[Checkpoint], images: DataSource, out: Path | str, options: Options, **how: Any
) -> CollectOutcome:
    """Measure; where Ctrl-C, SIGTERM or SIGHUP stops it, say how to go on."""
    from invariscope.collectors.engine.run import collect

    try:
        with stopped_by_signals():
            return collect(checkpoints, images, out, options, **how)
    except KeyboardInterrupt:
        warn("", f"stopped: the parts in {out} are whole; the same command goes on from there")
        raise


def tell_outcome(outcome: CollectOutcome, out: Path | str) -> int:
    """Print what a run did and what failed; returns the exit code."""
    say(f"tables: {out} ({outcome.measured} tasks measured, {outcome.found} were done, {len(outcome.failures)} failed)")
    if outcome.damaged:
        warn(
            f"damaged: {counted(len(outcome.damaged), 'part')} set aside and measured again ({outcome.damaged[0]}; "
            f"see {out}/damaged and the log)"
        )
    if outcome.batch_sizes:
        name, size = next(iter(outcome.batch_sizes.items()))
        count = len(outcome.batch_sizes)
        warn(
            f"out of memory: measured {count} checkpoint{'s' * (count > 1)} in smaller batches ({name}: {size} images)"
        )
    if outcome.replaced:
        warn(f"other weights than before: the older rows of {_few(outcome.replaced)} were removed")
    if outcome.no_functions:
        warn(
            f"no function of the image: {', '.join(outcome.no_functions)}: other logits on a second pass or in other "
            "batches (deterministic = false in the tables; kept out of the statistics)"
        )
    if outcome.by_torch:
        name, reason = next(iter(sorted(outcome.by_torch.items())))
        warn(f"not run by openvino: {counted(len(outcome.by_torch), 'checkpoint')} ({name}: {reason})")
    for collector, count in outcome.older.items():
        warn(
            f"{collector}: {counted(count, 'task')} done before some of its readings were there, which are missing: "
            "collect into a new folder to have them"
        )
    for collector, remarks in outcome.remarks.items():
        warn(_remarked(collector, remarks))
    for failure in dict.fromkeys(map(str, outcome.failures)):  # a network that cannot be loaded fails in every task
        warn(f"failed: {failure}")
    return WITH_FAILURES if outcome.failures else DONE


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} others" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


NAMED = 8
"""Checkpoints that a line names at most."""


def _remarked(collector: str, remarks: dict[str, str]) -> str:
    """One line about the checkpoints of whose rows something must be said."""
    named = "; ".join(f"{name}: {remark}" for name, remark in sorted(remarks.items())[:NAMED])
    more = f"; and {len(remarks) - NAMED} others" if len(remarks) > NAMED else ""
    return f"{collector}: {counted(len(remarks), 'checkpoint')} not fully measured, kept out of means ({named}{more})"


def load_tables(folder: str, *, keep_nondeterministic: bool = False) -> Tables:
    """The tables of a folder; what is left out of them is said on stderr."""
    from invariscope.analysis import load

    tables = load(folder, keep_nondeterministic=keep_nondeterministic)
    for line in tables.notes:
        note(f"note: {line}")
    return tables


def run_analysis(
    tables: Tables | Frames,
    out: Path,
    *,
    with_power: bool = False,
    drawn: Drawn | None = None,
    every_pair: bool = False,
    rivals: str = "primary",
) -> Results:
    """Analyse tables, print verdict and headline, write the results with their headline figure: of those ``drawn``,
    where there are any. ``rivals`` as :func:`analyze` has it.
    """
    from invariscope.analysis import Frames, analyze_tables, write_results
    from invariscope.analysis.drawing import draw_headline
    from invariscope.analysis.figures import render
    from invariscope.analysis.say.power_findings import power_in_words
    from invariscope.analysis.say.vocabulary import first_measured, measured
    from invariscope.analysis.stats.power import power

    frames = Frames.of(tables)
    main, *others = measured(frames.tables) or [first_measured(frames.tables)]
    powers = power(frames[main.frame], score=main.score) if with_power else None
    results = analyze_tables(frames, main, power=powers, every_pair=every_pair, rivals=rivals)
    for line in [*results.headline, *([] if powers is None else power_in_words(powers))]:
        say(line)

    def figure_of(vocabulary: Vocabulary) -> bytes | None:
        found = draw_headline(frames, vocabulary, drawn)
        return render(found[1]) if found else None

    written = write_results(results, out, powers, figure=figure_of(main))
    for vocabulary in others:
        further = analyze_tables(frames, vocabulary, every_pair=every_pair, rivals=rivals)
        say(*further.headline)
        written += write_results(further, out / vocabulary.table, figure=figure_of(vocabulary))
    for path in written:
        say(f"results: {path}")
    return results


def draw_all(
    tables: Tables | Frames,
    out: Path,
    *,
    only: Sequence[str] | None = None,
    formats: Sequence[str] = ("png",),
    **choices: Any,
) -> None:
    """Draw the figures and the tables of the paper, write them, and print their paths; ``choices`` are those of
    :func:`draw_figures`.
    """
    from invariscope.analysis.drawing import draw_figures
    from invariscope.analysis.figures import known_formats

    known_formats(formats)
    write_drawn(draw_figures(tables, only, **choices), out, formats, asked=only is not None)


def write_drawn(drawn: Drawn, out: Path, formats: Sequence[str] = ("png",), *, asked: bool = False) -> None:
    """Write what was drawn, and print the paths and what was skipped: even with ``--quiet`` what was ``asked`` for."""
    names: dict[str, list[str]] = {}
    for name, reason in drawn.reasons.items() if drawn.figures or drawn.tables else ():  # else `write` says why
        names.setdefault(reason, []).append(name)
    for reason, skipped in names.items():
        (warn if asked else note)(f"skipped {', '.join(skipped)}: {reason}")
    for choice, ignoring in drawn.ignored.items():
        made = [name for name in ignoring if name not in drawn.reasons]
        if made:
            note(f"made as ever, since they have no choice of --{choice}: {', '.join(made)}")
    for path in drawn.write(out, formats):
        say(f"{'table' if path.stem in drawn.tables else 'figure'}: {path}")


def write_page(tables: Tables | Frames, out: Path, **given: Any) -> None:
    """Write the report and print its path; what is ``given`` is that of :func:`write_report`."""
    from invariscope.analysis.report import write_report

    say(f"report: {write_report(tables, out, **given)}")
