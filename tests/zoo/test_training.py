from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from invariscope.base.errors import ManifestError, ModelError, OperatorError, RecipeError
from invariscope.base.files import sha256_file
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.imageset import ImageSet
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.recipe import read_recipe
from invariscope.zoo.run import Run
from invariscope.zoo.training import input_spec, random_shift, total_loss, train_recipe, train_run
from invariscope.zoo.training import trainer as trainer_module
from invariscope.zoo.training.trainer import Trainer

QUICK = {"model": {"width": 2}, "batch_size": 256}


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


SMALL = """
defaults: {data: digits, epochs: 2, batch_size: 256, model: {width: 2}, snapshots: [1], wake_up: 0}
grid:
  - operator: [max, lps, tips]
    padding_mode: [circular, zeros]
    seed: 0
"""


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.safetensors"))}


@pytest.fixture(scope="module")
def small_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    report = train_recipe(recipe(folder, SMALL), folder / "zoo", progress=False)
    assert len(report.trained) == 6
    assert report.failed == report.skipped == ()
    return folder / "zoo"


def test_a_grid_is_expanded_to_the_product(tmp_path: Path) -> None:
    text = """
defaults: {epochs: 4, lr: 1e-2, operator: avg}
grid:
  - {operator: [max, soft(beta=4)], seed: [0, 1], padding_mode: circular}
  - alpha: [0, 0.5]
    model: [{width: 2}, {width: 4}]
    snapshots: [[1], [1, 2]]
"""
    runs = read_recipe(recipe(tmp_path, text))
    common = Run(epochs=4, lr=0.01, operator="avg")
    assert runs[:4] == [
        replace(common, operator=operator, seed=seed, padding_mode="circular")
        for operator, seed in itertools.product(["max", "soft(beta=4)"], [0, 1])
    ]
    expected = [
        (alpha, {"width": width}, snapshots)
        for alpha, width, snapshots in itertools.product([0.0, 0.5], [2, 4], [(1,), (1, 2)])
    ]
    assert [(run.alpha, run.model, run.snapshots) for run in runs[4:]] == expected
    assert [run.id for run in runs[:2]] == ["smallcnn-max-circular-s0", "smallcnn-max-circular-s1"]
    assert runs[2].snapshot_name(4) == "smallcnn-soft-beta4-circular-s0-e004"
    assert runs[4].id == "smallcnn-avg-zeros-s0-alpha0-width2-snapshots1"
    assert len({run.id for run in runs}) == len(runs)


def test_one_grid_without_a_list_is_one_run(tmp_path: Path) -> None:
    assert read_recipe(recipe(tmp_path, "grid: {}\n")) == [Run()]


