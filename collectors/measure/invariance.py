"""How a network predicts under shifts: predictions once (:func:`predict`), then tables of scores of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from invariscope.base.errors import DataError
from invariscope.base.progress import bar
from invariscope.collectors.measure.passes import (
    Images,
    Unshifted,
    batches,
    check_inputs,
    checked_images,
    checked_logits,
    class_probability,
    evaluating,
    has_labels,
    need_labels,
    predict_unshifted,
    shift_network,
)
from invariscope.collectors.measure.scores import ScoreEstimate, accuracy, mean_drift, mean_over_images, shift_scores
from invariscope.collectors.measure.shifts import ShiftPlan, crop_window
from invariscope.collectors.measure.views import ShiftView, fill_value, image_size, refuse_padded
from invariscope.collectors.shift_kinds import UNSHIFTED
from invariscope.zoo.datasets.given import Given, given
from invariscope.zoo.datasets.inputs import PreparedImages, place

if TYPE_CHECKING:
    from invariscope.collectors.measure.drift import DriftSums


BATCH = 256
"""Images per pass, where it is not said."""

OF_LABELS = ("fidelity", "fidelity_product", "worst_case_accuracy")
"""Scores of shifted images that need their labels."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network said of ``N`` images, unshifted and under ``K`` shifts each: enough to recompute every score.

    Attributes:
        label: ``(N,)`` labels.
        clean_prediction: ``(N,)`` top-1 class of the unshifted image.
        clean_probability: ``(N,)`` softmax probability of that class there, float32 as the others.
        offsets: ``(N, K, 2)`` shifts ``(dy, dx)`` as the plan has them, positive = down / right.
        prediction: ``(N, K)`` top-1 class under each shift.
        drift: ``(N,)`` mean absolute change, over the shifts, of the probability of the class predicted without one.
        probability: ``(N, K)`` softmax probability of the top-1 class under each shift; None where not kept.
        drift_probability: ``(N, K)`` probability, under each shift, of the class predicted without it; as above.
    """

    label: np.ndarray
    clean_prediction: np.ndarray
    clean_probability: np.ndarray
    offsets: np.ndarray
    prediction: np.ndarray
    drift: np.ndarray
    probability: np.ndarray | None = None
    drift_probability: np.ndarray | None = None

    def to_frame(self) -> pd.DataFrame:
        """One row per image, with the columns of the table ``predictions``.

        Raises:
            ValueError: the probabilities under shifts were not kept.
        """
        if self.probability is None or self.drift_probability is None:
            raise ValueError("the probabilities under shifts were not kept: predict with keep_probabilities=True")
        dy, dx = (list(self.offsets[:, :, axis].astype(np.int32)) for axis in (0, 1))
        return pd.DataFrame(
            {
                "image": np.arange(len(self.label)),
                "label": self.label,
                "clean_prediction": self.clean_prediction,
                "clean_probability": self.clean_probability,
                "dy": dy,
                "dx": dx,
                "prediction": list(self.prediction.astype(np.int32)),
                "probability": list(self.probability),
                "drift_probability": list(self.drift_probability),
            }
        )

    @classmethod
    def join(cls, parts: Sequence[Predictions]) -> Predictions:
        """One after the other, without the probabilities under shifts."""
        names = ("label", "clean_prediction", "clean_probability", "offsets", "prediction", "drift")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Predictions:
        """The predictions of one checkpoint and plan, from the rows of the table ``predictions``."""
        frame = frame.sort_values("image")
        columns = {name: np.stack(frame[name].to_list()) for name in ("prediction", "probability", "drift_probability")}
        offsets = np.stack([np.stack(frame[name].to_list()) for name in ("dy", "dx")], axis=-1)
        clean = {name: frame[name].to_numpy() for name in ("label", "clean_prediction", "clean_probability")}
        drift = mean_drift(columns["drift_probability"], clean["clean_probability"])
        return cls(**clean, offsets=offsets, drift=drift, **columns)


def predict(
    model: nn.Module,
    images: Images,
    labels: Tensor | np.ndarray | None,
    plan: ShiftPlan,
    *,
    batch_size: int = BATCH,
    size: int | tuple[int, int] | None = None,
    fill: float | Tensor | None = None,
    precision: str = "fp32",
    fold: bool = True,
    unshifted: Unshifted | None = None,
    keep_probabilities: bool = True,
    drift: DriftSums | None = None,
    on_batch: Callable[[], None] | None = None,
    genuine: bool = False,
) -> Predictions:
    """Predict every image, unshifted and under each of its plan's shifts.

    The unshifted view of a ``crop`` plan is the window at the centre. The passes run channels-last on what
    :func:`invariscope.collectors.measure.passes.shift_network` makes of the network.

    Args:
        model: a network that returns logits ``(N, classes)``; run in evaluation mode on its own device, and left in
            the mode that it was in.
        images: ``(N, C, H, W)`` floating-point images as the network wants them (normalised), or ``PreparedImages``.
        labels: ``(N,)`` integers from 0; None where there are none: then no score is had that needs them.
        plan: the shifts.
        batch_size: images per forward pass.
        size: the window of a ``crop`` plan; the network's input size for ``PreparedImages``.
        fill: value(s) of the uncovered strip under kind ``zero``. By default what the plan's fill is in the
            images: their background (of a bare tensor the median of its borders), 0 for ``mean``, and the normalised
            black pixel of ``PreparedImages`` for ``black``.
        precision: ``fp32``, the network's own floating-point type, or ``bf16``.
        fold: whether batch norms are folded into the convolutions before them and 1 x 1 convolutions packed.
        unshifted: what the network says of the unshifted images, where that is known; saves a pass.
        keep_probabilities: whether to keep two probabilities for every image and shift; no score needs them.
        on_batch: called after each batch of images.
        genuine: that the images of a ``crop`` plan have no padded border is known already.
        drift: what is to watch the passes; with ``unshifted`` it has seen the unshifted images already.

    Raises:
        ModelError: the network fails on the images, or returns something other than finite logits ``(N, classes)``.
        DataError: labels or images that do not go together, labels out of range, images that are not finite.
        ShiftError: the plan does not fit the images; under ``crop``, too, images whose border is one constant colour.
    """
    labels = check_inputs(images, labels, batch_size)
    every_offset = plan.for_rows(0, len(images))
    if not plan.rule.keeps_size:
        size = images.spec.size if size is None and isinstance(images, PreparedImages) else size
        crop_window(image_size(images), size, every_offset)
        if not genuine:
            refuse_padded(images, batch_size)
    view = ShiftView(plan.kind, fill_value(images, plan, fill), size)
    network = shift_network(
        model, view.unshifted(images[: checked_images(len(images))]), precision=precision, fold=fold
    )
    made: dict[str, np.ndarray] = {}
    start = 0
    with evaluating(model), torch.inference_mode():
        for batch in batches(images, batch_size):
            rows = slice(start, start + len(batch))
            start = rows.stop
            batch = place(batch, network)
            run = network if drift is None else partial(drift.still.run, network, rows.start)
            clean = unshifted.rows(rows) if unshifted else _unshifted(run, view.unshifted(batch), int(labels.max()))
            moved = None if drift is None else partial(drift.run, network, rows.start)
            part = _predict_shifted(network, view, batch, every_offset[rows], clean, batch_size, moved)
            if not keep_probabilities:
                del part["probability"], part["drift_probability"]
            for name, values in part.items():
                made.setdefault(name, np.empty((len(images), *values.shape[1:]), values.dtype))[rows] = values
            if on_batch is not None:
                on_batch()
    return Predictions(label=labels.numpy(), offsets=every_offset, **made)


def score(predictions: Predictions, plan: ShiftPlan) -> pd.DataFrame:
    """Every shift score of METRICS with its standard error and 95 % interval, images as the sampling unit.

    One row per score: ``consistency``, ``consistency_to_clean``, ``fidelity``, ``stability``,
    ``fidelity_product``, ``worst_case_accuracy``, ``kappa``, ``probability_drift``, and ``flip_rate`` for a path plan.
    Accuracy is a score of the unshifted images alone: :func:`measure_accuracy`, or the first row of
    :func:`measure_invariance`. Of images without labels there are no rows of ``fidelity``, ``fidelity_product`` and
    ``worst_case_accuracy``.

    Returns:
        Columns ``score``, ``value``, ``se``, ``low``, ``high``, ``n_images``, ``n_pairs``; NaN where a score is not
        defined (pairs of a single shift, the kappa of a network that always predicts one class).
    """
    estimates = shift_scores(
        predictions.prediction,
        predictions.label,
        predictions.clean_prediction,
        predictions.drift,
        is_path=plan.mode == "path",
    )
    if not has_labels(predictions.label):
        estimates = {name: value for name, value in estimates.items() if name not in OF_LABELS}
    return _frame(estimates, len(predictions.label))


def measure_invariance(
    model: nn.Module,
    images: Given,
    labels: Tensor | np.ndarray | None = None,
    plan: ShiftPlan | None = None,
    *,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Accuracy and every shift score of a network, with the plan's columns; ``options`` as for :func:`predict`.

    ``images`` in any form of :data:`invariscope.zoo.datasets.given.Given`. Without a ``plan``: nine circular shifts of
    each image by up to an eighth of its shorter side.

    Returns:
        The columns of :func:`score` and of :func:`plan_columns`, one row per score; ``accuracy`` has kind ``none``, but
        for ``crop``: the views are of another scale than the images, and have an accuracy of their own, that of the
        window at the centre. Images without labels have no row of it.
    """
    images, labels = given(model, images, labels)
    if isinstance(labels, ShiftPlan):
        raise DataError("labels are a ShiftPlan: give labels before it, or plan=")
    if plan is None:
        plan = ShiftPlan.sampled(len(images), max(min(image_size(images)) // 8, 1))
    batch_size = options.get("batch_size", BATCH)
    with bar("invariance", -(-len(images) // max(batch_size, 1)), progress) as step:
        predictions = predict(model, images, labels, plan, on_batch=step, **options)
    if not has_labels(predictions.label):
        return score(predictions, plan).assign(**plan_columns(plan))
    unshifted = accuracy_frame(predictions.clean_prediction == predictions.label)
    if not plan.rule.keeps_size:
        unshifted = unshifted.assign(**plan_columns(plan))
    return pd.concat([unshifted, score(predictions, plan).assign(**plan_columns(plan))], ignore_index=True)


def measure_accuracy(
    model: nn.Module, images: Images, labels: Tensor | np.ndarray | None, *, batch_size: int = 256
) -> pd.DataFrame:
    """Top-1 accuracy on the unshifted images: one row with the columns of :func:`measure_invariance`.

    Raises:
        ModelError, DataError: as :func:`predict`.
    """
    need_labels(check_inputs(images, labels, batch_size), "accuracy")
    unshifted = predict_unshifted(model, images, labels, batch_size=batch_size)
    return accuracy_frame(unshifted.prediction == torch.as_tensor(labels).cpu().numpy())


def accuracy_frame(hits: np.ndarray) -> pd.DataFrame:
    """The row of ``accuracy`` from which of the images were predicted right, ``(N,)`` booleans."""
    return _frame({"accuracy": accuracy(hits)}, len(hits)).assign(**plan_columns(None))


def measure_surface(
    model: nn.Module,
    images: Given,
    labels: Tensor | np.ndarray | None,
    max_shift: int,
    kind: str = "circular",
    *,
    step: int = 1,
    fill: str | None = "background",
    black: float | Tensor | None = None,
    size: int | tuple[int, int] | None = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Agreement with the unshifted prediction, and accuracy, at every shift of a grid.

    Args:
        max_shift: largest displacement, in pixels; ``step`` divides it.
        fill: ``background``, ``mean`` or ``black``, kind ``zero`` only.
        black: value(s) of a black pixel, for ``fill="black"`` on a bare tensor.
        size: window of crop shifts.
        options: further ones, as for :func:`predict`.

    Returns:
        One row per ``(dy, dx)``: ``agreement``, ``accuracy``, each with its standard error over images (``_se``),
        ``n_images``, and the plan's columns; NaN for the accuracy of images without labels.
    """
    plan = ShiftPlan.grid(max_shift, step, kind, fill)
    value = black if plan.fill == "black" else None
    images, labels = given(model, images, labels)
    steps = -(-len(images) // max(options.get("batch_size", BATCH), 1))
    with bar("surface", steps, progress) as tick:
        predictions = predict(model, images, labels, plan, size=size, fill=value, on_batch=tick, **options)
    agreement = predictions.prediction == predictions.clean_prediction[:, None]
    right = predictions.prediction == predictions.label[:, None]
    pixels = plan.offsets[0] // plan.rule.steps
    columns: dict[str, Any] = {"dy": pixels[:, 0], "dx": pixels[:, 1]}
    for name, hits in (("agreement", agreement), ("accuracy", right)):
        if name == "accuracy" and not has_labels(predictions.label):
            columns |= {name: np.nan, f"{name}_se": np.nan}
            continue
        estimates = [mean_over_images(column) for column in hits.T]
        columns[name] = [estimate.value for estimate in estimates]
        columns[f"{name}_se"] = [estimate.se for estimate in estimates]
    return pd.DataFrame(columns).assign(n_images=len(predictions.label), **plan_columns(plan))


def plan_columns(plan: ShiftPlan | None) -> dict[str, Any]:
    """The columns that name a plan in the tables; ``None`` stands for unshifted images (kind ``none``)."""
    return {
        "shift_kind": plan.kind if plan else UNSHIFTED,
        "fill": plan.fill if plan else None,
        "max_shift": plan.max_shift if plan else 0,
        "n_shifts": plan.n_shifts if plan else 0,
        "plan": plan.mode if plan else "none",
        "plan_hash": plan.hash if plan else "none",
    }


def unlabelled_frame(n_images: int) -> pd.DataFrame:
    """The row of ``accuracy`` of images without labels, which is missing (NaN)."""
    nothing = ScoreEstimate(np.nan, np.nan, np.nan, np.nan)
    return _frame({"accuracy": nothing}, n_images).assign(**plan_columns(None))


def _frame(estimates: dict[str, ScoreEstimate], n_images: int) -> pd.DataFrame:
    rows = [{"score": name, **vars(estimate), "n_images": n_images} for name, estimate in estimates.items()]
    return pd.DataFrame(rows)[["score", "value", "se", "low", "high", "n_images", "n_pairs"]]


def _unshifted(network: Callable[[Tensor], Any], seen: Tensor, highest: int) -> Unshifted:
    return Unshifted.of(checked_logits(network, seen, highest))


def _predict_shifted(
    network: nn.Module,
    view: ShiftView,
    batch: Tensor,
    offsets: np.ndarray,
    clean: Unshifted,
    batch_size: int,
    moved: Callable[[int, Tensor], Any] | None = None,
) -> dict[str, np.ndarray]:
    """What the network says of a batch, by the names of :class:`Predictions`.

    ``moved(count, views)`` stands for the network where the passes are watched; ``count`` views are of one image.
    Few images go through the network under several shifts at once: small batches cost as much as large ones.
    """
    highest = int(clean.prediction.max())
    together = max(batch_size // len(batch), 1)
    classes = torch.from_numpy(clean.prediction.astype(np.int64)).to(batch.device)[:, None]
    tops, probabilities = [], []
    for start in range(0, offsets.shape[1], together):
        some = offsets[:, start : start + together]
        run = network if moved is None else partial(moved, some.shape[1])
        logits = checked_logits(run, view.shifted(batch, some), highest)
        top = logits.argmax(1, keepdim=True)
        wanted = torch.cat([top, classes.repeat_interleave(some.shape[1], 0)], 1)
        tops.append(top.reshape(len(batch), -1))
        probabilities.append(class_probability(logits, wanted).reshape(len(batch), -1, 2))
    probability = torch.cat(probabilities, 1).cpu().numpy()
    drift_probability = probability[..., 1]
    return {
        "clean_prediction": clean.prediction.astype(_class_type(logits)),
        "clean_probability": clean.probability,
        "prediction": torch.cat(tops, 1).cpu().numpy().astype(_class_type(logits)),
        "drift": mean_drift(drift_probability, clean.probability),
        "probability": probability[..., 0],
        "drift_probability": drift_probability,
    }


def _class_type(logits: Tensor) -> np.dtype[Any]:
    """The smallest signed integer type of a class: predictions are kept for every image and shift."""
    return np.min_scalar_type(-logits.shape[1])
