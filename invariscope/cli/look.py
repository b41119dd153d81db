"""``look``: one network, some images, and the layer to blame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from invariscope.base.errors import InputError
from invariscope.base.paths import folder_to_write
from invariscope.base.terminal import say
from invariscope.cli.common import DONE, at_least_one
from invariscope.cli.flags import ManifestFlags
from invariscope.zoo.code_leave import refuse_code

if TYPE_CHECKING:
    from torch import nn

    from invariscope.zoo.datasets import ImageSet
    from invariscope.zoo.datasets.inputs import InputSpec

SIDE, LARGE_SIDE = 32, 224


@dataclass(frozen=True)
class Look(ManifestFlags):
    """Look at one network: how stable it is, which layer is to blame, what another operator there would change.

    Example: invariscope look data/zoo --only smallcnn-max-circular-s40000-e020 --data digits --out out/look
    """

    model: Positional[str]
    """Model string (timm:resnet18?pretrained, zoo:resnet20, python:FILE.py:CALLABLE), or a zoo (with --only)."""
    images: Positional[list[Path]]
    """Image files; none where --data names a data set."""
    out: Path
    """Folder for look.png, look.html and look.csv."""
    only: str = "*"
    """The checkpoint of a zoo: a name or pattern that one of them fits."""
    weights: Path | None = None
    """Weights of a model string: .safetensors, or .pt read without running code; as built by default."""
    data: str | None = None
    """Data set instead of image files: NAME[:PATH], for example digits."""
    split: str = "test"
    """Split of an embedded data set."""
    limit: int = 64
    """Measure on the first so many images."""
    size: int | None = None
    """Height and width of the input, in pixels; by default as the model's library or the zoo has it on record."""
    mean: tuple[float, ...] | None = None
    """Mean that is taken off pixels from 0 to 1, per channel; by default as on record, else 0.5."""
    std: tuple[float, ...] | None = None
    """What is divided by, per channel; by default as on record, else 0.5."""
    shift: tuple[str, ...] = ("circular", "zero")
    """Shift kinds."""
    max_shift: int | None = None
    """Largest shift in pixels; by default an eighth of the input's side."""
    site: str | None = None
    """Site whose windows are drawn; by default the one that adds most to the drift."""
    image: int | None = None
    """Index of the image that is drawn; by default the least stable one that is predicted right."""
    swap: tuple[str, ...] = ("blur(m=3)", "aps")
    """Operators that are put in the place of each site's."""
    batch_size: int = 64
    """Images per pass."""
    seed: int = 0
    """Of the shifts, of random weights, and of what is drawn by chance."""

    def run(self) -> int:
        """Measure, print the lines, write the files."""
        from invariscope.looking.look import look
        from invariscope.zoo.datasets.inputs import PreparedImages

        folder_to_write(self.out)
        at_least_one("--limit", self.limit)
        at_least_one("--batch-size", self.batch_size)
        if bool(self.images) == bool(self.data):
            raise InputError("name image files, or a data set with --data: one of the two")
        refuse_code([self.model, *self.swap], self.allow_code)
        model, spec, name = self._network()
        images = self._images(spec)
        spec = replace(spec, mean=self.mean or spec.mean, std=self.std or spec.std)
        found = look(
            model,
            PreparedImages(images, spec),
            kinds=self.shift,
            max_shift=self.max_shift,
            site=self.site,
            image=self.image,
            swaps=self.swap,
            name=name,
            limit=self.limit,
            batch_size=self.batch_size,
            seed=self.seed,
        )
        say(*str(found).split("\n"))
        for path in found.write(self.out):
            say(f"written: {path}")
        return DONE

    def _network(self) -> tuple[nn.Module, InputSpec, str]:
        """The network, its input, and its name."""
        import torch

        from invariscope.zoo.datasets.inputs import InputSpec
        from invariscope.zoo.loading import build_model, default_input, load_checkpoint, load_weights

        if ":" not in self.model or Path(self.model).exists():
            if self.weights is not None:
                raise InputError("--weights belongs to a model string: the checkpoints of a zoo have their own")
            chosen = self.read(Path(self.model), self.only)
            if len(chosen) > 1:
                raise InputError(f"--only {self.only}: {len(chosen)} checkpoints fit, name one ({chosen[0].name})")
            spec = chosen[0].input
            return load_checkpoint(chosen[0]), self._sized(spec), chosen[0].name
        if self.only != "*":
            raise InputError(f"--only chooses a checkpoint of a zoo, and {self.model} is a model string: leave it out")
        torch.manual_seed(self.seed)
        model = build_model(self.model)
        if self.weights is not None:
            state = load_weights(self.weights)
            try:
                model.load_state_dict(state)
            except RuntimeError as error:
                told = " ".join(str(error).split())[:300]
                raise InputError(f"{self.weights} does not fit {self.model} ({told})") from error
        side = SIDE if self.model.startswith("zoo:") else LARGE_SIDE
        spec = default_input(self.model) or InputSpec(side, (0.5,), (0.5,))
        return model, self._sized(spec), self.model

    def _sized(self, spec: InputSpec) -> InputSpec:
        return spec if self.size is None else replace(spec, size=at_least_one("--size", self.size))

    def _images(self, spec: InputSpec) -> ImageSet:
        import torch

        from invariscope.zoo.datasets import ImageSet
        from invariscope.zoo.datasets.decoding import decode_images
        from invariscope.zoo.datasets.source import DataSource

        if self.data is not None:
            return DataSource(self.data, self.split, self.limit, allow_code=self.allow_code).images
        missing = [path for path in self.images if not path.is_file()]
        if missing:
            raise InputError(f"there is no image {missing[0]}: correct its path")
        pixels = decode_images(self.images[: self.limit], "images", max(spec.height, spec.width))
        return ImageSet("images", pixels, torch.full((len(pixels),), -1), ())