@pytest.mark.parametrize(
    ("operator", "slug"),
    [
        ("tips(pool=phase)", "tips-phase"),
        ("tips(pool=phase, hard=true)", "tips-phase-hard"),
        ("lp(p=1.5)", "lp-p1.5"),
        ("lp(p=inf)", "lp-inf"),
        ("blur(3)", "blur-3"),
    ],
)
def test_run_ids_are_file_names(operator: str, slug: str) -> None:
    assert Run(operator=operator).id == f"smallcnn-{slug}-zeros-s0"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("defaults: {}\n", 1, "the recipe lacks 'grid'"),
        ("grid: {}\nruns: 3\n", 2, "unknown key 'runs'"),
        ("grid: []\n", 1, "grid is [], and must be a list of at least one item"),
        ("grid: max\n", 1, "the grid is 'max', and must be a mapping"),
        ("grid: {operators: [max]}\n", 1, "unknown key 'operators': did you mean 'operator'?"),
        ("defaults:\n  operators: max\ngrid: {}\n", 2, "unknown key 'operators'"),
        ("grid:\n  seed: [0, 0]\n", 2, "seed lists 0 twice"),
        ("grid:\n  seed: -1\n", 2, "seed is -1, and must be an integer of at least 0"),
        ("grid:\n  seed: 0.5\n", 2, "seed is 0.5, and must be an integer"),
        ("grid:\n  seed: []\n", 2, "seed is [], and must be a list of at least one item"),
        ("grid:\n  epochs: 0\n", 2, "epochs is 0, and must be an integer of at least 1"),
        ("grid:\n  lr: fast\n", 2, "lr is 'fast', and must be a number"),
        ("grid:\n  lr: 0\n", 2, "lr is 0, and must be positive"),
        ("grid:\n  alpha: 1.5\n", 2, "alpha is 1.5, and must be a number of between 0 and 1"),
        ("grid:\n  operator: [max, 3]\n", 2, "operator is 3, and must be text"),
        ("grid:\n  operator: maxx\n", 2, "unknown operator 'maxx'"),
        ("grid:\n  operator: soft(gamma=2)\n", 2, "soft has no argument 'gamma'"),
        ("grid:\n  architecture: resnet21\n", 2, "unknown architecture 'resnet21'"),
        ("grid:\n  padding_mode: zero\n", 2, "padding_mode is 'zero', and must be one of zeros"),
        ("grid:\n  optimizer: adam\n", 2, "optimizer is 'adam', and must be one of adamw, sgd"),
        ("grid:\n  snapshots: [99]\n", 2, "a snapshot is wanted after epoch 99 of 30"),
        ("grid:\n  snapshots: [0]\n", 2, "snapshots is 0, and must be an integer of at least 1"),
        ("grid:\n  model: 3\n", 2, "model is 3, and must be a mapping"),
        ("grid:\n  model: {width: }\n", 2, "model.width has no value"),
        ("grid:\n  - seed: 0\n  - seed: 0\n", 3, "the run smallcnn-max-zeros-s0 stands already in the grid of line 2"),
        ("grid:\n  - operator: soft(2)\n  - operator: soft(beta=2)\n", 3, "stands already in the grid of line 2"),
        ("grid:\n  - lr: 0.1\n  - lr: 0.2\n", 3, "tell different ones apart by a `label`"),
    ],
)
def test_recipe_errors_name_file_and_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = recipe(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no such recipe: check the path"):
        read_recipe(tmp_path / "no.yaml")


def test_the_zoo_is_what_the_recipe_says(small_zoo: Path) -> None:
    checkpoints = read_manifest(small_zoo)
    assert len(checkpoints) == 12
    images = load_dataset("digits", split="train")
    names = [checkpoint.name for checkpoint in checkpoints]
    assert names[:3] == ["smallcnn-max-circular-s0-e001", "smallcnn-max-circular-s0-e002", "smallcnn-max-zeros-s0-e001"]
    tips = checkpoints[-1]
    assert dict(tips.factors) == {
        "operator": "tips",
        "operator_spec": "tips",
        "architecture": "smallcnn",
        "padding_mode": "zeros",
        "training_data": "digits",
        "seed": 0,
        "run": "smallcnn-tips-zeros-s0",
        "wake_up": 0,
        "epoch": 2,
    }
    assert tips.labels == "digits"
    assert tips.model == "zoo:smallcnn?operator=tips&padding_mode=zeros&in_channels=1&classes=10&width=2"
    pixels = images.images.numpy() / 255
    assert tips.input.size == 32
    np.testing.assert_allclose([*tips.input.mean, *tips.input.std], [pixels.mean(), pixels.std()], atol=5e-5)
    for checkpoint in checkpoints:
        network = load_checkpoint(checkpoint)
        assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 10)
    with safe_open(tips.weights, "pt") as content:
        metadata = content.metadata()
    assert list(metadata) == ["invariscope"]
    stored = json.loads(metadata["invariscope"])
    assert stored["run"]["operator"] == "tips"
    assert stored["epoch"] == 2
    assert stored["data_fingerprint"] == images.fingerprint
    assert json.dumps(stored, sort_keys=True) == metadata["invariscope"]


def test_factors_of_an_operator_with_a_strength() -> None:
    from invariscope.zoo.run import operator_factors

    assert operator_factors("soft(4)") == {"operator": "soft", "operator_spec": "soft(beta=4)", "strength": 4.0}
    assert operator_factors("strided") == {"operator": "strided", "operator_spec": "strided", "strength": None}


