"""Embedded data sets, image sets and prepared images."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits as sklearn_digits

from invariscope.base.errors import DataError
from invariscope.zoo.datasets import DATASETS, ImageSet, InputSpec, PreparedImages, load_dataset


def test_names_and_specs_need_no_torch(repository):
    code = (
        "import sys; from invariscope.zoo import datasets; from invariscope.zoo.datasets import inputs; "
        "list(datasets.DATASETS); "
        "inputs.InputSpec(32, (0.5,), (0.5,)); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repository)


def test_every_registered_loader_can_be_imported():
    assert {"cifar10", "digits", "fashion_mnist", "imagefolder", "parquet", "shapes"} <= set(DATASETS.own)
    assert all(callable(DATASETS[name]) for name in DATASETS)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("digit", {}, "unknown data set 'digit': did you mean 'digits'"),
        ("", {}, "known are cifar10, digits"),
        ("digits:here", {}, "takes no path"),
        ("digits:", {}, "takes no path"),
        ("shapes:here", {}, "takes no path"),
        ("digits", {"split": "val"}, "train and test"),
        ("shapes", {"split": "val"}, "train and test"),
        ("shapes", {"size": 4}, "at least 8 pixels"),
        ("digits", {"limit": 0}, "at least one image"),
        ("digits", {"size": 0}, "at least 1"),
        ("parquet", {}, "parquet needs a path"),
        ("imagefolder:", {}, "imagefolder needs a path"),
        ("cifar10", {}, "cifar10 needs a path"),
        ("fashion_mnist", {}, "fashion_mnist needs a path"),
        ("parquet:nowhere", {}, "no file or folder nowhere: put"),
        ("imagefolder:nowhere", {}, "no folder nowhere: put"),
        ("cifar10:nowhere", {}, "no folder nowhere: unpack"),
        ("fashion_mnist:nowhere", {}, "no folder nowhere: unpack"),
    ],
)
def test_bad_specifications_are_refused_in_one_line(spec, options, message):
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(spec, **options)
    assert "\n" not in str(caught.value)


def test_digits_are_split_without_overlap_and_by_class():
    train, test = (load_dataset("digits", split=split) for split in ("train", "test"))
    assert (train.name, test.name) == ("digits/train", "digits/test")
    assert (len(train), len(test)) == (1195, 602)
    _, labels = sklearn_digits(return_X_y=True)
    for digit in range(10):
        total = (labels == digit).sum()
        assert abs(int((test.labels == digit).sum()) - total / 3) < 1
    whole = torch.cat([train.images, test.images]).flatten(1)
    assert len({row.numpy().tobytes() for row in whole}) == 1797
    assert test.fingerprint == load_dataset("digits").fingerprint != train.fingerprint


def test_digits_fill_the_input():
    raw, labels = sklearn_digits(return_X_y=True)
    test = load_dataset("digits")
    assert test.images.shape == (602, 1, 32, 32)
    # The first image of each class is for testing, so row 0 is the first digit of scikit-learn's.
    assert int(test.labels[0]) == labels[0]
    pillow = Image.fromarray((raw[0].reshape(8, 8) * 255 / 16).astype(np.float32)).resize((32, 32), Image.BILINEAR)
    np.testing.assert_allclose(test.images[0, 0].numpy(), np.asarray(pillow), atol=0.51)
    # No empty margin: ink within a sixteenth of the border at top and bottom of nearly all images.
    reaches = (test.images[:, 0, :2].amax((1, 2)) > 64) & (test.images[:, 0, -2:].amax((1, 2)) > 64)
    assert reaches.float().mean() > 0.9
    assert load_dataset("digits", size=40).images.shape == (602, 1, 40, 40)


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_limit_takes_the_first_images(name):
    whole, few = load_dataset(name), load_dataset(name, limit=7)
    assert torch.equal(few.images, whole.images[:7])
    assert torch.equal(few.labels, whole.labels[:7])
    head = whole.head(7)
    assert head.fingerprint == few.fingerprint != whole.fingerprint
    assert len(load_dataset(name, limit=10**6)) == len(load_dataset(name))


def test_shapes_are_the_same_everywhere_and_fit_their_masks():
    shapes = load_dataset("shapes", limit=40)
    assert shapes.fingerprint == "3b80df99988ca6a238d499fddd37a77f66c63e76dd91bc6842e24fe2a1c4893f"
    assert shapes.images.shape == (40, 3, 64, 64)
    assert shapes.masks.shape == (40, 64, 64)
    assert shapes.mask_classes == ("background", *shapes.classes)
    for image, mask, label in zip(shapes.images, shapes.masks, shapes.labels, strict=True):
        area = [int((mask == number).sum()) for number in range(1, 5)]
        assert area[int(label)] == max(area) > 0
        # The ground is textured up to every border.
        assert image.float().std((1, 2)).min() > 5
    train = load_dataset("shapes", split="train", limit=40)
    assert not torch.equal(train.images, shapes.images)


def test_a_disk_is_where_its_mask_says():
    """In scenes of one disk the mask's area is that of a circle of its own width."""
    shapes = load_dataset("shapes", limit=200, size=96)
    checked = 0
    for mask in shapes.masks.numpy():
        rows, columns = np.nonzero(mask)
        inside = rows.min() > 0 and columns.min() > 0 and rows.max() < 95 and columns.max() < 95
        if set(np.unique(mask)) == {0, 1} and inside:
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            if height == width:
                assert len(rows) == pytest.approx(np.pi * width**2 / 4, rel=0.05)
                checked += 1
    assert checked >= 5


