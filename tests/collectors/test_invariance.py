"""Predictions and their tables on small networks, against per-image loops, and every refusal."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invariscope.base.errors import DataError, ModelError, ShiftError
from invariscope.collectors import schema as contract
from invariscope.collectors.measure.invariance import (
    Predictions,
    measure_accuracy,
    measure_invariance,
    measure_surface,
    plan_columns,
    predict,
    score,
)
from invariscope.collectors.measure.shifts import ShiftPlan
from invariscope.collectors.schema import SCORES, TABLES
from invariscope.zoo.datasets.imageset import ImageSet
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages

IDENTITY, PROVENANCE = ([field.name for field in fields] for fields in (contract.IDENTITY, contract.PROVENANCE))


def small_network(seed: int = 0, channels: int = 2, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(classes)
    )


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(23, 2, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(23) % 4


@pytest.fixture
def model(images) -> nn.Module:
    network = small_network()
    network(images)
    return network.train()


class Returning(nn.Module):
    """A network that returns what it was made with."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


@pytest.mark.parametrize("kind", ["circular", "zero", "reflect", "crop"])
def test_predictions_equal_a_loop_over_images_and_shifts(model, images, labels, kind):
    plan = ShiftPlan.sampled(len(images), 1, n_shifts=3, kind=kind, seed=2)
    network = small_network()
    size = 6 if kind == "crop" else None
    network(images[:, :, :size, :size])
    found = predict(network, images, labels, plan, batch_size=5, size=size, fill=0.25)
    network.eval()

    def view(image, dy, dx):
        if kind == "circular":
            return image.roll((dy, dx), (1, 2))
        if kind == "crop":
            return image[:, 1 - dy : 7 - dy, 1 - dx : 7 - dx]
        mode, options = ("reflect", {}) if kind == "reflect" else ("constant", {"value": 0.25})
        padded = nn.functional.pad(image[None], (1, 1, 1, 1), mode=mode, **options)[0]
        return padded[:, 1 - dy : 9 - dy, 1 - dx : 9 - dx]

    with torch.no_grad():
        for n, image in enumerate(images):
            clean = network(view(image, 0, 0)[None]).softmax(1)[0]
            assert found.clean_prediction[n] == clean.argmax()
            assert found.clean_probability[n] == pytest.approx(float(clean.max()), abs=1e-6)
            for k, (dy, dx) in enumerate(plan.offsets[n].tolist()):
                shifted = network(view(image, dy, dx)[None]).softmax(1)[0]
                assert found.prediction[n, k] == shifted.argmax()
                assert found.probability[n, k] == pytest.approx(float(shifted.max()), abs=1e-6)
                drift = float(shifted[clean.argmax()])
                assert found.drift_probability[n, k] == pytest.approx(drift, abs=1e-6)
    np.testing.assert_array_equal(found.offsets, plan.offsets)
    np.testing.assert_array_equal(found.label, labels)


def test_scores_do_not_depend_on_the_batch_size(model, images, labels):
    plan = ShiftPlan.sampled(len(images), 3, kind="zero")
    whole = measure_invariance(model, images, labels, plan, batch_size=256)
    for batch_size in (1, 7, 23):
        part = measure_invariance(model, images, labels, plan, batch_size=batch_size)
        for column in ("value", "se", "low", "high"):
            np.testing.assert_allclose(part[column], whole[column], atol=1e-6)


def test_the_first_images_score_the_same_under_a_longer_plan(model, images, labels):
    short = measure_invariance(model, images[:9], labels[:9], ShiftPlan.sampled(9, 3))
    long = measure_invariance(model, images[:9], labels[:9], ShiftPlan.sampled(500, 3))
    np.testing.assert_allclose(short["value"], long["value"], atol=1e-6)


