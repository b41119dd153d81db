"""Runs into one folder at once divide the tasks: who begins one claims it, and the others do something else meanwhile.

A claim is a file beside the tables, ``.claim-TASK``, that names its run; a run touches a file of its own, its pulse,
for as long as it lives. A claim holds while its run's pulse goes on: whatever ends a run ends its claims. Nothing
depends on clocks: a pulse is compared with what it was a while ago. Claims are advisory. Where one is overlooked a task
is measured twice, to the same part.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from invariscope.base.errors import OutputError
from invariscope.base.paths import unreadable
from invariscope.base.terminal import warn
from invariscope.base.words import counted
from invariscope.collectors.engine.planning import PlannedTask, Work
from invariscope.collectors.store.parts import Store, runs_here

EXPIRY = 60.0
"""Seconds after which a run is taken for dead whose pulse stands still."""

PATIENCE = 10.0
"""Seconds after which a run says that it waits for another."""

_PULSE = 5.0
"""Seconds between two beats."""

_LOOK = 0.2
"""Seconds between two looks at what another run is at."""

_PREFIX = ".claim-"

_LONGEST = 255
"""Characters of a claim that are read: the name of a file."""

_PULSES = re.compile(r"\.pulse\.[0-9a-f.]+\.tmp")


class TaskClaims:
    """The claims of one run, for the time of a ``with`` block; on file systems that are elsewhere there are none, and
    every task is free.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.folder
        self._pulse = Path(store.scratch("pulse"))
        self._stop = threading.Event()
        self._held: set[str] = set()
        self._seen: dict[str, tuple[int, float]] = {}
        self._others: dict[str, tuple[Work, PlannedTask]] = {}

    def __enter__(self) -> TaskClaims:
        if self._folder is not None:
            with self._store.writing(), self._store.lock("claims"):  # which is asked for again where a task is done
                self._pulse.touch()
            self._stop.clear()
            threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.release(set(self._held))
        if self._folder is not None:
            with suppress(OSError):
                self._pulse.unlink(missing_ok=True)

    def take(self, work: Work) -> Work | None:
        """What of a work's tasks is now this run's, or was before; none where others are at all of them, or were.

        Raises:
            OutputError: the folder cannot be written to.
        """
        mine = tuple(task for task in work.tasks if self._take(task))
        for task in mine:
            self._others.pop(task.key, None)  # another's before, that has died
        self._others |= {task.key: (work, task) for task in work.tasks if task not in mine}
        return replace(work, tasks=mine) if mine else None

    def sweep(self) -> None:
        """Remove the claims of runs of this machine that were killed; those of others are left to a run that waits for
        them.
        """
        for path in self._folder.glob(f"{_PREFIX}*") if self._folder is not None else ():
            with suppress(OutputError):  # who needs the task asks again
                self._freed(path)

    def release(self, keys: Iterable[str]) -> None:
        """Give claims back: the tasks are dealt with."""
        for key in self._held & set(keys):
            self._held.discard(key)
            path = self._path(key)
            with suppress(OSError, OutputError), self._store.lock("claims"):
                if path.read_text() == self._pulse.name:  # and not another run's, to whom this one seemed dead
                    path.unlink()

    def free(self) -> tuple[list[Work], list[Work]]:
        """Wait until something comes of what the others were at: tasks that are done, and tasks that are to do.

        Both empty where nothing is left.
        """
        since, told = time.monotonic(), False
        while self._others:
            there = {key for key in self._others if self._is_done(key)}
            open_ = {key for key in self._others.keys() - there if not self._is_claimed(key)}
            there |= {key for key in open_ if self._is_done(key)}  # written between the two looks
            if there or open_:
                return self._forget(there), self._forget(open_ - there)
            if not told and time.monotonic() - since > PATIENCE:
                told = True
                names = sorted({work.checkpoint.name for work, _ in self._others.values()})
                warn(
                    f"waiting for {counted(len(self._others), 'task')} that another run into this folder is at "
                    f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}): Ctrl-C leaves them to it"
                )
            time.sleep(_LOOK)
        return [], []

    def _forget(self, keys: set[str]) -> list[Work]:
        """These tasks as work, checkpoint by checkpoint; no longer of the others."""
        found: dict[tuple[str, str], Work] = {}
        for key in [key for key in self._others if key in keys]:
            work, task = self._others.pop(key)
            name = (work.checkpoint.name, work.sha256)
            before: Sequence[PlannedTask] = found[name].tasks if name in found else ()
            found[name] = replace(work, tasks=(*before, task))
        return list(found.values())

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{_PREFIX}{key}"

    def _take(self, task: PlannedTask) -> bool:
        if self._folder is None or task.key in self._held:
            return True
        path = self._path(task.key)
        while True:
            with self._store.writing():
                try:
                    file = open(path, "x")  # noqa: SIM115 - what cannot be written is removed below
                except FileExistsError:
                    if not self._freed(path):
                        return False
                    continue
                try:
                    with file:
                        file.write(self._pulse.name)
                except OSError:
                    with suppress(OSError):
                        path.unlink()
                    raise
                break
        self._held.add(task.key)
        if done := self._store.has_task(task.collector, task.slot, task.key):
            self.release({task.key})
        return not done

    def _is_done(self, key: str) -> bool:
        _, task = self._others[key]
        return self._store.has_task(task.collector, task.slot, key)

    def _is_claimed(self, key: str) -> bool:
        path = self._path(key)
        return path.exists() and not self._freed(path)

    def _freed(self, path: Path) -> bool:
        """Whether nobody holds a claim any more; one of a run that is dead is removed."""
        if kind := unreadable(path):
            raise OutputError(f"{path} is {kind}: move it away")
        with self._store.lock("claims"):
            try:
                if self._lives(path):
                    return False
                path.unlink(missing_ok=True)
            except FileNotFoundError:  # given back
                return True
            except OSError:
                return False
        return True

    def _lives(self, claim: Path) -> bool:
        """Whether the run goes on whose claim this is."""
        with claim.open(encoding="ascii", errors="replace") as file:
            name = file.read(_LONGEST)
        # Else its run has not come to say more, or the file is damaged.
        pulse = claim.with_name(name) if _PULSES.fullmatch(name) else claim
        if runs_here(pulse.name) is False:
            return False
        try:
            beat = pulse.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        last, since = self._seen.get(claim.name + name, (None, 0.0))
        if last != beat:
            self._seen[claim.name + name] = (beat, time.monotonic())
            return True
        return time.monotonic() - since < EXPIRY

    def _beat(self) -> None:
        while not self._stop.wait(_PULSE):
            with suppress(OSError):
                os.utime(self._pulse)
            if not self._pulse.exists() and not self._stop.is_set():
                with suppress(OSError):
                    self._pulse.touch()