def make(**changes) -> ImageSet:
    values = {
        "name": "made/test",
        "images": torch.zeros(3, 1, 4, 4, dtype=torch.uint8),
        "labels": torch.tensor([0, 1, 0]),
        "classes": ("a", "b"),
    }
    return ImageSet(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.tensor([0, 2, 0])}, r"image 1 has the label 2, outside 0 to 1 \(2 classes\); 1 of 3"),
        ({"labels": torch.tensor([0, 1, -1])}, "image 2 has the label -1"),
        ({"labels": torch.tensor([0.0, 1.0, 0.0])}, "labels are torch.float32"),
        ({"labels": torch.tensor([0, 1])}, r"labels are torch.int64 \(2,\)"),
        ({"images": torch.zeros(3, 1, 4, 4)}, "images are torch.float32"),
        ({"images": torch.zeros(3, 4, 4, dtype=torch.uint8)}, r"shape \(N, C, H, W\)"),
        ({"images": torch.zeros(0, 1, 4, 4, dtype=torch.uint8), "labels": torch.zeros(0).long()}, "no images"),
        ({"classes": ()}, "outside -1 to -1"),
        ({"masks": torch.zeros(3, 4, 5, dtype=torch.uint8)}, r"must be torch.uint8 of shape \(3, 4, 4\)"),
        ({"masks": torch.full((3, 4, 4), 7, dtype=torch.uint8), "mask_classes": ("x",)}, "value 7, outside 0 to 0"),
    ],
)
def test_bad_image_sets_are_refused_in_one_line(changes, message):
    with pytest.raises(DataError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_fingerprint_tells_contents_apart():
    masks = torch.zeros(3, 4, 4, dtype=torch.uint8)
    variants = [
        make(),
        make(images=torch.ones(3, 1, 4, 4, dtype=torch.uint8)),
        make(images=torch.zeros(3, 1, 2, 8, dtype=torch.uint8)),
        make(labels=torch.tensor([0, 1, 1])),
        make(masks=masks, mask_classes=("x",)),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert make(name="other").fingerprint == make().fingerprint


def test_image_sets_travel_as_arrays():
    shapes = load_dataset("shapes", limit=3)
    parts = shapes.to_numpy()
    for array in (parts["images"], parts["labels"], parts["masks"]):
        array.setflags(write=False)
    again = ImageSet.from_numpy(parts)
    assert torch.equal(again.images, shapes.images)
    assert torch.equal(again.masks, shapes.masks)
    assert torch.equal(again.labels, shapes.labels)
    assert (again.name, again.classes, again.mask_classes) == (shapes.name, shapes.classes, shapes.mask_classes)
    assert again.fingerprint == shapes.fingerprint
    # The hash travels along, so that no process computes it again.
    assert ImageSet.from_numpy({**parts, "fingerprint": "given"}).fingerprint == "given"
    assert make().to_numpy()["masks"] is None


@pytest.fixture
def coloured() -> ImageSet:
    pixels = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return make(images=pixels, labels=torch.tensor([0, 1, 0, 1, 0]))


def test_prepared_images_are_normalised_per_channel(coloured):
    spec = InputSpec(8, (0.1, 0.2, 0.3), (0.5, 0.25, 0.2))
    prepared = PreparedImages(coloured, spec)
    raw = coloured.images.numpy()
    expected = (raw / 255 - np.reshape(spec.mean, (3, 1, 1))) / np.reshape(spec.std, (3, 1, 1))
    assert prepared[0:5].dtype == torch.float32
    np.testing.assert_allclose(prepared[0:5].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(prepared[torch.tensor([4, 1])].numpy(), expected[[4, 1]], atol=1e-6)
    np.testing.assert_allclose(prepared[np.array([2])].numpy(), expected[[2]], atol=1e-6)
    np.testing.assert_allclose(prepared.black.numpy(), [-0.2, -0.8, -1.5], atol=1e-6)
    assert (len(prepared), prepared.shape, prepared.name) == (5, (5, 3, 8, 8), "made/test")
    assert torch.equal(prepared.labels, coloured.labels)
    black = PreparedImages(make(images=torch.zeros(3, 3, 8, 8, dtype=torch.uint8)), spec)
    assert torch.equal(black[0:1][0, :, 0, 0], prepared.black)


def test_one_number_normalises_all_channels(coloured):
    one = PreparedImages(coloured, InputSpec(8, (0.5,), (0.25,)))
    three = PreparedImages(coloured, InputSpec(8, (0.5,) * 3, (0.25,) * 3))
    assert torch.equal(one[0:5], three[0:5])
    assert one.black.tolist() == [-2.0, -2.0, -2.0]


@pytest.mark.parametrize("size", [6, 11, 16])
def test_resizing_is_bilinear_with_antialiasing(coloured, size):
    prepared = PreparedImages(coloured, InputSpec(8, (0.0,), (1 / 255,)), size=size)
    found = prepared[0:5]
    assert found.shape == prepared.shape == (5, 3, size, size)
    for n in range(5):
        for c in range(3):
            channel = Image.fromarray(coloured.images[n, c].numpy().astype(np.float32))
            expected = np.asarray(channel.resize((size, size), Image.BILINEAR))
            np.testing.assert_allclose(found[n, c].numpy(), expected, atol=1e-2)
    # An image does not depend on the others of its batch.
    torch.testing.assert_close(found[3:4], prepared[3:4], rtol=0, atol=0)


def test_images_that_are_not_square_lose_their_ends():
    pixels = torch.arange(40, dtype=torch.uint8).reshape(1, 1, 4, 10)
    wide = make(images=pixels, labels=torch.tensor([0]))
    prepared = PreparedImages(wide, InputSpec(4, (0.0,), (1 / 255,)))
    assert torch.equal(prepared[0:1].round().to(torch.uint8), pixels[..., 3:7])
    assert PreparedImages(wide, InputSpec(6, (0.0,), (1.0,)))[0:1].shape == (1, 1, 6, 6)


def test_fingerprint_of_prepared_images_tells_preprocessing_apart(coloured):
    variants = [
        PreparedImages(coloured, InputSpec(8, (0.5,), (0.5,))),
        PreparedImages(coloured, InputSpec(9, (0.5,), (0.5,))),
        PreparedImages(coloured, InputSpec(8, (0.5,), (0.5,)), size=9),
        PreparedImages(coloured, InputSpec(8, (0.4,), (0.5,))),
        PreparedImages(coloured, InputSpec(8, (0.5,), (0.4,))),
        PreparedImages(coloured.head(4), InputSpec(8, (0.5,), (0.5,))),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert variants[0].fingerprint == PreparedImages(coloured, InputSpec(8, (0.5,), (0.5,)), size=8).fingerprint


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda d: PreparedImages(d, InputSpec(8, (0.5, 0.5), (0.5,))), "images of 3 channel.*mean has 2 numbers"),
        (lambda d: PreparedImages(d, InputSpec(8, (0.5,), (0.5, 0.5))), "std has 2 numbers"),
        (lambda d: PreparedImages(d, InputSpec(8, (0.5,), (0.5,)), size=0), "size is 0"),
        (lambda d: InputSpec(0, (0.5,), (0.5,)), "input size is 0"),
        (lambda d: InputSpec(8.5, (0.5,), (0.5,)), "input size is 8.5"),
        (lambda d: InputSpec(8, (float("nan"),), (0.5,)), "input mean"),
        (lambda d: InputSpec(8, (), (0.5,)), "input mean"),
        (lambda d: InputSpec(8, (0.5,), (0.0,)), "input std"),
        (lambda d: InputSpec(8, (0.5,), (float("inf"),)), "input std"),
    ],
)
def test_bad_preparation_is_refused_in_one_line(coloured, build, message):
    with pytest.raises(DataError, match=message) as caught:
        build(coloured)
    assert "\n" not in str(caught.value)
