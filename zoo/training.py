"""Training: from a run of a recipe to its checkpoints, and from a recipe to a zoo that can be resumed."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from zoo.datasets import load_dataset
from zoo.datasets.imageset import ImageSet
from zoo.datasets.inputs import InputSpec, PreparedImages
from zoo.errors import InputError, RecipeError
from zoo.files import write_atomic
from zoo.loading import build_model
from zoo.manifest import FILE_NAME, Checkpoint, read_manifest, write_manifest
from zoo.operators.base import Downsample
from zoo.recipe import Run, operator_factors, read_recipe

METADATA_KEY = "shiftscope"
"""The one metadata key of every weights file; several would make the file's hash irreproducible."""


class DivergedError(InputError):
    """A training run whose loss is no longer finite."""


@dataclass(frozen=True)
class Snapshot:
    """The weights after an epoch of a run, with the mean training loss and training accuracy of that epoch."""

    run: Run
    epoch: int
    state: dict[str, Tensor]
    loss: float
    accuracy: float


@dataclass(frozen=True)
class TrainReport:
    """What :func:`train_recipe` did: ids of runs trained and skipped, and ``(id, error)`` of those that failed."""

    trained: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    manifest: Path


def input_spec(images: ImageSet) -> InputSpec:
    """The normalisation of a training set: mean and standard deviation per channel, to four digits.

    Raises:
        RecipeError: for images that are not square, or a channel that is constant.
    """
    height, width = images.images.shape[-2:]
    if height != width:
        raise RecipeError(f"{images.name} has images of {height}x{width} pixels: train on square ones")
    # Integer sums are exact, so the numbers do not depend on the order of summation.
    pixels = images.images.transpose(0, 1).flatten(1).to(torch.int64)
    means, stds = [], []
    for channel in pixels:
        count = channel.numel()
        mean = int(channel.sum()) / count
        variance = int((channel * channel).sum()) / count - mean * mean
        means.append(round(mean / 255, 4))
        stds.append(round(math.sqrt(max(variance, 0)) / 255, 4))
    if min(stds) == 0:
        raise RecipeError(f"{images.name}: a channel has the same value everywhere: train on other images")
    return InputSpec(size=height, mean=tuple(means), std=tuple(stds))


