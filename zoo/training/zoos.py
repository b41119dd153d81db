"""From a recipe to a zoo: which runs are to do, their files, and the manifest."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import joblib
import torch
from joblib.externals.loky.process_executor import BrokenProcessPool
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from invariscope.base.errors import OutputError, RecipeError
from invariscope.base.files import sha256_file, write_atomic, writing_to
from invariscope.base.flushing import make_folder
from invariscope.base.former import FORMER_NAME
from invariscope.base.paths import unreadable
from invariscope.base.processes import end_with, stopped_by_signals
from invariscope.base.progress import bar
from invariscope.base.registry import add_all, added
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.imageset import ImageSet
from invariscope.zoo.devices import check_device
from invariscope.zoo.loading import build_model
from invariscope.zoo.manifest import FILE_NAME, read_manifest, write_manifest
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.operators import OperatorSpec
from invariscope.zoo.recipe import read_recipe
from invariscope.zoo.run import CODE, LATER, Run
from invariscope.zoo.training.apart import each_apart
from invariscope.zoo.training.factors import run_factors, told_settings
from invariscope.zoo.training.local_files import keep_code, kept_model, located
from invariscope.zoo.training.state import StateError, restore_state, save_state
from invariscope.zoo.training.tasks import task_of
from invariscope.zoo.training.trainer import DivergedError, Trainer, input_spec, reproducible
from invariscope.zoo.user_code import has_run

METADATA_KEY = "invariscope"
"""The one metadata key of every weights file; several would make the file's hash irreproducible."""


_CODE_AND_DATA = ("data_fingerprint", "operator_code", "architecture_code")
"""What weights follow from beside the settings of their run."""


@dataclass(frozen=True)
class TrainReport:
    """What :func:`train_recipe` did: ids of runs trained and skipped, and ``(id, error)`` of those that failed.

    ``notes``: a line for each state of an interrupted run that could not be used.
    """

    trained: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    manifest: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conditions:
    """Where and how runs are trained; their weights depend on the first two in the last digits.

    Attributes:
        device: ``cpu``, ``cuda`` or ``mps``.
        threads: of one run.
        save_every: seconds after which the state of a run is kept at the end of an epoch, beside its snapshots.
    """

    device: str = "cpu"
    threads: int = 1
    save_every: float = 60.0


def train_recipe(
    recipe: str | Path | Sequence[Run],
    out: str | Path,
    jobs: int = 1,
    progress: bool = True,
    conditions: Conditions | None = None,
    allow_code: bool = False,
    only: str = "*",
) -> TrainReport:
    """Train what a recipe asks for and ``out`` does not hold yet, and write ``out/zoo.yaml``.

    A run is finished when all its files are there with the settings and the data of the recipe. A run in progress
    keeps its state in ``out/.RUN.training``, from which the same call goes on after an interruption, to the same
    weights; a state that is damaged or of other settings is noted and the run starts anew. A run that diverges is
    reported and the others go on. Where Python of the user's has run or is to, each run has a process of its own: what
    that does to torch is in no other run. Entries of other recipes in ``zoo.yaml`` stay. The weights do not depend on
    ``jobs``. SIGTERM and SIGHUP end it as Ctrl-C does; its workers end with it, however it ends.

    Args:
        recipe: path of a recipe, or runs.
        out: folder of the zoo, made where it is missing.
        jobs: processes, each with one run at a time.
        progress: show a bar over the runs on standard error, when that is a terminal.
        conditions: device, threads of a run, and how often its state is kept.
        allow_code: run the Python files that a recipe names; those of ``runs``, which the caller made, always do.
        only: a pattern; runs of other names are not trained. Finished ones stay in ``zoo.yaml``.

    Raises:
        RecipeError: for a recipe that is wrong, a pattern that no run has, or a file in ``out`` of the same name with
            other settings.
        InputError: for data that cannot be loaded, a network that cannot be built, or a broken ``zoo.yaml``.
        OutputError: ``out`` cannot be written to, or its disk is full; what is there is whole, and is gone on from.
        Stopped: a signal asked for the end.
    """
    runs = list(recipe) if isinstance(recipe, Sequence) and not isinstance(recipe, str) else None
    runs = read_recipe(recipe, allow_code=allow_code) if runs is None else runs  # type: ignore[arg-type]
    out = Path(out)
    conditions = conditions or Conditions()
    check_device(conditions.device)
    _check_models(runs)
    if not any(fnmatchcase(run.id, only) for run in runs):
        raise RecipeError(f"no run is called {only}: there are {_few_names(runs)}")
    try:
        make_folder(out)
    except OSError as problem:
        raise RecipeError(f"{out}: cannot make this folder ({problem.strerror}): name another --out") from problem
    for path in (out / FILE_NAME, *(path for run in runs for path in _files(out, run))):
        if kind := unreadable(path):
            raise OutputError(f"{path} is {kind}: move it away, or name another --out")
    with writing_to(out):
        code = keep_code(runs, out)
    others = _entries_of_others(out, runs)
    finished = {run.id for run in runs if _is_finished(run, out)}
    for run in runs:
        if run.id in finished:  # killed between its last weights and the removal of its state
            _state_file(out, run).unlink(missing_ok=True)
    todo = [run for run in runs if run.id not in finished and fnmatchcase(run.id, only)]
    trained: list[str] = []
    failed: list[tuple[str, str]] = []
    notes: list[str] = []
    try:
        with (
            stopped_by_signals(),
            closing(_train_all(todo, out, jobs, conditions)) as results,
            bar("train", len(todo), progress, "run") as step,
        ):
            for run, error, note in results:
                step()
                notes += [note] if note else []
                if error is None:
                    trained.append(run.id)
                    finished.add(run.id)
                else:
                    failed.append((run.id, error))
    finally:
        told = told_settings(runs)
        entries = [entry for run in runs if run.id in finished for entry in _entries(run, told, out, code)]
        with writing_to(out):
            if others or entries:
                write_manifest(out / FILE_NAME, [*others, *entries])
            else:  # a manifest of nothing could not be read
                (out / FILE_NAME).unlink(missing_ok=True)
    skipped = tuple(run.id for run in runs if run.id in finished and run.id not in trained)
    return TrainReport(tuple(trained), skipped, tuple(failed), out / FILE_NAME, tuple(notes))


