"""The further settings of training: clipping, precision, limit, device, threads; and what the manifest tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from invariscope.base.errors import InputError, OperatorError, RecipeError
from invariscope.base.former import FORMER_NAME
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.imageset import ImageSet
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.operators import TIPS
from invariscope.zoo.recipe import read_recipe
from invariscope.zoo.run import Run
from invariscope.zoo.training import Conditions, train_recipe, train_run
from invariscope.zoo.training.factors import told_settings
from invariscope.zoo.training.trainer import Trainer, reproducible

QUICK = Run(epochs=2, batch_size=32, model={"width": 2}, limit=64)
TIPS_RUN = replace(QUICK, operator="tips", epochs=1, wake_up=5)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_dataset("digits", split="train", limit=64)


def test_files_of_before_hold_what_runs_of_today_do(repository: Path, tmp_path: Path) -> None:
    runs = read_recipe(repository / "data" / "recipes" / "published_digits.yaml")
    run = next(run for run in runs if run.id == "smallcnn-max-circular-s0")
    # As the first file of that recipe held them, of the former name and before precision, layout and clipping.
    assert run.settings == {
        **{"alpha": 0.35, "architecture": "smallcnn", "augment_shift": 0, "batch_size": 64, "data": "digits"},
        **{"epochs": 28, "failure_weight": 1.0, "label": "", "lr": 0.03, "model": {"width": 8}, "momentum": 0.9},
        **{"operator": "max", "optimizer": "adamw", "padding_mode": "circular", "seed": 0, "snapshots": [8]},
        **{"wake_up": 5, "weight_decay": 0.01},
    }
    train_recipe([QUICK], tmp_path, progress=False)
    (file,) = tmp_path.glob("*.safetensors")
    with safe_open(file, "pt") as opened:
        (about,) = opened.metadata().values()
    save_file(load_file(file), file, {FORMER_NAME: about})
    assert train_recipe([QUICK], tmp_path, progress=False).trained == ()
    assert replace(run, clip_norm=1.0).settings == {**run.settings, "clip_norm": 1.0}


def test_a_file_trained_with_a_newer_setting_is_told_from_one_without(tmp_path: Path) -> None:
    train_recipe([QUICK], tmp_path / "without", progress=False)
    clipped = replace(QUICK, clip_norm=1.0)
    with pytest.raises(RecipeError, match=r"trained with other settings \(clip_norm\)"):
        train_recipe([clipped], tmp_path / "without", progress=False)
    train_recipe([clipped], tmp_path / "with", progress=False)
    with pytest.raises(RecipeError, match=r"trained with other settings \(clip_norm\)"):
        train_recipe([QUICK], tmp_path / "with", progress=False)


def step_length(run: Run, images: ImageSet) -> tuple[float, float]:
    """Length of the first step of plain gradient descent, and the learning rate."""
    with reproducible(run.seed):
        trainer = Trainer(run, images)
        before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        lr = trainer.optimizer.param_groups[0]["lr"]
        rows = torch.arange(32)
        trainer._step(trainer.prepared[rows], trainer.task.targets(rows), 1)
    moved: list[Tensor] = [
        (after.detach() - start).flatten() for after, start in zip(trainer.model.parameters(), before, strict=True)
    ]
    return float(torch.cat(moved).norm()), lr


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gradients_are_clipped_to_the_norm(digits: ImageSet, precision: str) -> None:
    plain = replace(QUICK, optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=1.0, precision=precision)
    free, lr = step_length(plain, digits)
    norm = free / lr
    assert norm > 0.02
    assert step_length(replace(plain, clip_norm=0.01), digits)[0] == pytest.approx(0.01 * lr, rel=1e-2)
    assert step_length(replace(plain, clip_norm=2 * norm), digits)[0] == pytest.approx(free, rel=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_near_and_keeps_weights_in_float32(digits: ImageSet, precision: str) -> None:
    run = replace(QUICK, operator="tips", wake_up=1)
    (full,) = train_run(run, digits)
    (mixed,) = train_run(replace(run, precision=precision), digits)
    assert mixed.loss == pytest.approx(full.loss, rel=0.02)
    assert mixed.loss != full.loss
    assert {value.dtype for value in mixed.state.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_channels_last_is_near_and_keeps_weights_as_they_are_laid_out(digits: ImageSet, optimizer: str) -> None:
    run = replace(QUICK, operator="soft(beta=2)", optimizer=optimizer, clip_norm=1.0)
    with reproducible(0):
        trainer = Trainer(replace(run, channels_last=True), digits)
    shapes = [parameter.shape for parameter in trainer.model.parameters() if parameter.ndim == 4]
    assert len(shapes) > 2
    kernels = [parameter for parameter in trainer.model.parameters() if parameter.ndim == 4 and parameter.shape[1] > 1]
    assert all(not kernel.is_contiguous() for kernel in kernels)
    (full,) = train_run(run, digits)
    (last,) = train_run(replace(run, channels_last=True), digits)
    assert last.loss == pytest.approx(full.loss, rel=1e-3)
    assert all(value.is_contiguous() for value in last.state.values())
    for name, value in full.state.items():
        assert torch.allclose(last.state[name].double(), value.double(), rtol=0.05, atol=0.02), name


def test_the_network_is_given_images_in_its_layout(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    step = Trainer._step
    monkeypatch.setattr(
        Trainer,
        "_step",
        lambda self, x, *rest: (
            seen.append(x.stride() == x.to(memory_format=torch.channels_last).stride()) or step(self, x, *rest)
        ),
    )
    train_run(replace(QUICK, channels_last=True), digits)
    train_run(QUICK, digits)
    assert seen == [True] * 4 + [False] * 4


def test_limit_takes_the_first_images(digits: ImageSet, tmp_path: Path) -> None:
    train_recipe([QUICK], tmp_path, progress=False)
    (checkpoint,) = read_manifest(tmp_path)
    (snapshot,) = train_run(QUICK, digits)
    state = load_checkpoint(checkpoint).state_dict()
    assert all(torch.equal(state[name], value) for name, value in snapshot.state.items())


def test_label_smoothing_raises_the_loss_of_a_sure_network(digits: ImageSet) -> None:
    with reproducible(0):
        task = Trainer(replace(QUICK, label_smoothing=0.1), digits).task
    labels = task.targets(torch.arange(8))
    logits = torch.nn.functional.one_hot(labels, 10).double() * 5
    truth = 0.91 * logits.log_softmax(1).gather(1, labels[:, None]).sum()
    others = 0.01 * (logits.log_softmax(1).sum() - logits.log_softmax(1).gather(1, labels[:, None]).sum())
    assert float(task.loss(logits, labels)) == pytest.approx(-float(truth + others) / 8, rel=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device cuda is not there for this build of torch"):
        train_recipe([QUICK], tmp_path / "zoo", progress=False, conditions=Conditions("cuda"))
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        train_recipe([QUICK], tmp_path / "zoo", progress=False, conditions=Conditions("gpu"))
    assert not (tmp_path / "zoo").exists()


def test_threads_and_random_numbers_are_the_callers_afterwards() -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()

    def broken() -> None:
        with reproducible(3, threads=before + 1):
            assert torch.get_num_threads() == before + 1
            assert torch.initial_seed() == 3
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_weights_stand_in_the_manifest_with_another_operator(tmp_path: Path) -> None:
    run = replace(TIPS_RUN, evaluate_as=("tips(hard=true)",), alpha=0.0)
    report = train_recipe([run], tmp_path, progress=False)
    assert report.trained == ("smallcnn-tips-zeros-s0",)
    soft, hard = read_manifest(tmp_path)
    assert (soft.name, hard.name) == ("smallcnn-tips-zeros-s0-e001", "smallcnn-tips-zeros-s0-e001-as-tips-hard")
    assert soft.weights == hard.weights
    operators = [[part.hard for part in load_checkpoint(c).modules() if isinstance(part, TIPS)] for c in (soft, hard)]
    assert operators == [[False] * 3, [True] * 3]
    assert (soft.factors["operator_spec"], hard.factors["operator_spec"]) == ("tips", "tips(hard=true)")
    assert (soft.factors["hard"], hard.factors["hard"]) == (False, True)
    assert soft.factors["run"] == hard.factors["run"]
    assert soft.factors["alpha"] == 0
    assert "wake_up" not in soft.factors
    assert train_recipe([replace(run, evaluate_as=())], tmp_path, progress=False).trained == ()
    assert [entry.name for entry in read_manifest(tmp_path)] == [soft.name]


def test_weights_that_do_not_fit_the_other_operator_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"evaluate_as: the weights of .*operator=tips.* do not fit .*operator=max"):
        train_recipe([replace(TIPS_RUN, evaluate_as=("max",))], tmp_path / "zoo", progress=False)
    with pytest.raises(OperatorError, match="unknown operator"):
        train_recipe([replace(TIPS_RUN, evaluate_as=("tops",))], tmp_path / "zoo", progress=False)


def test_settings_are_told_where_they_are_not_the_default() -> None:
    plain = [Run(operator="max", alpha=0.0), Run(operator="tips"), Run(operator="strided", architecture="resnet8")]
    assert told_settings(plain) == ()  # max has no losses, so its alpha means nothing
    assert told_settings([*plain, Run(operator="tips", failure_weight=0.0)]) == ("failure_weight",)
    assert told_settings([*plain, Run(operator="tips(pool=phase)", evaluate_as=("tips(hard=true)",))]) == (
        "pool",
        "hard",
    )
    assert told_settings([Run(operator="tips(failure=both)", wake_up=0)]) == ("wake_up", "failure")


def test_the_recipe_of_the_ablation_is_told(repository: Path) -> None:
    runs = read_recipe(repository / "data" / "recipes" / "ablation.yaml")
    assert told_settings(runs) == ("alpha", "failure_weight", "wake_up", "pool", "hard", "failure")
    assert len({run.id for run in runs}) == len(runs)
    losses = {(run.alpha > 0, run.failure_weight > 0) for run in runs}
    assert losses == {(True, True), (True, False), (False, True), (False, False)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("precision: fp8", "precision is 'fp8', and must be one of fp32, bf16, fp16"),
        ("label_smoothing: 1", "label_smoothing is 1, which leaves nothing of the labels"),
        ("clip_norm: -1", "clip_norm is -1, and must be a number of at least 0"),
        ("limit: -1", "limit is -1, and must be an integer of at least 0"),
        ("augment_flip: 2", "augment_flip is 2, and must be true or false"),
        ("evaluate_as: [maxx]", "unknown operator 'maxx'"),
        ("evaluate_as: max", "evaluate_as is 'max', and must be a list"),
    ],
)
def test_recipe_errors(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"grid:\n  {text}\n")
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