def test_a_global_mean_is_exactly_invariant_under_circular_shifts(labels):
    # Integers add up exactly in any order.
    images = torch.randint(-9, 9, (23, 2, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    network = Returning(lambda x: torch.cat([x.sum((2, 3)), -x.sum((2, 3))], dim=1))
    table = measure_invariance(network, images, labels, ShiftPlan.sampled(23, 4)).set_index("score")
    for name in ("consistency", "consistency_to_clean", "kappa"):
        assert table.loc[name, "value"] == 1.0, name
        assert table.loc[name, "se"] == 0.0
        assert table.loc[name, "high"] == 1.0
    assert table.loc["consistency", "low"] == pytest.approx(1 - 3 / 23)
    assert table.loc["probability_drift", "value"] == 0.0
    assert table.loc["probability_drift", "high"] == pytest.approx(3 / 23)
    assert table.loc["fidelity", "value"] == table.loc["accuracy", "value"] == table.loc["worst_case_accuracy", "value"]


def test_tables_have_the_columns_of_the_schema(model, images, labels):
    plan = ShiftPlan.path(len(images), 2, kind="zero", fill="black")
    table = measure_invariance(model, images, labels, plan, fill=-1.0)
    assert set(table.columns) == set(TABLES["invariance"].names) - {*IDENTITY, *PROVENANCE, "precision"}
    assert set(table["score"]) == set(SCORES)
    unshifted = table[table["score"] == "accuracy"].iloc[0]
    assert (unshifted["shift_kind"], unshifted["max_shift"], unshifted["plan"]) == ("none", 0, "none")
    shifted = table[table["score"] != "accuracy"]
    for column, value in plan_columns(plan).items():
        assert (shifted[column] == value).all(), column
    surface = measure_surface(model, images, labels, 1)
    assert set(surface.columns) == set(TABLES["surface"].names) - {*IDENTITY, *PROVENANCE, "precision"}
    frame = predict(model, images, labels, plan, fill=-1.0).to_frame().assign(**plan_columns(plan))
    assert set(frame.columns) == set(TABLES["predictions"].names) - {*IDENTITY, *PROVENANCE, "precision"}
    for rows, schema in ((table, TABLES["invariance"]), (surface, TABLES["surface"]), (frame, TABLES["predictions"])):
        fields = [schema.field(name) for name in rows.columns]
        pa.Table.from_pandas(rows, pa.schema(fields), preserve_index=False)


def test_every_score_can_be_recomputed_from_the_stored_predictions(model, images, labels):
    plan = ShiftPlan.path(len(images), 3)
    predictions = predict(model, images, labels, plan)
    stored = pa.Table.from_pandas(predictions.to_frame().sample(frac=1, random_state=0)).to_pandas()
    again = score(Predictions.from_frame(stored), plan)
    np.testing.assert_array_equal(again["value"], score(predictions, plan)["value"])
    np.testing.assert_array_equal(Predictions.from_frame(stored).offsets, plan.offsets)


def test_flip_rate_is_for_paths_only(model, images, labels):
    plans = (ShiftPlan.sampled(23, 2), ShiftPlan.grid(1), ShiftPlan.path(23, 2))
    has_flips = ["flip_rate" in set(measure_invariance(model, images, labels, plan)["score"]) for plan in plans]
    assert has_flips == [False, False, True]


def test_surface_equals_a_loop_over_shifts(model, images, labels):
    surface = measure_surface(model, images, labels, 2, "circular", step=2).set_index(["dy", "dx"])
    network = model.eval()
    with torch.no_grad():
        clean = network(images).argmax(1)
        for dy in (-2, 0, 2):
            for dx in (-2, 0, 2):
                predicted = network(images.roll((dy, dx), (2, 3))).argmax(1)
                for name, hits in (("agreement", predicted == clean), ("accuracy", predicted == labels)):
                    values = hits.double().numpy()
                    assert surface.loc[(dy, dx), name] == pytest.approx(values.mean())
                    assert surface.loc[(dy, dx), f"{name}_se"] == pytest.approx(values.std(ddof=1) / np.sqrt(23))
    assert len(surface) == 9
    assert surface.loc[(0, 0), "agreement"] == 1.0
    assert (surface["n_images"] == 23).all()


def test_accuracy_alone_equals_the_accuracy_of_the_whole_table(model, images, labels):
    alone = measure_accuracy(model, images, labels, batch_size=4)
    table = measure_invariance(model, images, labels, ShiftPlan.sampled(23, 1))
    row = table[table["score"] == "accuracy"]
    assert alone.to_dict("list") == row.to_dict("list")
    with torch.no_grad():
        assert alone["value"][0] == pytest.approx(float((model.eval()(images).argmax(1) == labels).double().mean()))


@pytest.fixture
def prepared() -> PreparedImages:
    pixels = torch.randint(0, 256, (12, 3, 12, 12), generator=torch.Generator().manual_seed(4)).to(torch.uint8)
    imageset = ImageSet("random/test", pixels, torch.arange(12) % 3, ("a", "b", "c"))
    return PreparedImages(imageset, InputSpec(8, (0.5, 0.4, 0.3), (0.2, 0.2, 0.5)), size=12)


def test_prepared_images_give_their_own_window_and_black(prepared):
    seen: list[torch.Tensor] = []
    network = Returning(lambda x: (seen.append(x), x.mean((2, 3)))[1])
    predict(network, prepared, prepared.labels, ShiftPlan.sampled(12, 2, kind="crop"))
    # The unshifted images, then nine shifts of each of them in one pass.
    assert [tuple(x.shape) for x in seen] == [(12, 3, 8, 8), (108, 3, 8, 8)]
    assert torch.equal(seen[0], prepared[0:12][:, :, 2:10, 2:10])
    seen.clear()
    down = ShiftPlan("zero", "grid", 1, "black", 0, np.array([[[1, 0]]]))
    predict(network, prepared, prepared.labels, down)
    assert torch.equal(seen[1][:, :, 0, :], torch.tensor([-2.5, -2.0, -0.6])[None, :, None].expand(12, 3, 12))
    assert torch.equal(seen[1][:, :, 1:], seen[0][:, :, :-1])
    seen.clear()
    predict(network, prepared, prepared.labels, ShiftPlan("zero", "grid", 1, "mean", 0, np.array([[[1, 0]]])))
    assert (seen[1][:, :, 0, :] == 0).all()


def test_surface_of_prepared_images_fills_with_black(prepared):
    seen: list[torch.Tensor] = []
    network = Returning(lambda x: (seen.append(x), x.mean((2, 3)))[1])
    measure_surface(network, prepared, prepared.labels, 1, "zero", fill="black")
    # Row 8 of the shifted images: the first image, shifted by (1, 1).
    assert torch.allclose(seen[-1][8, :, 0, 0], torch.tensor([-2.5, -2.0, -0.6]))


@pytest.mark.parametrize("was_training", [True, False])
def test_the_mode_of_every_module_is_restored_also_after_a_failure(images, labels, was_training):
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(128, 4)).train(was_training)
    network[0].eval()
    before = network[0].running_mean.clone()
    plan = ShiftPlan.sampled(23, 1)
    first, second = (predict(network, images, labels, plan) for _ in range(2))
    np.testing.assert_array_equal(first.probability, second.probability)
    assert [module.training for module in network.modules()] == [was_training, False, *[was_training] * 3]
    with pytest.raises(DataError):
        predict(network, images, labels + 1, plan)
    assert [module.training for module in network.modules()] == [was_training, False, *[was_training] * 3]
    assert torch.equal(network[0].running_mean, before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: {"scores": x.mean((2, 3))}, "returned a dict"),
        (lambda x: (x.mean((2, 3)),), "returned a tuple"),
        (lambda x: x, r"of shape \(23, 2, 8, 8\)"),
        (lambda x: x.mean((1, 2, 3)), r"of shape \(23,\)"),
        (lambda x: x[:3].mean((2, 3)), r"of shape \(3, 2\)"),
        (lambda x: x.flatten(1)[:, :0], r"of shape \(23, 0\)"),
        (lambda x: x.mean((2, 3)).argmax(1, keepdim=True), "torch.int64"),
        (lambda x: x.mean((2, 3)) * float("nan"), "NaN or infinite"),
        (lambda x: x.mean((2, 3)) / 0, "NaN or infinite"),
        (nn.Conv2d(3, 4, 3), r"failed on images of shape \(23, 2, 8, 8\)"),
        (nn.Linear(3, 4), "RuntimeError"),
    ],
)
def test_networks_without_logits_are_refused_in_one_line(images, labels, make, message):
    plan = ShiftPlan.sampled(23, 1)
    for measure in (lambda n: predict(n, images, labels, plan), lambda n: measure_accuracy(n, images, labels)):
        with pytest.raises(ModelError, match=message) as caught:
            measure(Returning(make))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y + 1), "a label 4 and Sequential has 4 classes"),
        (lambda x, y: (x, y - 1), "image 0 has the label -1"),
        (lambda x, y: (x, y.float()), "torch.float32"),
        (lambda x, y: (x, y.double() * float("nan")), "torch.float64"),
        (lambda x, y: (x, np.array(list("ab"))[y % 2]), "labels are no numbers"),
        (lambda x, y: (x, y[:5]), r"shape \(5,\) and there are 23 images"),
        (lambda x, y: (x, y[:, None]), "give one for each"),
        (lambda x, y: (x[:0], y[:0]), "no images"),
        (lambda x, y: (x[0], y[:2]), "floating-point images"),
        (lambda x, y: (x.to(torch.uint8), y), "torch.uint8"),
        (lambda x, y: (x.index_fill(0, torch.tensor([11]), float("nan")), y), "image 11 holds NaN"),
        (lambda x, y: (x.index_fill(0, torch.tensor([2]), float("inf")), y), "image 2 holds NaN or infinite"),
    ],
)
def test_bad_images_and_labels_are_refused_in_one_line(model, images, labels, change, message):
    wrong_images, wrong_labels = change(images, labels)
    plan = ShiftPlan.sampled(23, 1)
    for measure in (
        lambda: predict(model, wrong_images, wrong_labels, plan, batch_size=4),
        lambda: measure_accuracy(model, wrong_images, wrong_labels, batch_size=4),
    ):
        with pytest.raises(DataError, match=message) as caught:
            measure()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("plan", "options", "message"),
    [
        (ShiftPlan.sampled(22, 1), {}, "shifts for 22 images and 23 are measured"),
        (ShiftPlan.sampled(23, 8), {}, "8 pixels does not fit images of 8 x 8"),
        (ShiftPlan.sampled(23, 2, kind="zero", fill="black"), {}, "the value of a black pixel"),
        (ShiftPlan.sampled(23, 2, kind="crop"), {}, "needs the window's size"),
        (ShiftPlan.sampled(23, 2, kind="crop"), {"size": 5}, "window of 5 in images of height 8 can move 1"),
        (ShiftPlan.sampled(23, 2), {"size": 5}, "give size for crop only"),
    ],
)
def test_plans_that_do_not_fit_are_refused_in_one_line(model, images, labels, plan, options, message):
    with pytest.raises(ShiftError, match=message) as caught:
        predict(model, images, labels, plan, **options)
    assert "\n" not in str(caught.value)


