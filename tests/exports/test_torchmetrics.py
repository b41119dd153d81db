"""The metrics for torchmetrics are the scores of the tables, whatever the batches and the processes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from invariscope.base.errors import ShiftError
from invariscope.collectors.measure.scores import shift_scores
from invariscope.torchmetrics import ShiftConsistency, ShiftFidelity, ShiftKappa

CLASSES = 5


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Predictions of 41 images under 7 shifts, most of which agree, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 41)
    noisy = rng.random((41, 7)) < 0.3
    return np.where(noisy, rng.integers(0, CLASSES, (41, 7)), labels[:, None]), labels


def counted(predictions: np.ndarray, labels: np.ndarray) -> dict[str, Fraction]:
    """The definitions, pair by pair, in whole numbers."""
    pairs = [(n, a, b) for n, row in enumerate(predictions) for a, b in itertools.combinations(row, 2)]
    agree = Fraction(sum(a == b for _, a, b in pairs), len(pairs))
    right = Fraction(sum(a == b == labels[n] for n, a, b in pairs), len(pairs))
    chance = sum((Fraction(int((predictions == c).sum()), predictions.size) ** 2 for c in range(CLASSES)), Fraction(0))
    return {"consistency": agree, "fidelity": right, "kappa": (agree - chance) / (1 - chance)}


METRICS: dict[str, tuple[Callable[[], Any], bool]] = {
    "consistency": (ShiftConsistency, False),
    "fidelity": (ShiftFidelity, True),
    "kappa": (lambda: ShiftKappa(CLASSES), False),
}


def fed(name: str, predictions: np.ndarray, labels: np.ndarray, sizes: list[int], *, scores: bool = False) -> Any:
    make, labelled = METRICS[name]
    metric, start = make(), 0
    for size in sizes:
        some = torch.from_numpy(predictions[start : start + size])
        given = torch.nn.functional.one_hot(some, CLASSES).float() if scores else some
        metric.update(given, *([torch.from_numpy(labels[start : start + size])] if labelled else []))
        start += size
    return metric


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("sizes", [[41], [1, 16, 20, 4], [0, 41]])
def test_streamed_batches_give_the_definition_and_our_score(
    name: str, sizes: list[int], drawn: tuple[np.ndarray, np.ndarray]
) -> None:
    predictions, labels = drawn
    value = float(fed(name, predictions, labels, sizes).compute())
    ours = shift_scores(predictions, labels, predictions[:, 0], np.zeros(41))[name].value
    assert value == pytest.approx(float(counted(predictions, labels)[name]), abs=1e-12)
    assert value == pytest.approx(ours, abs=1e-12)
    assert float(fed(name, predictions, labels, sizes, scores=True).compute()) == value


@pytest.mark.parametrize("name", METRICS)
def test_states_of_two_processes_add_up(name: str, drawn: tuple[np.ndarray, np.ndarray]) -> None:
    """As torchmetrics reduces them: the sum of each state, by the function that the state names."""
    predictions, labels = drawn
    halves = [fed(name, predictions[part], labels[part], [99]) for part in (slice(0, 13), slice(13, None))]
    whole = METRICS[name][0]()
    for state, reduce in whole._reductions.items():
        setattr(whole, state, reduce(torch.stack([getattr(half, state) for half in halves])))
    whole._update_count = 2
    assert float(whole.compute()) == pytest.approx(float(counted(predictions, labels)[name]), abs=1e-12)
    assert set(whole._reductions) >= {"pairs", "agreeing"}


def test_reset_and_forward(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    predictions, labels = drawn
    metric = fed("consistency", predictions, labels, [41])
    metric.reset()
    some = torch.tensor([[1, 1, 2]])
    assert float(metric(some)) == pytest.approx(1 / 3)
    assert float(metric(torch.tensor([[0, 0, 0]]))) == 1
    assert float(metric.compute()) == pytest.approx(4 / 6)
    constant = ShiftKappa(3)
    constant.update(torch.ones(4, 3, dtype=torch.long))
    assert torch.isnan(constant.compute())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.zeros(4, 3), "float32 of shape"),
        (torch.zeros(4, dtype=torch.long), "int64 of shape"),
        (torch.zeros(4, 1, dtype=torch.long), "1 shift per image"),
        (torch.full((4, 3), 9), "num_classes is 5"),
        (torch.full((4, 3), -1), "num_classes is 5"),
    ],
)
def test_other_predictions_are_refused(given: torch.Tensor, words: str) -> None:
    with pytest.raises(ShiftError, match=words):
        ShiftKappa(CLASSES).update(given)


def test_other_labels_and_numbers_of_shifts_are_refused() -> None:
    metric = ShiftFidelity()
    metric.update(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ShiftError, match="4 shifts per image after 3"):
        metric.update(torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ShiftError, match="give one per image"):
        metric.update(torch.zeros(2, 3, dtype=torch.long), torch.zeros(3, dtype=torch.long))