def train_run(run: Run, images: ImageSet) -> list[Snapshot]:
    """Train one network and keep its weights after the wanted epochs.

    The loss is the cross entropy; after the first ``wake_up`` epochs, and where operators of the network have losses
    of their own, it is :func:`total_loss`. One thread, and all randomness from ``run.seed``: the same run gives the
    same weights on the same machine. The caller's random state and number of threads are as before afterwards.

    Raises:
        DivergedError: when the loss is no longer finite.
        InputError: when the network cannot be built.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            return list(_train(run, images))
    finally:
        torch.set_num_threads(threads)


def _train(run: Run, images: ImageSet) -> Iterator[Snapshot]:
    prepared = PreparedImages(images, input_spec(images))
    model = build_model(run.model_string(images.images.shape[1], len(images.classes))).train()
    operators = [module for module in model.modules() if isinstance(module, Downsample)]
    order = torch.Generator().manual_seed(run.seed)
    batch_size = min(run.batch_size, len(images))
    steps = len(images) // batch_size
    optimizer = _optimizer(run, model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=run.lr, total_steps=steps * run.epochs, cycle_momentum=False
    )
    for epoch in range(1, run.epochs + 1):
        rows = torch.randperm(len(images), generator=order)[: steps * batch_size].reshape(steps, batch_size)
        loss_sum = torch.zeros(())
        right = torch.zeros((), dtype=torch.int64)
        for step, batch in enumerate(rows):
            for operator in operators:
                operator.set_progress(((epoch - 1) * steps + step) / (steps * run.epochs))
            x = prepared[batch]
            if run.augment_shift:
                x = random_shift(x, run.augment_shift, order)
            labels = images.labels[batch]
            logits = model(x)
            loss = total_loss(F.cross_entropy(logits, labels), operators if epoch > run.wake_up else [], run)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.detach()
            right += (logits.argmax(1) == labels).sum()
        mean_loss = float(loss_sum) / steps
        if not math.isfinite(mean_loss):
            raise DivergedError(f"run {run.id} diverged: loss {mean_loss} in epoch {epoch}; lower its lr ({run.lr:g})")
        if epoch in run.snapshot_epochs:
            state = {key: value.detach().clone().contiguous() for key, value in model.state_dict().items()}
            yield Snapshot(run, epoch, state, mean_loss, int(right) / rows.numel())


def _optimizer(run: Run, model: nn.Module) -> torch.optim.Optimizer:
    if run.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=run.lr, weight_decay=run.weight_decay)
    nesterov = run.momentum > 0
    return torch.optim.SGD(
        model.parameters(), lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay, nesterov=nesterov
    )


def total_loss(task: Tensor, operators: Iterable[Downsample], run: Run) -> Tensor:
    """``(1 - alpha) task + alpha undo + failure_weight failure_modes``; the task alone where no operator has losses.

    ``undo`` and ``failure_modes`` are means over the operators that have them. Source: the TIPS paper's objective.
    """
    parts: dict[str, list[Tensor]] = {}
    for operator in operators:
        for name, value in operator.losses().items():
            parts.setdefault(name, []).append(value)
    if not parts:
        return task
    means = {name: torch.stack(values).mean() for name, values in parts.items()}
    loss = task
    if "undo" in means:
        loss = (1 - run.alpha) * task + run.alpha * means["undo"]
    if "failure_modes" in means:
        loss = loss + run.failure_weight * means["failure_modes"]
    return loss


def random_shift(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Shift each image of ``(N, C, H, W)`` by its own ``(dy, dx)`` in ``[-most, most]²``; uncovered pixels are 0."""
    count, _, height, width = x.shape
    start = torch.randint(0, 2 * most + 1, (count, 2), generator=generator)
    rows = (start[:, :1] + torch.arange(height))[:, None, :, None]
    columns = (start[:, 1:] + torch.arange(width))[:, None, None, :]
    image = torch.arange(count)[:, None, None, None]
    channel = torch.arange(x.shape[1])[None, :, None, None]
    return F.pad(x, (most, most, most, most))[image, channel, rows, columns]


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
    sets = {data: _training_images(data) for data in dict.fromkeys(run.data for run in runs)}
    with torch.random.fork_rng(devices=[]):
        for model in dict.fromkeys(_model_string(run, sets[run.data]) for run in runs):
            build_model(model)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise RecipeError(f"{out}: cannot make this folder ({problem.strerror}): name another --out") from problem
    others = _entries_of_others(out, runs)
    finished = {run.id for run in runs if _is_finished(run, sets[run.data], out)}
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
        entries = [entry for run in runs if run.id in finished for entry in _entries(run, sets[run.data], out)]
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
    images = _training_images(run.data)
    try:
        snapshots = train_run(run, images)
    except DivergedError as problem:
        return run, str(problem)
    for snapshot in snapshots:
        metadata = {**_settings(run, images), "epoch": snapshot.epoch, "loss": snapshot.loss}
        content = save(snapshot.state, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})
        write_atomic(_file(out, run, snapshot.epoch), content)
    return run, None


@functools.cache
def _training_images(data: str) -> ImageSet:
    return load_dataset(data, split="train")


def _settings(run: Run, images: ImageSet) -> dict[str, Any]:
    """What the weights follow from, as it stands in the metadata of their files."""
    settings = dataclasses.asdict(run) | {"snapshots": list(run.snapshots), "model": dict(run.model)}
    return {"run": settings, "data_fingerprint": images.fingerprint}


def _file(out: Path, run: Run, epoch: int) -> Path:
    return out / f"{run.snapshot_name(epoch)}.safetensors"


def _is_finished(run: Run, images: ImageSet, out: Path) -> bool:
    """Whether all files of a run are there; refuses one that was trained with other settings."""
    wanted = _settings(run, images)
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
    run = found.get("run", {})
    names = [name for name, value in wanted["run"].items() if name not in run or run[name] != value]
    if found.get("data_fingerprint") != wanted["data_fingerprint"]:
        names.append("data_fingerprint")
    return names


def _model_string(run: Run, images: ImageSet) -> str:
    return run.model_string(images.images.shape[1], len(images.classes))


def _entries(run: Run, images: ImageSet, out: Path) -> list[Checkpoint]:
    """The manifest entries of a finished run."""
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
            model=_model_string(run, images),
            weights=_file(out, run, epoch),
            input=input_spec(images),
            labels=images.name.partition("/")[0],
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
