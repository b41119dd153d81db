"""Segmentation is trained on masks: what the loss leaves out, and masks that move with their images."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import ModelError, RecipeError
from invariscope.zoo.architectures import ARCHITECTURES, is_segmenter
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.imageset import VOID, ImageSet
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.run import Run
from invariscope.zoo.training import train_recipe, train_run
from invariscope.zoo.training.augmentation import augment
from invariscope.zoo.training.tasks import Segmentation, task_of


class TinySegmenter(nn.Module):
    """Two convolutions and no downsampling: a class per pixel."""

    def __init__(
        self, operator: str = "max", padding_mode: str = "zeros", in_channels: int = 3, classes: int = 5, width: int = 8
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 5, padding=2)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x)).relu())


class Shrinking(TinySegmenter):
    """Gives maps of half the size."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., ::2, ::2]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    known = type(ARCHITECTURES).__getitem__
    ours = {"tinysegmenter": TinySegmenter, "shrinking": Shrinking}
    monkeypatch.setattr(type(ARCHITECTURES), "__getitem__", lambda self, name: ours.get(name) or known(self, name))
    contains = type(ARCHITECTURES).__contains__
    monkeypatch.setattr(type(ARCHITECTURES), "__contains__", lambda self, name: name in ours or contains(self, name))
    monkeypatch.setattr("invariscope.zoo.training.tasks.is_segmenter", lambda name: name in ours or is_segmenter(name))


RUN = Run(architecture="tinysegmenter", data="shapes", epochs=2, batch_size=16, limit=64)


@pytest.fixture(scope="module")
def shapes() -> ImageSet:
    return load_dataset("shapes", split="train", limit=64, size=32)


def test_a_segmenter_learns_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (48, 3, 16, 16), dtype=torch.uint8, generator=generator)
    masks = images.argmax(1).to(torch.uint8)
    brightest = ImageSet("noise/train", images, torch.full((48,), -1), (), masks, ("red", "green", "blue"))
    (snapshot,) = train_run(replace(RUN, epochs=15, lr=0.05), brightest)
    assert snapshot.accuracy > 0.8
    assert snapshot.state["second.weight"].shape[0] == 3


def test_a_zoo_of_segmenters(tmp_path: Path) -> None:
    report = train_recipe([RUN], tmp_path, progress=False)
    assert report.trained == ("tinysegmenter-max-zeros-s0",)
    (checkpoint,) = read_manifest(tmp_path)
    assert checkpoint.model == "zoo:tinysegmenter?operator=max&padding_mode=zeros&in_channels=3&classes=5"
    assert checkpoint.labels == "shapes"
    assert load_checkpoint(checkpoint)(torch.zeros(1, 3, 64, 64)).shape == (1, 5, 64, 64)


def test_the_unet_of_the_house_is_trained(shapes: ImageSet) -> None:
    run = replace(RUN, architecture="unet", operator="aps", padding_mode="circular", model={"width": 4})
    (snapshot,) = train_run(run, shapes)
    assert 0 < snapshot.accuracy < 1


def test_void_counts_neither_in_the_loss_nor_in_the_score(shapes: ImageSet) -> None:
    assert shapes.masks is not None
    masks = shapes.masks.clone()
    masks[:, :7, 3:] = VOID
    task = Segmentation(replace(shapes, masks=masks))
    targets = task.targets(torch.arange(4))
    logits = torch.randn(4, 5, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    losses, right = [], []
    for image, row, column in (masks[:4] != VOID).nonzero().tolist():
        scores = logits[image, :, row, column]
        truth = int(masks[image, row, column])
        losses.append(float(torch.logsumexp(scores, 0) - scores[truth]))
        right.append(int(scores.argmax()) == truth)
    assert float(task.loss(logits, targets)) == pytest.approx(math.fsum(losses) / len(losses), rel=1e-12)
    assert [int(count) for count in task.score(logits, targets)] == [sum(right), len(right)]


def test_a_batch_that_is_all_void_does_no_harm(shapes: ImageSet) -> None:
    assert shapes.masks is not None
    masks = shapes.masks.clone()
    masks[:40] = VOID
    (snapshot,) = train_run(replace(RUN, batch_size=8), replace(shapes, masks=masks))
    assert math.isfinite(snapshot.loss)
    assert all(bool(torch.isfinite(value).all()) for value in snapshot.state.values())
    (nothing,) = train_run(replace(RUN, epochs=1), replace(shapes, masks=torch.full_like(masks, VOID)))
    assert (nothing.loss, nothing.accuracy) == (0, 0)


@pytest.mark.parametrize(("shift", "flip"), [(3, False), (0, True), (2, True)])
def test_masks_move_with_their_images(shift: int, flip: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    masks = torch.randint(0, 200, (64, 9, 11), generator=generator)
    x = (masks[:, None] + 1).float()
    run = replace(RUN, augment_shift=shift, augment_flip=flip)
    moved, moved_masks = augment(x, masks, run, generator)
    assert not torch.equal(moved, x)
    expected = torch.where(moved[:, 0] == 0, VOID, moved[:, 0].long() - 1)
    assert torch.equal(moved_masks, expected)
    assert bool((moved == 0).any()) == bool(shift)


def test_a_flip_turns_half_of_the_images_and_leaves_labels(shapes: ImageSet) -> None:
    x = torch.rand(2000, 1, 2, 3)
    moved, labels = augment(x, torch.arange(2000), replace(RUN, augment_flip=True), torch.Generator().manual_seed(0))
    assert torch.equal(labels, torch.arange(2000))
    turned = (moved == x.flip(3)).flatten(1).all(1)
    kept = (moved == x).flatten(1).all(1)
    assert bool((turned ^ kept).all())
    assert 900 < int(turned.sum()) < 1100


def test_what_does_not_suit_the_task_is_refused(shapes: ImageSet) -> None:
    with pytest.raises(RecipeError, match="tinysegmenter segments, and digits/train has no masks: take data such as"):
        task_of(RUN, load_dataset("digits", split="train", limit=4))
    unlabelled = replace(shapes, classes=(), labels=torch.full_like(shapes.labels, -1))
    with pytest.raises(RecipeError, match="smallcnn classifies, and shapes/train has no labels: take a segmenter"):
        task_of(Run(), unlabelled)
    with pytest.raises(ModelError, match=r"gives \(16, 5, 16, 16\) and its task takes \(16, 5, 32, 32\)"):
        train_run(replace(RUN, architecture="shrinking"), shapes)


def test_label_smoothing_is_the_formula(shapes: ImageSet) -> None:
    task = Segmentation(shapes, smoothing=0.2)
    targets = task.targets(torch.arange(2))
    logits = torch.randn(2, 5, 32, 32, dtype=torch.float64)
    soft = F.one_hot(targets, 5).double() * 0.8 + 0.2 / 5
    expected = -(soft * logits.log_softmax(1).permute(0, 2, 3, 1)).sum(3).mean()
    assert float(task.loss(logits, targets)) == pytest.approx(float(expected), rel=1e-12)
