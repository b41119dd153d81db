"""From a recipe to a zoo: which runs are to do, their files, and the manifest."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tqdm import tqdm

from zoo.datasets import load_dataset
from zoo.datasets.imageset import ImageSet
from zoo.errors import RecipeError
from zoo.files import write_atomic
from zoo.loading import build_model
from zoo.manifest import FILE_NAME, Checkpoint, read_manifest, write_manifest
from zoo.recipe import LATER, Run, operator_factors, read_recipe
from zoo.training.tasks import task_of
from zoo.training.trainer import DivergedError, input_spec, train_run

METADATA_KEY = "shiftscope"
"""The one metadata key of every weights file; several would make the file's hash irreproducible."""


@dataclass(frozen=True)
class TrainReport:
    """What :func:`train_recipe` did: ids of runs trained and skipped, and ``(id, error)`` of those that failed."""

    trained: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    manifest: Path


def train_recipe(
    recipe: str | Path | Sequence[Run], out: str | Path, jobs: int = 1, progress: bool = True
) -> TrainReport:
    """Train what a recipe asks for and ``out`` does not hold yet, and write ``out/zoo.yaml``.

    A run is finished when all its files are there with the settings and the data of the recipe; each run is
    written when it ends, so that an interrupted training goes on where it stopped. A run that diverges is
    reported and the others go on. Entries of other recipes in ``zoo.yaml`` stay. The weights do not depend on ``jobs``.

    Args:
        recipe: path of a recipe, or runs.
        out: folder of the zoo, made where it is missing.
        jobs: processes, each of one thread.
        progress: show a bar over the runs on standard error, when that is a terminal.

    Raises:
        RecipeError: for a recipe that is wrong, or a file in ``out`` of the same name with other settings.
        InputError: for data that cannot be loaded, a network that cannot be built, or a broken ``zoo.yaml``.
    """
    runs = list(recipe) if isinstance(recipe, Sequence) and not isinstance(recipe, str) else read_recipe(recipe)
    out = Path(out)
    with torch.random.fork_rng(devices=[]):
        for model in dict.fromkeys(_model_string(run) for run in runs):
            build_model(model)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise RecipeError(f"{out}: cannot make this folder ({problem.strerror}): name another --out") from problem
    others = _entries_of_others(out, runs)
    finished = {run.id for run in runs if _is_finished(run, out)}
    todo = [run for run in runs if run.id not in finished]
    trained: list[str] = []
    failed: list[tuple[str, str]] = []
    try:
        for run, error in tqdm(
            _train_all(todo, out, jobs), total=len(todo), unit="run", disable=None if progress else True
        ):
            if error is None:
                trained.append(run.id)
                finished.add(run.id)
            else:
                failed.append((run.id, error))
    finally:
        entries = [entry for run in runs if run.id in finished for entry in _entries(run, out)]
        write_manifest(out / FILE_NAME, [*others, *entries])
    skipped = tuple(run.id for run in runs if run.id in finished and run.id not in trained)
    return TrainReport(tuple(trained), skipped, tuple(failed), out / FILE_NAME)


def _train_all(runs: Sequence[Run], out: Path, jobs: int) -> Iterator[tuple[Run, str | None]]:
    if jobs == 1:
        return (_train_one(run, out) for run in runs)
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    return parallel(joblib.delayed(_train_one)(run, out) for run in runs)


def _train_one(run: Run, out: Path) -> tuple[Run, str | None]:
    """Train a run and write its files; the error's line where it diverged."""
    try:
        snapshots = train_run(run, _training_images(run))
    except DivergedError as problem:
        return run, str(problem)
    for snapshot in snapshots:
        metadata = {**_settings(run), "epoch": snapshot.epoch, "loss": snapshot.loss}
        content = save(snapshot.state, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})
        write_atomic(_file(out, run, snapshot.epoch), content)
    return run, None


def _training_images(run: Run) -> ImageSet:
    return _load(run.data, run.limit or None)


@functools.cache
def _load(data: str, limit: int | None) -> ImageSet:
    return load_dataset(data, split="train", limit=limit)


def _settings(run: Run) -> dict[str, Any]:
    """What the weights follow from, as it stands in the metadata of their files."""
    return {"run": run.settings, "data_fingerprint": _training_images(run).fingerprint}


def _file(out: Path, run: Run, epoch: int) -> Path:
    return out / f"{run.snapshot_name(epoch)}.safetensors"


def _is_finished(run: Run, out: Path) -> bool:
    """Whether all files of a run are there; refuses one that was trained with other settings."""
    wanted = _settings(run)
    files = [file for file in (_file(out, run, epoch) for epoch in run.snapshot_epochs) if file.exists()]
    for file in files:
        try:
            with safe_open(file, "pt") as content:
                found = json.loads((content.metadata() or {}).get(METADATA_KEY, "{}"))
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
    if found.get("data_fingerprint") != wanted["data_fingerprint"]:
        names.append("data_fingerprint")
    return names


def _model_string(run: Run) -> str:
    images = _training_images(run)
    return run.model_string(images.images.shape[1], task_of(run, images).outputs)


def _entries(run: Run, out: Path) -> list[Checkpoint]:
    """The manifest entries of a finished run."""
    images = _training_images(run)
    factors = {
        **operator_factors(run.operator),
        "architecture": run.architecture,
        "padding_mode": run.padding_mode,
        "training_data": run.data,
        "seed": run.seed,
        "run": run.id,
    }
    factors = {name: value for name, value in factors.items() if value is not None}
    return [
        Checkpoint(
            name=run.snapshot_name(epoch),
            model=_model_string(run),
            weights=_file(out, run, epoch),
            input=input_spec(images),
            labels=task_of(run, images).labels,
            factors={**factors, "epoch": epoch},
            folder=out,
        )
        for epoch in run.snapshot_epochs
    ]


def _entries_of_others(out: Path, runs: Sequence[Run]) -> list[Checkpoint]:
    """Entries of an existing manifest that this recipe does not make, and whose weights are there."""
    if not (out / FILE_NAME).exists():
        return []
    names = {run.snapshot_name(epoch) for run in runs for epoch in run.snapshot_epochs}
    entries = read_manifest(out, missing_weights=True)
    return [entry for entry in entries if entry.name not in names and entry.weights.exists()]