def test_a_crop_of_zero_padded_images_is_refused(images, labels):
    network = Returning(lambda x: x.mean((2, 3)).repeat(1, 2))
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    plan = ShiftPlan.sampled(23, 2, kind="crop")
    for batch_size in (1, 2, 256):
        with pytest.raises(ShiftError, match=r"all of the first 23 images .* zero shift under another name"):
            predict(network, padded, labels, plan, size=8, batch_size=batch_size)
    padded[3, 0, 0, 5] = 1.0
    for batch_size in (1, 2, 256):
        predict(network, padded, labels, plan, size=8, batch_size=batch_size)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_labels_of_any_integer_type_give_the_same_accuracy(model, images, labels, dtype):
    expected = measure_accuracy(model, images, labels)
    assert measure_accuracy(model, images, np.asarray(labels).astype(dtype)).equals(expected)


def test_batch_size_below_one_is_refused(model, images, labels):
    with pytest.raises(DataError, match="batch_size is 0"):
        predict(model, images, labels, ShiftPlan.sampled(23, 1), batch_size=0)


def test_a_network_of_another_floating_point_type() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).double()
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    plan = ShiftPlan.sampled(6, 2, n_shifts=3)
    in_double = measure_invariance(model, images.double(), labels, plan)
    pd.testing.assert_frame_equal(measure_invariance(model, images, labels, plan), in_double)


