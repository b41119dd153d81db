"""Runs bad inputs one by one: a process that has imported everything forks, each child has bounds of its own.

``python runner.py CASE ...`` runs those of :data:`cases.CASES` whose numbers are given, and prints a line
of JSON for each.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

SECONDS, BYTES = 10, 3 << 29
"""A case may take so long, and hold so much memory (1.5 GiB)."""

SLACK = 1 << 31
"""Address space beyond what the imports take: what is asked for and not used is no memory."""


LIGHT = """
torch safetensors.torch pandas pyarrow.dataset sklearn.datasets invariscope.cli invariscope.collectors.engine.run
invariscope.zoo.training invariscope.zoo.packs invariscope.zoo.recipe_drawing invariscope.zoo.sites
invariscope.collectors.store.compaction invariscope.collectors.store.pruning cases judge makers makers_binary
"""

HEAVY = "scipy.stats matplotlib.pyplot seaborn statsmodels.api invariscope.analysis.report invariscope.looking.look"


def warm(names: str) -> None:
    """Import what the commands import."""
    sys.path.insert(0, str(Path(__file__).parent))
    for name in names.split():
        importlib.import_module(name)
    from invariscope import cli

    with contextlib.redirect_stderr(io.StringIO()):
        for command in ("collect", "train", "report"):  # the parser keeps what it reads from the commands' sources
            cli.main([command, "--no-such"])


def forked(act, here: Path, bounded: bool = True, patience: int = 3 * SECONDS) -> dict:
    """What ``act`` printed and how it ended, in a process of its own whose working folder is ``here``."""
    out, err = here.with_suffix(".out"), here.with_suffix(".err")
    began = time.monotonic()
    child = os.fork()
    if not child:
        code = 99
        try:
            os.chdir(here)
            os.setsid()
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            if bounded:
                pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
                with contextlib.suppress(ValueError, OSError):
                    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SLACK,) * 2)
                resource.setrlimit(resource.RLIMIT_CPU, (patience // 3 + 2,) * 2)
                signal.alarm(patience)
            code = act() or 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = 98
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code & 0xFF)
    _, status, usage = os.wait4(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it left behind
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "code": os.waitstatus_to_exitcode(status),
        "out": out.read_bytes().decode(errors="backslashreplace"),
        "err": err.read_bytes().decode(errors="backslashreplace"),
        "seconds": time.monotonic() - began,
        "cpu": usage.ru_utime + usage.ru_stime,
        "bytes": usage.ru_maxrss * unit,
    }


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder, with a digest of what is there."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in folders:
            found[os.path.relpath(os.path.join(root, name), folder)] = "folder"
        for name in files:
            path = Path(root, name)
            regular = path.is_file() and not path.is_symlink()
            size = path.stat().st_size if regular else 0
            digest = "other" if not regular else f"{size}"
            if regular and size < 1 << 26:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[os.path.relpath(path, folder)] = digest
    return found


def run(case, number: int, base: Path, root: Path) -> dict:
    """Make a case's input, run its command, and say how it ended and what it changed."""
    import judge
    import makers

    from invariscope import cli

    here = root / f"case{number}"
    here.mkdir()
    made = forked(lambda: makers.make(case.make, here, base), here, bounded=False)
    if made["code"]:
        raise SystemExit(f"{case.make}: {made['err']}")
    before = tree(here)
    command = [text.replace("{here}", str(here)) for text in shlex.split(case.command)]
    command = [makers.TEXTS.get(text, text) for text in command]
    found = forked(lambda: cli.main(command), here, patience=9 * SECONDS if case.kind == "name" else 3 * SECONDS)
    after = tree(here)
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    written = judge.markup(here) if case.kind == "name" else []
    shutil.rmtree(here, ignore_errors=True)
    return {"number": number, **found, "changed": changed, "markup": written}


def chosen(cases: list, wanted: list[str]) -> list[int]:
    """The numbers of the cases that are wanted: ``quick``, ``full PART PARTS``, or as they are given."""
    if wanted == ["quick"]:
        return [number for number, case in enumerate(cases) if case.quick]
    if wanted[0] == "full":
        return list(range(int(wanted[1]), len(cases), int(wanted[2])))
    return list(map(int, wanted))


def main(wanted: list[str]) -> None:
    """Run cases, and print a line of JSON for each."""
    warm(LIGHT if wanted == ["quick"] else LIGHT + HEAVY)
    import judge
    import makers
    from cases import CASES

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        base = root / "base"
        base.mkdir()
        made = forked(lambda: makers.make_base(base), base, bounded=False)
        if made["code"]:
            raise SystemExit(f"the good input could not be made: {made['err']}")
        for number in chosen(CASES, wanted):
            case = CASES[number]
            found = run(case, number, base, root)
            told = {
                "case": f"{case.kind} | {case.make} | {case.command}",
                "kind": case.kind,
                "said": found["out"] + found["err"],
            }
            sys.stdout.write(json.dumps({**found, **told, "problems": judge.problems(case, found)}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
