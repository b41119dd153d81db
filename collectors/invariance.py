"""How a network predicts under shifts: predictions once (:func:`predict`), then tables of scores of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from collectors.scores import Estimate, accuracy, mean_over_images, shift_scores
from collectors.shifts import ShiftPlan, apply_shift, crop_window
from zoo.datasets.inputs import PreparedImages, place
from zoo.errors import DataError, InputError, ModelError, ShiftError

Images = Tensor | PreparedImages

BORDERS = 256
"""First images whose borders are looked at before a crop, whatever the batch size."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network said of ``N`` images, unshifted and under ``K`` shifts each: enough to recompute every score.

    Attributes:
        label: ``(N,)`` labels.
        clean_prediction: ``(N,)`` top-1 class of the unshifted image.
        clean_probability: ``(N,)`` softmax probability of that class there.
        offsets: ``(N, K, 2)`` shifts ``(dy, dx)``, in pixels, positive = down / right.
        prediction: ``(N, K)`` top-1 class under each shift.
        probability: ``(N, K)`` softmax probability of that class.
        drift_probability: ``(N, K)`` probability, under each shift, of the class predicted without it.
    """

    label: np.ndarray
    clean_prediction: np.ndarray
    clean_probability: np.ndarray
    offsets: np.ndarray
    prediction: np.ndarray
    probability: np.ndarray
    drift_probability: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """One row per image, with the columns of the table ``predictions``."""
        return pd.DataFrame(
            {
                "image": np.arange(len(self.label)),
                "label": self.label,
                "clean_prediction": self.clean_prediction,
                "clean_probability": self.clean_probability,
                "dy": list(self.offsets[:, :, 0]),
                "dx": list(self.offsets[:, :, 1]),
                "prediction": list(self.prediction),
                "probability": list(self.probability),
                "drift_probability": list(self.drift_probability),
            }
        )

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Predictions:
        """The predictions of one checkpoint and plan, from the rows of the table ``predictions``."""
        frame = frame.sort_values("image")
        columns = {name: np.stack(frame[name].to_list()) for name in ("prediction", "probability", "drift_probability")}
        offsets = np.stack([np.stack(frame[name].to_list()) for name in ("dy", "dx")], axis=-1)
        clean = {name: frame[name].to_numpy() for name in ("label", "clean_prediction", "clean_probability")}
        return cls(**clean, offsets=offsets, **columns)


def predict(
    model: nn.Module,
    images: Images,
    labels: Tensor | np.ndarray,
    plan: ShiftPlan,
    *,
    batch_size: int = 256,
    size: int | tuple[int, int] | None = None,
    fill: float | Tensor | None = None,
) -> Predictions:
    """Predict every image, unshifted and under each of its plan's shifts.

    The unshifted view of a ``crop`` plan is the window at the centre.

    Args:
        model: a network that returns logits ``(N, classes)``; run in evaluation mode on its own device, and left in
            the mode that it was in.
        images: ``(N, C, H, W)`` floating-point images as the network wants them (normalised), or ``PreparedImages``.
        labels: ``(N,)`` integers from 0.
        plan: the shifts.
        batch_size: images per forward pass.
        size: the window of a ``crop`` plan; the network's input size for ``PreparedImages``.
        fill: value(s) of the uncovered strip under kind ``zero``. By default 0 for the plan's fill ``mean`` and the
            normalised black pixel of ``PreparedImages`` for ``black``.

    Raises:
        ModelError: the network fails on the images, or returns something other than finite logits ``(N, classes)``.
        DataError: labels or images that do not go together, labels out of range, images that are not finite.
        ShiftError: the plan does not fit the images; under ``crop``, too, images whose border is one constant colour.
    """
    labels = _check_inputs(images, labels, batch_size)
    highest = int(labels.max())
    every_offset = plan.for_rows(0, len(images))
    if plan.kind == "crop":
        size = images.spec.size if size is None and isinstance(images, PreparedImages) else size
        crop_window(_image_size(images), size, every_offset)
        _refuse_padded(images, batch_size)
    fill = _fill_value(images, plan, fill)
    parts = []
    with _evaluating(model), torch.inference_mode():
        for start in range(0, len(images), batch_size):
            stop = min(start + batch_size, len(images))
            batch = place(_batch(images, start, stop), model)
            offsets = torch.from_numpy(every_offset[start:stop].astype(np.int64)).to(batch.device)
            # Few images go through the network under several shifts at once: small batches cost as much as large ones.
            together = max(batch_size // len(batch), 1)
            parts.append(_predict_batch(model, batch, highest, offsets, plan.kind, fill, size, together))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Predictions(labels.numpy(), columns[0], columns[1], every_offset, *columns[2:])


def score(predictions: Predictions, plan: ShiftPlan) -> pd.DataFrame:
    """Every shift score of METRICS with its standard error and 95 % interval, images as the sampling unit.

    One row per score: ``consistency``, ``consistency_to_clean``, ``fidelity``, ``fidelity_product``,
    ``worst_case_accuracy``, ``kappa``, ``probability_drift``, and ``flip_rate`` for a path plan. Accuracy is a score of
    the unshifted images alone: :func:`measure_accuracy`, or the first row of :func:`measure_invariance`.

    Returns:
        Columns ``score``, ``value``, ``se``, ``low``, ``high``, ``n_images``, ``n_pairs``; NaN where a score is not
        defined (pairs of a single shift, the kappa of a network that always predicts one class).
    """
    estimates = shift_scores(
        predictions.prediction,
        predictions.label,
        predictions.clean_prediction,
        predictions.clean_probability,
        predictions.drift_probability,
        is_path=plan.mode == "path",
    )
    return _frame(estimates, len(predictions.label))


def measure_invariance(
    model: nn.Module, images: Images, labels: Tensor | np.ndarray, plan: ShiftPlan, **options: Any
) -> pd.DataFrame:
    """Accuracy and every shift score of a network, with the plan's columns; ``options`` as for :func:`predict`.

    Returns:
        The columns of :func:`score` and of :func:`plan_columns`, one row per score; ``accuracy`` has kind ``none``.
    """
    predictions = predict(model, images, labels, plan, **options)
    unshifted = _accuracy_frame(predictions.clean_prediction == predictions.label)
    return pd.concat([unshifted, score(predictions, plan).assign(**plan_columns(plan))], ignore_index=True)


def measure_accuracy(
    model: nn.Module, images: Images, labels: Tensor | np.ndarray, *, batch_size: int = 256
) -> pd.DataFrame:
    """Top-1 accuracy on the unshifted images: one row with the columns of :func:`measure_invariance`.

    Raises:
        ModelError, DataError: as :func:`predict`.
    """
    return _accuracy_frame(clean_hits(model, images, labels, batch_size=batch_size))


def clean_hits(model: nn.Module, images: Images, labels: Tensor | np.ndarray, *, batch_size: int = 256) -> np.ndarray:
    """Which unshifted images are predicted right: ``(N,)`` booleans. Raises as :func:`predict`."""
    labels = _check_inputs(images, labels, batch_size)
    hits = []
    with _evaluating(model), torch.inference_mode():
        for start in range(0, len(images), batch_size):
            wanted = labels[start : start + batch_size]
            logits = _logits(model, place(_batch(images, start, start + len(wanted)), model), int(labels.max()))
            hits.append((logits.argmax(1).cpu() == wanted).numpy())
    return np.concatenate(hits)


def measure_surface(
    model: nn.Module,
    images: Images,
    labels: Tensor | np.ndarray,
    max_shift: int,
    kind: str = "circular",
    *,
    step: int = 1,
    fill: str | None = "mean",
    black: float | Tensor | None = None,
    size: int | tuple[int, int] | None = None,
    batch_size: int = 256,
) -> pd.DataFrame:
    """Agreement with the unshifted prediction, and accuracy, at every shift of a grid.

    Args:
        max_shift: largest displacement, in pixels; ``step`` divides it.
        fill: ``mean`` or ``black``, kind ``zero`` only.
        black: value(s) of a black pixel, for ``fill="black"`` on a bare tensor.
        size: window of crop shifts.

    Returns:
        One row per ``(dy, dx)``: ``agreement``, ``accuracy``, each with its standard error over images (``_se``),
        ``n_images``, and the plan's columns.
    """
    plan = ShiftPlan.grid(max_shift, step, kind, fill)
    value = black if plan.fill == "black" else None
    predictions = predict(model, images, labels, plan, batch_size=batch_size, size=size, fill=value)
    agreement = predictions.prediction == predictions.clean_prediction[:, None]
    right = predictions.prediction == predictions.label[:, None]
    columns: dict[str, Any] = {"dy": plan.offsets[0, :, 0], "dx": plan.offsets[0, :, 1]}
    for name, hits in (("agreement", agreement), ("accuracy", right)):
        estimates = [mean_over_images(column) for column in hits.T]
        columns[name] = [estimate.value for estimate in estimates]
        columns[f"{name}_se"] = [estimate.se for estimate in estimates]
    return pd.DataFrame(columns).assign(n_images=len(predictions.label), **plan_columns(plan))


def plan_columns(plan: ShiftPlan | None) -> dict[str, Any]:
    """The columns that name a plan in the tables; ``None`` stands for unshifted images (kind ``none``)."""
    return {
        "shift_kind": plan.kind if plan else "none",
        "fill": plan.fill if plan else None,
        "max_shift": plan.max_shift if plan else 0,
        "n_shifts": plan.n_shifts if plan else 0,
        "plan": plan.mode if plan else "none",
        "plan_hash": plan.hash if plan else "none",
    }


def _frame(estimates: dict[str, Estimate], n_images: int) -> pd.DataFrame:
    rows = [{"score": name, **vars(estimate), "n_images": n_images} for name, estimate in estimates.items()]
    return pd.DataFrame(rows)[["score", "value", "se", "low", "high", "n_images", "n_pairs"]]


def _accuracy_frame(hits: np.ndarray) -> pd.DataFrame:
    return _frame({"accuracy": accuracy(hits)}, len(hits)).assign(**plan_columns(None))


def _predict_batch(
    model: nn.Module,
    batch: Tensor,
    highest: int,
    offsets: Tensor,
    kind: str,
    fill: float | Tensor,
    size: Any,
    together: int,
) -> tuple[np.ndarray, ...]:
    """Unshifted prediction and its probability; per shift prediction, its probability, and the drift probability.

    ``together`` shifts of each image are one forward pass.
    """
    n, k = offsets.shape[:2]
    unshifted = apply_shift(batch, torch.zeros_like(offsets[:, 0]), kind, size=size) if kind == "crop" else batch
    logits = _logits(model, unshifted, highest)
    clean = logits.argmax(1, keepdim=True)
    clean_probability = _probability(logits, clean)
    columns = []
    for start in range(0, k, together):
        some = offsets[:, start : start + together]
        copies = some.shape[1]
        shifted = apply_shift(batch.repeat_interleave(copies, 0), some.flatten(0, 1), kind, fill, size)
        logits = _logits(model, shifted, highest)
        prediction = logits.argmax(1, keepdim=True)
        of_clean = _probability(logits, clean.repeat_interleave(copies, 0))
        parts = prediction, _probability(logits, prediction), of_clean
        columns.append([part.reshape(n, copies) for part in parts])
    joined = [torch.cat(column, 1) for column in zip(*columns, strict=True)]
    return tuple(part.cpu().numpy() for part in (clean[:, 0], clean_probability[:, 0], *joined))


def _probability(logits: Tensor, classes: Tensor) -> Tensor:
    """Softmax probability of the given class of each row, in float64: ``(n, 1)``."""
    return logits.double().softmax(1).gather(1, classes)


def _logits(model: nn.Module, batch: Tensor, highest: int) -> Tensor:
    """The network's logits, checked: floats, ``(n, classes)``, finite, and a class for the ``highest`` label."""
    shape = tuple(batch.shape)
    try:
        logits = model(batch)
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{type(model).__name__} failed on images of shape {shape} ({type(error).__name__}: {reason}): "
            "give images of the channels and size that it takes"
        ) from error
    wanted = f"return logits of shape ({len(batch)}, classes), if need be from a module around it"
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"{type(model).__name__} returned a {type(logits).__name__} for images of shape {shape}: {wanted}"
        )
    if logits.ndim != 2 or len(logits) != len(batch) or logits.shape[1] == 0 or not logits.is_floating_point():
        found = f"{logits.dtype} of shape {tuple(logits.shape)}"
        raise ModelError(f"{type(model).__name__} returned {found} for images of shape {shape}: {wanted}")
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(
            f"{type(model).__name__} returned logits that are NaN or infinite: check its weights and the normalisation"
        )
    if highest >= logits.shape[1]:
        raise DataError(
            f"there is a label {highest} and {type(model).__name__} has {logits.shape[1]} classes (0 to "
            f"{logits.shape[1] - 1}): measure it on the data set that it was trained for"
        )
    return logits


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode restored after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _check_inputs(images: Images, labels: Tensor | np.ndarray, batch_size: int) -> Tensor:
    """Labels as an int64 tensor on the CPU; refuses images and labels that cannot be measured."""
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}: take at least 1")
    if isinstance(images, Tensor) and (images.ndim != 4 or not images.is_floating_point()):
        found = f"{images.dtype} of shape {tuple(images.shape)}"
        raise DataError(f"images are {found}: give floating-point images (N, C, H, W), normalised for the network")
    if len(images) == 0:
        raise DataError("there are no images: give at least one")
    try:
        labels = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError) as error:
        raise DataError("labels are no numbers: give whole numbers from 0") from error
    if labels.shape != (len(images),):
        raise DataError(
            f"labels have shape {tuple(labels.shape)} and there are {len(images)} images: give one for each"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels are {labels.dtype}: give whole numbers from 0")
    labels = labels.long()
    if int(labels.min()) < 0:
        row = int((labels < 0).nonzero()[0])
        raise DataError(
            f"image {row} has the label {int(labels[row])}: give labels from 0 (a data set of masks has none)"
        )
    return labels


def _batch(images: Images, start: int, stop: int) -> Tensor:
    batch = images[start:stop]
    finite = torch.isfinite(batch).flatten(1).all(1)
    if not bool(finite.all()):
        row = start + int((~finite).nonzero()[0])
        raise DataError(f"image {row} holds NaN or infinite pixels: correct or leave out the image")
    return batch


def _image_size(images: Images) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def _fill_value(images: Images, plan: ShiftPlan, fill: float | Tensor | None) -> float | Tensor:
    if fill is not None:
        return fill
    if plan.fill != "black":
        return 0.0
    if isinstance(images, PreparedImages):
        return images.black
    raise ShiftError(
        "the plan fills with black and the images are a bare tensor: give fill= the value of a black pixel"
    )


def _refuse_padded(images: Images, batch_size: int) -> None:
    """Refuse images whose border is one constant colour: a crop of them is a zero shift under another name."""
    looked_at = min(BORDERS, len(images))
    colour: Tensor | None = None
    for start in range(0, looked_at, batch_size):
        batch = _batch(images, start, min(start + batch_size, looked_at))
        sides = (batch[..., 0, :], batch[..., -1, :], batch[..., :, 0], batch[..., :, -1])
        border = torch.cat(sides, dim=2)
        colour = border[:1, :, :1] if colour is None else colour
        if not bool((border == colour).all()):
            return
    raise ShiftError(
        f"crop: the border of all of the first {looked_at} images is one constant colour, so that a moving window "
        "is a zero shift under another name: use kind zero, or larger images without a margin"
    )