def _few_names(runs: Sequence[Run]) -> str:
    more = f" and {len(runs) - 3} others" if len(runs) > 3 else ""
    return ", ".join(run.id for run in runs[:3]) + more


def _train_all(
    runs: Sequence[Run], out: Path, jobs: int, conditions: Conditions
) -> Generator[tuple[Run, str | None, str | None], None, None]:
    apart = has_run() or any(_is_code(run) for run in runs)
    if jobs == 1 and not apart:
        yield from (_train_one(run, out, conditions) for run in runs)
        return
    parallel, names = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered"), added()
    work = [(_train_in_worker, os.getpid(), names, run, out, conditions) for run in runs]
    try:
        results = each_apart(work, jobs) if apart else parallel(joblib.delayed(do)(*of) for do, *of in work)
        with closing(results):
            yield from results
    except BrokenProcessPool as problem:
        raise OutputError(
            f"{out}: a worker process was killed, as for want of memory; what is there is whole: train again, with "
            "fewer --jobs"
        ) from problem


def _is_code(run: Run) -> bool:
    """Whether a run loads Python of the user's."""
    return bool(_network(run).files(run.folder)) or run.data.startswith(CODE)


def _train_in_worker(
    parent: int, names: Mapping[str, Mapping[str, Any]], run: Run, out: Path, conditions: Conditions
) -> tuple[Run, str | None, str | None]:
    """:func:`_train_one` in another process, with what was registered at run time in this one."""
    end_with(parent)
    add_all(names)
    return _train_one(run, out, conditions)


def _train_one(run: Run, out: Path, conditions: Conditions) -> tuple[Run, str | None, str | None]:
    """Train a run and write its files; the error's line where it diverged, and a note on a state of no use."""
    images, file = _training_images(run), _state_file(out, run)
    settings = _settings(run)
    # Bits depend on these as well: a state is of use under the same alone.
    origin = {**settings, "torch": torch.__version__, "device": conditions.device, "threads": conditions.threads}
    with reproducible(run.seed, conditions.device, conditions.threads):
        trainer, note = _started(run, images, conditions.device, out, origin)
        saved = time.monotonic()
        try:
            for epoch in trainer.epochs():
                wanted = epoch.number in run.snapshot_epochs
                if wanted:
                    device = {} if conditions.device == "cpu" else {"device": conditions.device}
                    metadata = {**settings, **device, "epoch": epoch.number, "loss": epoch.loss}
                    content = save(trainer.weights(), {METADATA_KEY: json.dumps(metadata, sort_keys=True)})
                    with writing_to(out):
                        write_atomic(_file(out, run, epoch.number), content)
                if epoch.number < run.epochs and (wanted or time.monotonic() - saved >= conditions.save_every):
                    with writing_to(out):
                        save_state(trainer, file, origin)
                    saved = time.monotonic()
        except DivergedError as problem:
            for written in (*(_file(out, run, epoch) for epoch in run.snapshot_epochs), file):
                written.unlink(missing_ok=True)
            return run, str(problem), note
    file.unlink(missing_ok=True)
    return run, None, note


def _started(
    run: Run, images: ImageSet, device: str, out: Path, origin: Mapping[str, Any]
) -> tuple[Trainer, str | None]:
    """A trainer at the state of an interrupted run, or at the start; and why a state that is there was of no use."""
    file = _state_file(out, run)
    trainer = Trainer(run, images, device)
    if not file.exists():
        return trainer, None
    try:
        restore_state(trainer, file, origin)
        if not all(_file(out, run, epoch).exists() for epoch in run.snapshot_epochs if epoch <= trainer.done):
            raise StateError("a snapshot from before it is gone")
    except StateError as problem:
        torch.manual_seed(run.seed)
        return Trainer(run, images, device), f"{file} was not used, {run.id} starts anew: {problem}"
    return trainer, None


