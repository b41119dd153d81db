"""Shift plans and shifts against per-image loops with numpy's roll, pad and slices."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from invariscope.base.errors import ShiftError
from invariscope.collectors.measure.shifts import ShiftPlan, apply_shift
from invariscope.collectors.shift_kinds import SHIFT_KINDS, check_shift_kind


def padded(image: np.ndarray, dy: int, dx: int, mode: str, fill: np.ndarray | None = None) -> np.ndarray:
    """One image, shifted by padding it generously and slicing a window out."""
    _, height, width = image.shape
    reach = max(abs(dy), abs(dx))
    around = ((reach, reach), (reach, reach))
    planes = [
        np.pad(plane, around, mode=mode) if fill is None else np.pad(plane, around, constant_values=fill[channel])
        for channel, plane in enumerate(image)
    ]
    top, left = reach - dy, reach - dx
    return np.stack(planes)[:, top : top + height, left : left + width]


REFERENCES: dict[str, Callable[[np.ndarray, int, int, np.ndarray], np.ndarray]] = {
    "circular": lambda image, dy, dx, fill: np.roll(image, (dy, dx), axis=(1, 2)),
    "zero": lambda image, dy, dx, fill: padded(image, dy, dx, "constant", fill),
    "reflect": lambda image, dy, dx, fill: padded(image, dy, dx, "reflect"),
    "replicate": lambda image, dy, dx, fill: padded(image, dy, dx, "edge"),
}
"""What each kind that keeps the image's size is, said once more; without an entry a kind of the registry fails here."""

BORDERED = [kind for kind in SHIFT_KINDS if SHIFT_KINDS[kind].keeps_size]
WINDOWS = [kind for kind in SHIFT_KINDS if not SHIFT_KINDS[kind].keeps_size]


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, np.ndarray]:
    n, channels = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    seed = draw(st.integers(0, 999))
    rng = np.random.default_rng(seed)
    offsets = np.stack([rng.integers(1 - height, height, n), rng.integers(1 - width, width, n)], axis=1)
    return torch.from_numpy(rng.normal(size=(n, channels, height, width))), offsets