def test_scores_need_no_probabilities_of_every_shift(model, images, labels):
    plan = ShiftPlan.sampled(len(images), 2, n_shifts=4)
    kept = predict(model, images, labels, plan, batch_size=5)
    without = predict(model, images, labels, plan, batch_size=5, keep_probabilities=False)
    pd.testing.assert_frame_equal(score(without, plan), score(kept, plan), check_exact=True)
    assert without.probability is None
    with pytest.raises(ValueError, match="keep_probabilities=True"):
        without.to_frame()


@pytest.mark.parametrize("classes", [128, 129, 40_000])
def test_any_number_of_classes_has_its_own_predictions(images, classes):
    top = torch.arange(len(images)) + classes - len(images)
    network = Returning(lambda x: F.one_hot(top.repeat_interleave(len(x) // len(top)), classes).float())
    found = predict(network, images, np.zeros(23, int), ShiftPlan.sampled(23, 1, n_shifts=3))
    np.testing.assert_array_equal(found.clean_prediction, top)
    np.testing.assert_array_equal(found.prediction, top[:, None].expand(-1, 3))


def test_zero_shifts_fill_with_the_background(prepared):
    """Per channel the median of the border pixels before normalisation, as an explicit list of them has it."""
    seen: list[torch.Tensor] = []
    network = Returning(lambda x: (seen.append(x), x.mean((2, 3)))[1])
    down = ShiftPlan("zero", "grid", 1, "background", 0, np.array([[[1, 0]]]))
    predict(network, prepared, prepared.labels, down)
    height, width = prepared.imageset.images.shape[2:]
    on_border = [(y, x) for y in range(height) for x in range(width) if y in (0, height - 1) or x in (0, width - 1)]
    for channel in range(3):
        pixels = [int(image[channel, y, x]) for image in prepared.imageset.images for y, x in on_border]
        value = (np.median(pixels) / 255 - prepared.spec.mean[channel]) / prepared.spec.std[channel]
        strip = seen[1][:, channel, 0, :]
        assert torch.allclose(strip, torch.full_like(strip, value), atol=1e-6)
    bare = prepared[:]
    seen.clear()
    predict(network, bare, prepared.labels, down)
    borders = torch.stack([bare[:, :, y, x] for y, x in _border_of(bare)], dim=-1)
    expected = borders.transpose(0, 1).flatten(1).double().quantile(0.5, dim=1).float()
    assert torch.allclose(seen[1][0, :, 0, 0], expected, atol=1e-6)


def _border_of(images):
    height, width = images.shape[2:]
    return [(y, x) for y in range(height) for x in range(width) if y in (0, height - 1) or x in (0, width - 1)]