def _training_images(run: Run) -> ImageSet:
    return _load(located(run.data, run.folder), run.limit or None)


@functools.cache
def _load(data: str, limit: int | None) -> ImageSet:
    return load_dataset(data, split="train", limit=limit, allow_code=True)  # runs were read with leave


def _settings(run: Run) -> dict[str, Any]:
    """What the weights follow from, as it stands in the metadata of their files."""
    code = run.operator.code_sha256 if isinstance(run.operator, OperatorSpec) else None
    settings = {"run": run.settings, "data_fingerprint": _training_images(run).fingerprint}
    if run.architecture_file is not None:
        settings["architecture_code"] = sha256_file(run.architecture_file)
    return settings if code is None else {**settings, "operator_code": code}


def _file(out: Path, run: Run, epoch: int) -> Path:
    return out / f"{run.snapshot_name(epoch)}.safetensors"


def _files(out: Path, run: Run) -> Iterator[Path]:
    """What a run writes."""
    yield from (_file(out, run, epoch) for epoch in run.snapshot_epochs)
    yield _state_file(out, run)


def _state_file(out: Path, run: Run) -> Path:
    """Where a run in progress keeps its state."""
    return out / f".{run.id}.training"


def _is_finished(run: Run, out: Path) -> bool:
    """Whether all files of a run are there; refuses one that was trained with other settings."""
    wanted = _settings(run)
    files = [file for file in (_file(out, run, epoch) for epoch in run.snapshot_epochs) if file.exists()]
    for file in files:
        try:
            with safe_open(file, "pt") as content:
                metadata = content.metadata() or {}
                found = json.loads(metadata.get(METADATA_KEY) or metadata.get(FORMER_NAME, "{}"))
            if not isinstance(found, dict) or not isinstance(found.get("run", {}), dict):
                raise ValueError("its metadata are no settings of a run")
        except (SafetensorError, OSError, ValueError) as problem:
            raise RecipeError(f"{file} is no whole weights file ({problem}): delete it to train it again") from problem
        differing = _differences(wanted, found)
        if differing:
            raise RecipeError(
                f"{file} was trained with other settings ({', '.join(differing)}): delete it or take another folder"
            )
    return len(files) == len(run.snapshot_epochs)


def _differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    wanted_run, run = LATER | wanted["run"], LATER | found.get("run", {})
    names = [name for name, value in wanted_run.items() if name not in run or run[name] != value]
    return names + [name for name in _CODE_AND_DATA if found.get(name) != wanted.get(name)]


def _network(run: Run, evaluate_as: OperatorSpec | str | None = None, folder: Path | None = None) -> ModelString:
    images = _training_images(run)
    return run.network(images.pixels().shape[1], task_of(run, images).outputs, evaluate_as, folder)


def _check_models(runs: Sequence[Run]) -> None:
    """Build every network, and those that are to be evaluated with the weights of another."""
    with torch.random.fork_rng(devices=[]):
        networks = {(str(network), run.folder): network for run in runs for network in (_network(run),)}
        for (_, folder), network in networks.items():
            build_model(network, folder)
        pairs = ((_network(run), _network(run, other), run.folder) for run in runs for other in run.evaluate_as)
        for trained, other, folder in {(str(pair[0]), str(pair[1])): pair for pair in pairs}.values():
            if _shapes(trained, folder) != _shapes(other, folder):
                raise RecipeError(f"evaluate_as: the weights of {trained} do not fit {other}: leave that operator out")


def _shapes(model: ModelString, folder: Path | None) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in build_model(model, folder).state_dict().items()}


def _entries(run: Run, told: Sequence[str], out: Path, code: Mapping[str, str]) -> list[Checkpoint]:
    """The manifest entries of a finished run."""
    images = _training_images(run)
    return [
        Checkpoint(
            name=run.snapshot_name(epoch, other),
            model=kept_model(str(_network(run, other, out)), code),
            weights=_file(out, run, epoch),
            input=input_spec(images),
            labels=images.name.partition("/")[0],
            factors={**run_factors(run, other or run.operator, told), "epoch": epoch},
            folder=out,
        )
        for epoch in run.snapshot_epochs
        for other in (None, *run.evaluate_as)
    ]


def _entries_of_others(out: Path, runs: Sequence[Run]) -> list[Checkpoint]:
    """Entries of an existing manifest that this recipe does not make, and whose weights are there."""
    if not (out / FILE_NAME).exists():
        return []
    files = {_file(out, run, epoch).resolve() for run in runs for epoch in run.snapshot_epochs}
    entries = read_manifest(out, missing_weights=True, operators=False, allow_outside=True, listed=True)
    return [entry for entry in entries if entry.weights.resolve() not in files and entry.weights.exists()]
