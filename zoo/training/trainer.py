"""One training run: the network, its optimiser and its random numbers, taken forward an epoch at a time."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from invariscope.base.errors import InputError, RecipeError
from invariscope.zoo.datasets.imageset import ImageSet
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.devices import prepare_device
from invariscope.zoo.loading import build_model
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.run import Run
from invariscope.zoo.training.augmentation import augment
from invariscope.zoo.training.tasks import task_of
from invariscope.zoo.wrapping import wrap_in_place

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class DivergedError(InputError):
    """A training run whose loss is no longer finite."""


@dataclass(frozen=True)
class Epoch:
    """An epoch of a run, with its mean training loss and its training accuracy (of pixels, for a segmenter)."""

    number: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Snapshot:
    """The weights after an epoch of a run, with the mean training loss and training accuracy of that epoch."""

    run: Run
    epoch: int
    state: dict[str, Tensor]
    loss: float
    accuracy: float


class Trainer:
    """A run in progress: :meth:`epochs` trains what is left of it.

    The loss is the task's; after the first ``wake_up`` epochs, and where operators of the network have losses of their
    own, it is :func:`total_loss`. Everything random is drawn from torch's global generator (weights, operators' noise)
    and from ``order`` (order of the images, augmentation), so that the state of the run is: ``model``, ``optimizer``,
    ``schedule``, ``scaler``, both generators and ``done``, the number of epochs. Make and run it inside
    :func:`reproducible`.

    Raises:
        InputError: when the network cannot be built, or the data do not suit it.
    """

    def __init__(self, run: Run, images: ImageSet, device: str = "cpu") -> None:
        self.run, self.images, self.device, self.done = run, images, device, 0
        self.task = task_of(run, images)
        self.prepared = PreparedImages(images, input_spec(images))
        self.layout = torch.channels_last if run.channels_last else torch.contiguous_format
        model = build_model(run.network(images.pixels().shape[1], self.task.outputs), run.folder).train()
        self.model: nn.Module = model.to(device, memory_format=self.layout)  # type: ignore[call-overload]
        if run.channels_last:
            wrap_in_place(self.model)
        self.operators = [module for module in nn.Module.modules(self.model) if isinstance(module, Downsample)]
        for operator in self.operators:
            operator.set_input_size((images.pixels().shape[-2], images.pixels().shape[-1]))
        self.order = torch.Generator().manual_seed(run.seed)
        self.batch_size = min(run.batch_size, len(images))
        self.steps = len(images) // self.batch_size
        self.optimizer = _optimizer(run, self.model)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=run.lr, total_steps=self.steps * run.epochs, cycle_momentum=False
        )
        self.scaler = torch.amp.GradScaler(device, enabled=run.precision == "fp16")

    def epochs(self) -> Iterator[Epoch]:
        """Train until the last epoch of the run.

        Raises:
            DivergedError: when the loss is no longer finite.
            ModelError: when the network does not give what its task takes.
        """
        while self.done < self.run.epochs:
            yield self._epoch(self.done + 1)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the network's state, on the CPU."""
        state = self.model.state_dict()
        return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.items()}

    def _epoch(self, number: int) -> Epoch:
        rows = torch.randperm(len(self.images), generator=self.order)[: self.steps * self.batch_size]
        loss_sum = torch.zeros((), device=self.device)
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        counted = torch.zeros_like(right)
        for step, batch in enumerate(rows.reshape(self.steps, self.batch_size)):
            for operator in self.operators:
                operator.set_progress(((number - 1) * self.steps + step) / (self.steps * self.run.epochs))
            x, targets = augment(self.prepared[batch], self.task.targets(batch), self.run, self.order)
            x = x.to(self.device, memory_format=self.layout)
            loss, batch_right, batch_counted = self._step(x, targets.to(self.device), number)
            loss_sum += loss
            right += batch_right
            counted += batch_counted
        mean_loss = float(loss_sum) / self.steps
        if not math.isfinite(mean_loss):
            remedy = f"lower its lr ({self.run.lr:g})" + (" or take precision bf16" * (self.run.precision == "fp16"))
            raise DivergedError(f"run {self.run.id} diverged: loss {mean_loss} in epoch {number}; {remedy}")
        self.done = number
        return Epoch(number, mean_loss, int(right) / max(int(counted), 1))

    def _step(self, x: Tensor, targets: Tensor, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the optimiser; the batch's loss, and how many decisions were right of how many."""
        awake = self.operators if epoch > self.run.wake_up else []
        precision = self.run.precision
        with torch.autocast(self.device, dtype=_TYPES[precision], enabled=precision != "fp32"):
            logits = self.model(x).float()
            loss = total_loss(self.task.loss(logits, targets), awake, self.run)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        if self.run.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.run.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with warnings.catch_warnings():
            # A loss scale that is too large skips the first step of the optimiser, which is no mistake in the order.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self.schedule.step()
        return loss.detach(), *self.task.score(logits.detach(), targets)


@contextlib.contextmanager
def reproducible(seed: int, device: str = "cpu", threads: int = 1) -> Iterator[None]:
    """So many threads, and random numbers from ``seed``; the caller's own are as before afterwards.

    Raises:
        InputError: for a device that is not there.
    """
    prepare_device(device)
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.deterministic = before[1]


def train_run(run: Run, images: ImageSet, *, device: str = "cpu", threads: int = 1) -> list[Snapshot]:
    """Train one network and keep its weights after the wanted epochs.

    All randomness comes from ``run.seed``: the same run gives the same weights on the same machine, with the same
    device and number of threads. (On ``cuda`` as far as torch's own functions are deterministic.)

    Raises:
        DivergedError: when the loss is no longer finite.
        InputError: when the network cannot be built, or does not suit the data.
    """
    with reproducible(run.seed, device, threads):
        trainer = Trainer(run, images, device)
        return [
            Snapshot(run, epoch.number, trainer.weights(), epoch.loss, epoch.accuracy)
            for epoch in trainer.epochs()
            if epoch.number in run.snapshot_epochs
        ]


_SPECS: WeakKeyDictionary[ImageSet, InputSpec] = WeakKeyDictionary()


def input_spec(images: ImageSet) -> InputSpec:
    """The normalisation of a training set: mean and standard deviation per channel, to four digits.

    Computed once for each set: every run and every entry of a manifest asks for it.

    Raises:
        RecipeError: for a channel that is constant.
    """
    if images not in _SPECS:
        _SPECS[images] = _normalisation(images)
    return _SPECS[images]


def _normalisation(images: ImageSet) -> InputSpec:
    height, width = images.pixels().shape[-2:]
    # Integer sums are exact, so the numbers do not depend on the order of summation.
    pixels = images.pixels().transpose(0, 1).flatten(1).to(torch.int64)
    means, stds = [], []
    for channel in pixels:
        count = channel.numel()
        mean = int(channel.sum()) / count
        variance = int((channel * channel).sum()) / count - mean * mean
        means.append(round(mean / images.white, 4))
        stds.append(round(math.sqrt(max(variance, 0)) / images.white, 4))
    if min(stds) == 0:
        raise RecipeError(f"{images.name}: a channel has the same value everywhere: train on other images")
    return InputSpec(size=(height, width), mean=tuple(means), std=tuple(stds))


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


def _optimizer(run: Run, model: nn.Module) -> torch.optim.Optimizer:
    if run.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=run.lr, weight_decay=run.weight_decay)
    nesterov = run.momentum > 0
    return torch.optim.SGD(
        model.parameters(), lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay, nesterov=nesterov
    )