def test_the_same_recipe_gives_the_same_weights(small_zoo: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    state = torch.get_rng_state()
    train_recipe(read_recipe(recipe(tmp_path, SMALL))[-1:], tmp_path / "one", progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    first, one = hashes(small_zoo), hashes(tmp_path / "one")
    assert len(first) == 12
    assert len(set(first.values())) == 12
    assert len(one) == 2
    assert one.items() <= first.items()


@pytest.mark.full
def test_two_jobs_give_the_weights_of_one(small_zoo: Path, tmp_path: Path) -> None:
    some = read_recipe(recipe(tmp_path, SMALL))[1:4]
    train_recipe(some, tmp_path / "two", jobs=2, progress=False)
    first, two = hashes(small_zoo), hashes(tmp_path / "two")
    assert len(two) == 6
    assert two.items() <= first.items()
    names = [run.snapshot_name(epoch) for run in some for epoch in run.snapshot_epochs]
    assert [checkpoint.name for checkpoint in read_manifest(tmp_path / "two")] == names


def test_another_seed_gives_other_weights(small_zoo: Path, tmp_path: Path) -> None:
    run = Run(operator="max", padding_mode="circular", seed=1, epochs=2, snapshots=(1,), wake_up=0, **QUICK)
    train_recipe([run], tmp_path, progress=False)
    assert not set(hashes(tmp_path).values()) & set(hashes(small_zoo).values())


def test_finished_runs_are_skipped_and_lost_files_made_again(
    small_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "zoo"
    path = recipe(tmp_path, SMALL)
    calls: list[str] = []

    def counted(run: Run, images: ImageSet, device: str) -> Trainer:
        calls.append(run.id)
        return Trainer(run, images, device)

    monkeypatch.setattr("invariscope.zoo.training.zoos.Trainer", counted)
    half = [run for run in read_recipe(path) if str(run.operator) != "tips"]
    train_recipe(half, out, progress=False)
    before = hashes(out)
    assert len(calls) == 4
    report = train_recipe(path, out, progress=False)
    assert calls[4:] == ["smallcnn-tips-circular-s0", "smallcnn-tips-zeros-s0"] == list(report.trained)
    assert report.skipped == tuple(run.id for run in half)
    assert {name: digest for name, digest in hashes(out).items() if name in before} == before
    assert hashes(out) == hashes(small_zoo)
    (out / "smallcnn-max-zeros-s0-e001.safetensors").unlink()
    report = train_recipe(path, out, progress=False)
    assert report.trained == ("smallcnn-max-zeros-s0",)
    assert hashes(out) == hashes(small_zoo)
    assert train_recipe(path, out, progress=False).trained == ()
    assert (out / "zoo.yaml").read_text() == (small_zoo / "zoo.yaml").read_text()
    assert [entry.name for entry in out.iterdir() if entry.suffix == ".part"] == []


def test_runs_of_other_names_are_not_trained_and_finished_ones_stay(small_zoo: Path, tmp_path: Path) -> None:
    path, out = recipe(tmp_path, SMALL), tmp_path / "zoo"
    first = train_recipe(path, out, progress=False, only="*-max-*")
    second = train_recipe(path, out, progress=False, only="*-zeros-*")
    assert first.trained == ("smallcnn-max-circular-s0", "smallcnn-max-zeros-s0")
    assert second.skipped == first.trained
    assert all("-zeros-" in name for name in second.trained)
    train_recipe(path, out, progress=False)
    assert (out / "zoo.yaml").read_text() == (small_zoo / "zoo.yaml").read_text()
    with pytest.raises(RecipeError, match=r"no run is called avg: there are smallcnn-max-circular-s0, .* others"):
        train_recipe(path, tmp_path / "none", progress=False, only="avg")
    assert not (tmp_path / "none").exists()


def test_files_of_other_settings_or_half_files_are_refused(tmp_path: Path) -> None:
    run = Run(epochs=1, **QUICK)
    train_recipe([run], tmp_path, progress=False)
    with pytest.raises(RecipeError, match=r"trained with other settings \(lr, wake_up\): delete it"):
        train_recipe([replace(run, lr=0.02, wake_up=2)], tmp_path, progress=False)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RecipeError, match="is no whole weights file"):
        train_recipe([run], tmp_path, progress=False)


def test_entries_of_other_recipes_stay_and_a_broken_manifest_is_refused(tmp_path: Path) -> None:
    train_recipe([Run(epochs=1, **QUICK)], tmp_path, progress=False)
    train_recipe([Run(epochs=1, seed=1, **QUICK)], tmp_path, progress=False)
    assert [entry.factors["seed"] for entry in read_manifest(tmp_path)] == [0, 1]
    (tmp_path / "zoo.yaml").write_text("checkpoints: 3\n")
    with pytest.raises(ManifestError):
        train_recipe([Run(epochs=1, seed=2, **QUICK)], tmp_path, progress=False)
    assert len(hashes(tmp_path)) == 2


def test_a_run_that_diverges_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    bad = Run(epochs=2, optimizer="sgd", lr=1e30, seed=3, **QUICK)
    good = Run(epochs=1, optimizer="sgd", lr=0.1, **QUICK)
    report = train_recipe([bad, good], tmp_path, progress=False)
    assert report.trained == (good.id,)
    ((name, message),) = report.failed
    assert name == bad.id
    assert "diverged: loss nan in epoch" in message
    assert message.endswith("lower its lr (1e+30)")
    assert [entry.factors["run"] for entry in read_manifest(tmp_path)] == [good.id]
    assert len(hashes(tmp_path)) == 1


def test_nothing_is_trained_when_a_network_cannot_be_built(tmp_path: Path) -> None:
    for run, error in (
        (Run(model={"depth": 3}), ModelError),
        (Run(operator="blur(m=-1)"), OperatorError),
        (Run(model={"width": 0}), ModelError),
    ):
        with pytest.raises(error):
            train_recipe([Run(epochs=1, **QUICK), run], tmp_path / "zoo", progress=False)
    assert not (tmp_path / "zoo").exists()


def test_training_learns() -> None:
    images = load_dataset("digits", split="train")
    (snapshot,) = train_run(Run(epochs=6, lr=0.02, seed=0, model={"width": 4}), images)
    assert snapshot.accuracy > 0.8
    assert math.isfinite(snapshot.loss)


def test_random_shift_moves_each_image_on_its_own() -> None:
    x = torch.rand(64, 2, 6, 7) + 1
    shifted = random_shift(x, 2, torch.Generator().manual_seed(0))
    seen = set()
    for before, after in zip(x, shifted, strict=True):
        padded = F.pad(before, (2, 2, 2, 2))
        matches = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(after, padded[:, 2 - dy : 8 - dy, 2 - dx : 9 - dx])
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 15


def test_augmentation_changes_the_weights() -> None:
    images = load_dataset("digits", split="train", limit=256)
    plain, shifted = (train_run(Run(epochs=1, augment_shift=shift, **QUICK), images)[0] for shift in (0, 3))
    assert not torch.equal(plain.state["stage1.conv.weight"], shifted.state["stage1.conv.weight"])


class Fixed(Downsample):
    """An operator with losses that are given."""

    def __init__(self, **losses: float) -> None:
        super().__init__(1)
        self._losses = {name: torch.tensor(value) for name, value in losses.items()}

    def losses(self) -> dict[str, Tensor]:
        return self._losses


def test_the_loss_is_the_formula() -> None:
    run = Run(alpha=0.25, failure_weight=3.0)
    task = torch.tensor(2.0)
    assert float(total_loss(task, [], run)) == 2
    assert float(total_loss(task, [Fixed()], run)) == 2
    both = [Fixed(undo=1.0, failure_modes=0.5), Fixed(), Fixed(undo=3.0, failure_modes=1.5)]
    assert float(total_loss(task, both, run)) == pytest.approx(0.75 * 2 + 0.25 * 2 + 3 * 1)
    assert float(total_loss(task, [Fixed(undo=4.0)], run)) == pytest.approx(0.75 * 2 + 0.25 * 4)
    assert float(total_loss(task, both, replace(run, alpha=0.0, failure_weight=0.0))) == 2


def test_the_operators_losses_count_after_wake_up() -> None:
    images = load_dataset("digits", split="train", limit=256)
    quick = {"operator": "tips", "epochs": 3, "model": {"width": 2}, "batch_size": 64, "snapshots": (1, 2)}
    asleep = train_run(Run(wake_up=3, **quick), images)
    woken = train_run(Run(wake_up=1, **quick), images)
    without = train_run(Run(wake_up=0, alpha=0.0, failure_weight=0.0, **quick), images)
    same = [all(torch.equal(a.state[key], b.state[key]) for key in a.state) for a, b in zip(asleep, woken, strict=True)]
    assert same == [True, False, False]
    assert all(torch.equal(asleep[2].state[key], without[2].state[key]) for key in asleep[2].state)


def test_a_training_set_is_summed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 50,000 images it takes two seconds, which the end of a training took for every finished run."""
    asked: list[ImageSet] = []
    compute = trainer_module._normalisation
    monkeypatch.setattr(trainer_module, "_normalisation", lambda images: asked.append(images) or compute(images))
    images = load_dataset("digits", split="train", limit=40)
    other = images.head(20)
    assert input_spec(images) is input_spec(images)
    assert input_spec(other) != input_spec(images)
    assert asked == [images, other]


def test_input_spec_refuses_what_cannot_be_normalised() -> None:
    labels = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(RecipeError, match="a channel has the same value everywhere"):
        input_spec(ImageSet("flat", torch.full((2, 1, 4, 4), 7, dtype=torch.uint8), labels, ("a",)))
    wide = torch.arange(40, dtype=torch.uint8).reshape(2, 1, 4, 5)
    assert input_spec(ImageSet("wide", wide, labels, ("a",))).size == (4, 5)
