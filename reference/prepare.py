"""The data of the studies: all training and test images of CIFAR-10 and MNIST, of 32x32 pixels.

Run `python -m reference.prepare SOURCE out/reference/data`, where SOURCE holds `cifar10/` and `mnist/`, each with
`train.parquet` and `test.parquet` in the Hugging Face layout. Images of another size are resized as networks see them
when measured (bilinear, antialiased), rounded to whole numbers, and stored as PNG.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from invariscope.base.files import write_atomic
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.imageset import ImageSet

SIZE = 32


def prepare(source: Path, out: Path) -> None:
    """Write ``out/{cifar10,mnist}/{train,test}.parquet``."""
    for name in ("cifar10", "mnist"):
        for split in ("train", "test"):
            images = load_dataset(f"parquet:{source / name}", split=split, size=SIZE)
            file = out / name / f"{split}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, _parquet(images))
            print(f"{file}: {len(images)} images, fingerprint {images.fingerprint[:16]}")


def _parquet(images: ImageSet) -> bytes:
    rows = [{"bytes": _png(pixels), "path": None} for pixels in images.pixels().permute(0, 2, 3, 1).numpy()]
    features = {"label": {"names": list(images.classes), "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())])
    table = pa.table({"image": rows, "label": images.labels.numpy()}, schema=schema.with_metadata(metadata))
    target = io.BytesIO()
    pq.write_table(table, target)
    return target.getvalue()


def _png(pixels: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(target, "png")
    return target.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
