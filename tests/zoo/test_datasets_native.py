"""CIFAR-10 and Fashion-MNIST in their authors' files: written here byte by byte, damaged, and hostile."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from invariscope.base.errors import DataError
from invariscope.zoo.datasets import load_dataset


def pixels(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def refused(message: str, spec: str, **options) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(spec, **options)
    assert "\n" not in str(caught.value)


def cifar10_bytes(n: int, seed: int = 0) -> tuple[bytes, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels, images = rng.integers(0, 10, n, dtype=np.uint8), pixels(n, 3, 32, 32, seed=seed)
    content = b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True))
    return content, images, labels


def test_cifar10_binary(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    parts = [cifar10_bytes(4, seed) for seed in range(6)]
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(parts[number - 1][0])
    (folder / "test_batch.bin").write_bytes(parts[5][0])
    for place in (folder, tmp_path):
        test = load_dataset(f"cifar10:{place}")
        np.testing.assert_array_equal(test.images.numpy(), parts[5][1])
        np.testing.assert_array_equal(test.labels.numpy(), parts[5][2])
    train = load_dataset(f"cifar10:{folder}", split="train")
    np.testing.assert_array_equal(train.images.numpy(), np.concatenate([part[1] for part in parts[:5]]))
    assert load_dataset(f"cifar10:{folder}", split="train", limit=6).fingerprint == train.head(6).fingerprint
    (folder / "data_batch_3.bin").unlink()
    assert len(load_dataset(f"cifar10:{folder}", split="train", limit=8)) == 8
    assert (train.name, train.classes[3]) == ("cifar10/train", "cat")
    assert load_dataset(f"cifar10:{folder}", size=40).images.shape == (4, 3, 40, 40)


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_cifar10_pickles_are_refused_and_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    for folder in (tmp_path / "python", tmp_path / "unpacked" / "cifar-10-batches-py"):
        folder.mkdir(parents=True)
        (folder / "test_batch").write_bytes(pickle.dumps(Trap(sprung)))
    for place in (tmp_path / "python", tmp_path / "unpacked"):
        refused("pickles could run code and are not read: put the binary version", f"cifar10:{place}")
    (tmp_path / "python" / "test_batch.bin").write_bytes(pickle.dumps(Trap(sprung)))
    refused("no multiple of 3073", f"cifar10:{tmp_path / 'python'}")
    assert not sprung.exists()


def test_bad_cifar10_is_refused(tmp_path):
    refused("no file .*test_batch.bin", f"cifar10:{tmp_path}")
    file = tmp_path / "test_batch.bin"
    for content, message in ((b"", "0 bytes"), (cifar10_bytes(2)[0][:-1], "6145 bytes"), (b"\x0b" * 3073, "label 11")):
        file.write_bytes(content)
        refused(message, f"cifar10:{tmp_path}")
    refused("train and test", f"cifar10:{tmp_path}", split="val")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist(tmp_path, packed):
    images, labels = pixels(5, 28, 28), np.array([9, 0, 3, 3, 1], dtype=np.uint8)
    for prefix, order in (("t10k", 1), ("train", -1)):
        for stem, array in (("images-idx3-ubyte", images[::order]), ("labels-idx1-ubyte", labels[::order])):
            content = idx(np.ascontiguousarray(array))
            file = tmp_path / f"{prefix}-{stem}{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(content) if packed else content)
    test = load_dataset(f"fashion_mnist:{tmp_path}")
    np.testing.assert_array_equal(test.images[:, 0].numpy(), images)
    assert (test.labels.tolist(), test.classes[9], test.name) == ([9, 0, 3, 3, 1], "Ankle boot", "fashion_mnist/test")
    train = load_dataset(f"fashion_mnist:{tmp_path}", split="train", limit=2)
    np.testing.assert_array_equal(train.images[:, 0].numpy(), images[::-1][:2])
    assert train.labels.tolist() == [1, 3]


def test_bad_fashion_mnist_is_refused(tmp_path):
    spec = f"fashion_mnist:{tmp_path}"
    refused("no file .*t10k-images-idx3-ubyte", spec)
    images, labels = idx(pixels(3, 28, 28)), idx(np.zeros(3, np.uint8))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels)
    packed = tmp_path / "t10k-images-idx3-ubyte.gz"
    plain = tmp_path / "t10k-images-idx3-ubyte"
    for content in (b"no gzip", gzip.compress(images)[:-200], gzip.compress(images)[:50] + b"\0" * 200):
        packed.write_bytes(content)
        refused("damaged or cut off", spec)
    for content, message in (
        (b"", "magic number 0x803"),
        (labels, "magic number 0x803"),
        (images[:-1], "2351 of 2352 bytes"),
        (struct.pack(">4I", 0x803, 2**31, 28, 28), "more than 268435456"),
        (idx(pixels(4, 28, 28)), "4 images and 3 labels"),
    ):
        plain.write_bytes(content)
        refused(message, spec)
