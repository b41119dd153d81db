"""Look at five networks of timm, of different kinds: the pictures of docs/look.md that are not of the bundled zoo.

Run `python -m reference.looks OUT`. The networks are trained here for some epochs on the embedded digits with
one seed, so that no weights need be downloaded (a quarter of an hour on one core); `make looks` does this.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import nn

import invariscope as iv
from invariscope.base.files import write_whole
from invariscope.zoo.datasets import ImageSet, load_dataset
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.loading import build_model

NETWORKS = {
    "resnet18": "max pooling and strided convolutions",
    "resnetblur18": "the same with blurs",
    "convnext_atto": "patches, and strided convolutions of kernel two",
    "mobilenetv3_small_050": "strided depthwise convolutions",
    "pvt_v2_b0": "a transformer over patches that overlap",
}
"""Networks of timm by name, and how they downsample."""

DATA, SIZE, SHOWN = "digits", 64, 64
EPOCHS, BATCH, RATE, SEED = 4, 50, 1e-3, 0


def trained(name: str, data: ImageSet) -> nn.Module:
    """The network after some epochs of Adam on cross-entropy, ready for evaluation."""
    torch.manual_seed(SEED)
    model = build_model(f"timm:{name}?in_chans=1&num_classes={len(data.classes)}")
    images, labels = PreparedImages(data, SPEC)[:], data.labels
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def small(picture: Path) -> bytes:
    """The picture in 128 colours, a third of its size."""
    told = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").quantize(128).save(told, "PNG", optimize=True)
    return told.getvalue()


SPEC = InputSpec(SIZE, (0.5,), (0.25,))


def main(out: Path) -> None:
    """Train, look, and write NAME.png and NAME.txt."""
    data, test = load_dataset(DATA, split="train"), load_dataset(DATA)
    for name in NETWORKS:
        model = trained(name, data)
        found = iv.look(
            model,
            PreparedImages(test, SPEC)[:],
            test.labels,
            classes=test.classes,
            name=f"timm:{name}, {EPOCHS} epochs of {DATA}",
            limit=SHOWN,
            progress=False,
        )
        picture = next(path for path in found.write(out / name) if path.suffix == ".png")
        write_whole(out / f"{name}.png", small(picture))
        write_whole(out / f"{name}.txt", "".join(f"{line}\n" for line in found.lines()).encode())
        print(*found.lines(), sep="\n", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