@pytest.mark.parametrize("kind", [kind for kind in BORDERED if SHIFT_KINDS[kind].steps == 1])
@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_shift_equals_a_loop_over_images(kind, case):
    images, offsets = case
    fill = torch.arange(1.0, 1 + images.shape[1], dtype=images.dtype)
    before = images.clone()
    shifted = apply_shift(images, offsets, kind, fill=fill)
    expected = [
        REFERENCES[kind](image, int(dy), int(dx), fill.numpy())
        for image, (dy, dx) in zip(images.numpy(), offsets, strict=True)
    ]
    np.testing.assert_array_equal(shifted.numpy(), np.stack(expected))
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", WINDOWS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_window_equals_slices(kind, data):
    height, width = data.draw(st.integers(2, 9)), data.draw(st.integers(2, 9))
    window = (data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
    images = torch.randn(3, 2, height, width, generator=torch.Generator().manual_seed(0))
    offsets = []
    for _ in range(3):
        pair = []
        for size, side in zip((height, width), window, strict=True):
            room = size - side
            pair.append(data.draw(st.integers(-(room - room // 2), room // 2)))
        offsets.append(pair)
    cropped = apply_shift(images, torch.tensor(offsets), kind, size=window)
    assert cropped.shape == (3, 2, *window)
    for image, out, (dy, dx) in zip(images, cropped, offsets, strict=True):
        top, left = (height - window[0]) // 2 - dy, (width - window[1]) // 2 - dx
        assert torch.equal(out, image[:, top : top + window[0], left : left + window[1]])


@pytest.mark.parametrize("kind", list(SHIFT_KINDS))
def test_every_kind_says_truly_what_it_is(kind):
    """A kind that takes a fill shows it, one that is reversible is undone by the shift back, and no other is."""
    rule = SHIFT_KINDS[kind]
    check_shift_kind(kind, rule)
    images = torch.rand(1, 1, 6, 6)
    size = None if rule.keeps_size else 4
    offset = torch.tensor([[1, 1]]) * rule.steps
    moved = apply_shift(images, offset, kind, fill=7.0, size=size)
    assert bool((moved == 7).any()) == rule.takes_fill
    if rule.keeps_size:
        back = apply_shift(moved, -offset, kind, fill=7.0)
        assert torch.allclose(back, images, rtol=0, atol=1e-6) == rule.reversible
    plan = ShiftPlan.sampled(2, 1, n_shifts=2, kind=kind)
    assert plan.fill == ("background" if rule.takes_fill else None)
    assert plan.rule is rule


def test_positive_is_down_and_right_under_every_kind():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    for kind in BORDERED:
        moved = apply_shift(image, torch.tensor([[2, 1]]) * SHIFT_KINDS[kind].steps, kind)
        assert moved.round(decimals=5).nonzero().tolist() == [[0, 0, 6, 5]], kind
    assert apply_shift(image, torch.tensor([[2, 1]]), "crop", size=5).nonzero().tolist() == [[0, 0, 4, 3]]
    assert apply_shift(image, torch.tensor([[0, 0]]), "crop", size=5).nonzero().tolist() == [[0, 0, 2, 2]]


def test_uint8_images_and_scalar_fill():
    image = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert apply_shift(image, np.array([[1, 0]]), "zero", fill=9).tolist() == [[[[9, 9], [0, 1]]]]


@pytest.mark.parametrize(
    ("kind", "offsets", "options", "message"),
    [
        ("spiral", [[0, 0]], {}, "unknown shift kind 'spiral'"),
        ("zero", [[4, 0]], {}, "4 pixels does not fit images of 4 x 6"),
        ("reflect", [[0, -6]], {}, "smaller than the image"),
        ("zero", [[1, 0]], {"fill": torch.zeros(3)}, "fill has shape"),
        ("circular", [[0, 0]], {"size": 3}, "give size for crop only"),
        ("crop", [[0, 0]], {}, "needs the window's size"),
        ("crop", [[0, 0]], {"size": 5}, "height 5 does not fit into images of 4"),
        ("crop", [[0, 0]], {"size": 0}, "does not fit"),
        ("crop", [[2, 0]], {"size": (2, 2)}, "window of 2 in images of height 4 can move 1 pixels"),
        ("crop", [[0, -3]], {"size": (2, 2)}, "images of at least 8"),
        ("circular", [[0, 0], [1, 1]], {}, "do not go together"),
        ("circular", [[0.5, 0.5]], {}, "integer offsets"),
    ],
)
def test_bad_shifts_are_refused_in_one_line(kind, offsets, options, message):
    with pytest.raises(ShiftError, match=message) as caught:
        apply_shift(torch.zeros(1, 2, 4, 6), torch.tensor(offsets), kind, **options)
    assert "\n" not in str(caught.value)


def test_sampled_shifts_are_different_and_reach_both_ends():
    plan = ShiftPlan.sampled(2000, max_shift=2, n_shifts=9)
    assert plan.offsets.shape == (2000, 9, 2)
    assert all(len({tuple(pair) for pair in row}) == 9 for row in plan.offsets.tolist())
    for axis in (0, 1):
        assert sorted(set(plan.offsets[:, :, axis].ravel().tolist())) == [-2, -1, 0, 1, 2]


@pytest.mark.parametrize("position", [0, 1, 4, 8])
def test_every_draw_is_uniform(position):
    plan = ShiftPlan.sampled(20_000, max_shift=2, n_shifts=9, seed=7)
    pair = plan.offsets[:, position] + 2
    counts = np.bincount(pair[:, 0] * 5 + pair[:, 1], minlength=25)
    assert chisquare(counts).pvalue > 1e-3


def test_pairs_of_draws_are_uniform_on_different_pairs():
    plan = ShiftPlan.sampled(36_000, max_shift=1, n_shifts=2, seed=3)
    cells = (plan.offsets[..., 0] + 1) * 3 + plan.offsets[..., 1] + 1
    counts = np.zeros((9, 9))
    np.add.at(counts, (cells[:, 0], cells[:, 1]), 1)
    assert counts.diagonal().sum() == 0
    assert chisquare(counts[~np.eye(9, dtype=bool)]).pvalue > 1e-3


def test_all_cells_when_as_many_as_there_are():
    plan = ShiftPlan.sampled(5, max_shift=1, n_shifts=9, seed=1)
    every = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    for row in plan.offsets.tolist():
        assert sorted(map(tuple, row)) == every
    assert len({str(row) for row in plan.offsets.tolist()}) > 1


@pytest.mark.parametrize("make", [ShiftPlan.sampled, ShiftPlan.path])
def test_the_first_images_do_not_depend_on_how_many_follow(make):
    long, short = (make(n, 4, n_shifts=9, seed=5) for n in (50, 20))
    np.testing.assert_array_equal(long.offsets[:20], short.offsets)
    np.testing.assert_array_equal(long.for_rows(10, 15), short.offsets[10:15])
    assert not np.array_equal(make(20, 4, n_shifts=9, seed=6).offsets, short.offsets)


def test_a_plan_stays_the_same_from_release_to_release():
    plan = ShiftPlan.sampled(2, 4, n_shifts=3, seed=0)
    words = np.random.Philox(key=0).random_raw(6).reshape(2, 3).tolist()
    expected = []
    for row in words:
        left = list(range(81))
        cells = [left.pop(word % len(left)) for word in row]
        expected.append([[cell // 9 - 4, cell % 9 - 4] for cell in cells])
    assert plan.offsets.tolist() == expected
    assert plan.hash == "bff6acf8680589e764f5c50246903ad0017ce051120e06bddaaacb9d65f34b32"


def test_grid_is_row_by_row_with_both_ends():
    plan = ShiftPlan.grid(4, step=2)
    axis = [-4, -2, 0, 2, 4]
    assert plan.offsets.tolist() == [[[dy, dx] for dy in axis for dx in axis]]
    assert plan.for_rows(3, 7).shape == (4, 25, 2)
    with pytest.raises(ShiftError, match="divides max_shift"):
        ShiftPlan.grid(4, step=3)


def test_paths_walk_one_pixel_at_a_time_in_every_direction():
    plan = ShiftPlan.path(400, max_shift=2, n_shifts=12)
    steps = np.diff(plan.offsets, axis=1)
    assert set(np.abs(steps).sum(2).ravel().tolist()) == {1}
    assert np.abs(plan.offsets).max() == 2
    # On a straight line: one of the two coordinates never changes.
    assert ((np.ptp(plan.offsets, axis=1) == 0).sum(1) == 1).all()
    inner = np.abs(plan.offsets[:, 0]).max(1) < 2
    assert {tuple(step) for step in steps[inner, 0].tolist()} == {(1, 0), (-1, 0), (0, 1), (0, -1)}
    starts = (plan.offsets[:, 0] + 2) @ [5, 1]
    assert chisquare(np.bincount(starts, minlength=25)).pvalue > 1e-3


def test_equal_arguments_give_the_same_plan():
    for make in (
        lambda: ShiftPlan.sampled(3, 4, kind="zero", fill="black", seed=2),
        lambda: ShiftPlan.grid(2, kind="crop"),
        lambda: ShiftPlan.path(3, 4, 5, kind="reflect"),
    ):
        plan, again = make(), make()
        assert again.hash == plan.hash
        np.testing.assert_array_equal(again.offsets, plan.offsets)


def test_hash_tells_comparisons_apart():
    plans = [
        ShiftPlan.sampled(3, 4),
        ShiftPlan.sampled(3, 4, seed=1),
        ShiftPlan.sampled(4, 4),
        ShiftPlan.sampled(3, 4, kind="zero"),
        ShiftPlan.sampled(3, 4, kind="zero", fill="black"),
        ShiftPlan.sampled(3, 5),
        ShiftPlan.grid(4),
    ]
    assert len({plan.hash for plan in plans}) == len(plans)
    assert ShiftPlan.sampled(3, 4).hash == plans[0].hash


def test_a_plan_that_is_none_is_refused():
    plan = ShiftPlan.sampled(3, 4)
    for change, message in (
        ({"offsets": np.array([[0, 0]])}, r"shape \(images, shifts, 2\)"),
        ({"offsets": np.array([[[0.0, 0.0]]])}, "float64 of shape"),
        ({"max_shift": 1}, "max_shift is 1"),
        ({"max_shift": "4"}, "max_shift is '4': give a whole number"),
        ({"max_shift": 1 << 40, "offsets": np.array([[[1 << 32, 0]]])}, "a whole number of at most"),
    ):
        with pytest.raises(ShiftError, match=message):
            dataclasses.replace(plan, **change)


def test_a_plan_cannot_be_changed():
    plan = ShiftPlan.sampled(3, 4)
    with pytest.raises(ValueError, match="read-only"):
        plan.offsets[0, 0, 0] = 1
    with pytest.raises(AttributeError):
        plan.kind = "zero"
    source = np.zeros((1, 1, 2), dtype=np.int32)
    made = ShiftPlan("circular", "grid", 0, None, 0, source)
    source[0, 0, 0] = 7
    assert made.offsets[0, 0, 0] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShiftPlan.sampled(3, 1, n_shifts=10), "10 different shifts were asked for and max_shift=1 has 9"),
        (lambda: ShiftPlan.sampled(0, 1), "n_images is 0"),
        (lambda: ShiftPlan.sampled(3, -1), "max_shift is -1"),
        (lambda: ShiftPlan.sampled(3, 1 << 31), "max_shift is 2147483648: give a whole number of at most"),
        (lambda: ShiftPlan.sampled(3, 1, seed=1 << 128), "seed is .*: give a whole number of at most"),
        (lambda: ShiftPlan.sampled(3, 1.5), "whole number"),
        (lambda: ShiftPlan.sampled(3, 2, n_shifts=0), "n_shifts is 0"),
        (lambda: ShiftPlan.sampled(3, 2, kind="zeros"), "did you mean 'zero'"),
        (lambda: ShiftPlan.sampled(3, 2, kind="zero", fill="white"), "background, mean, black"),
        (lambda: ShiftPlan.path(3, 0), "no step"),
        (lambda: ShiftPlan.path(3, 4, 1), "no step"),
        (lambda: ShiftPlan.sampled(3, 2).for_rows(0, 4), "3 images and 4 are measured"),
        (lambda: ShiftPlan("circular", "grid", 2, None, 0, np.zeros((2, 1, 2), int)), "one list of shifts"),
        (lambda: ShiftPlan("circular", "walk", 2, None, 0, np.zeros((1, 1, 2), int)), "unknown shift plan mode"),
        (lambda: ShiftPlan("circular", "grid", 2, "mean", 0, np.zeros((1, 1, 2), int)), "has no fill"),
    ],
)
def test_bad_plans_are_refused_in_one_line(make, message):
    with pytest.raises(ShiftError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [ShiftPlan.sampled, ShiftPlan.path])
def test_blocks_of_images_change_nothing(make, monkeypatch):
    whole = make(50, 3, n_shifts=4, seed=1)
    monkeypatch.setattr("invariscope.collectors.measure.shifts.BLOCK", 7)
    parts = make(50, 3, n_shifts=4, seed=1)
    np.testing.assert_array_equal(parts.offsets, whole.offsets)
    assert parts.hash == whole.hash


def test_the_hash_is_of_the_shifts_and_not_of_their_type():
    offsets = ShiftPlan.sampled(30, 4, n_shifts=3, seed=5).offsets
    assert offsets.dtype == np.int8
    head = json.dumps(["circular", "sampled", None, 4, list(offsets.shape)])
    expected = hashlib.sha256(head.encode() + offsets.astype("<i4").tobytes()).hexdigest()
    assert ShiftPlan.sampled(30, 4, n_shifts=3, seed=5).hash == expected


@pytest.mark.parametrize(("max_shift", "kind"), [(63, np.int8), (64, np.int16), (1 << 20, np.int32)])
def test_offsets_are_kept_in_a_small_type_that_holds_their_differences(max_shift, kind):
    plan = ShiftPlan("circular", "grid", max_shift, None, 0, np.array([[[max_shift, 0], [-max_shift, 0]]]))
    assert plan.offsets.dtype == kind
    first, second = plan.offsets[0]
    assert [(first - second).tolist(), (second - first).tolist()] == [[2 * max_shift, 0], [-2 * max_shift, 0]]
