"""What to measure, and how finely: a frozen dataclass per group of knobs, which is also its flags on the command line.

A knob is written once: its dataclass has its name, default, meaning and check, and says what of it enters a task's key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from invariscope.base.errors import DataError, InputError
from invariscope.base.names import unknown
from invariscope.collectors.measure.precision import PRECISIONS
from invariscope.collectors.schema import COLLECTORS, FILLS, SHIFT_KINDS, Collector, default_collectors
from invariscope.zoo.datasets.inputs import as_size
from invariscope.zoo.devices import check_device

if TYPE_CHECKING:
    from invariscope.zoo.checkpoint import Checkpoint

Group = TypeVar("Group")


def at_least_one(options: object, *names: str) -> None:
    """Refuse counts below 1: as slices of the data they would mean other images, -1 all but the last.

    Raises:
        DataError: naming the option.
    """
    for name in names:
        if (count := getattr(options, name)) is not None and count < 1:
            raise DataError(f"{name} is {count}: take at least 1")


def one_of(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that are not known with an :class:`InputError`."""
    for name in names:
        if name not in known:
            raise InputError(unknown(kind, name, known))


@dataclass(frozen=True)
class ShiftOptions:
    """Shifts: of every collector that measures under shifts."""

    shift: tuple[str, ...] = ("circular", "zero")
    """Shift kinds, with commas between; `invariscope --help` lists them."""
    max_shift: int | None = None
    """Largest shift along each axis, in input pixels; by default an eighth of the input size."""
    n_shifts: int = 9
    """Shifts per image."""
    fill: str = "background"
    """What a zero shift fills with: the data set's background, mean (0 after normalisation) or black (0 before it)."""
    crop_size: int | None = None
    """Size to which images are brought for crop shifts; by default the input size + 2 x max shift."""

    def __post_init__(self) -> None:
        one_of("shift kind", self.shift, SHIFT_KINDS)
        at_least_one(self, "n_shifts", "crop_size")
        one_of("fill", [self.fill], FILLS)

    def settings(self, checkpoint: Checkpoint) -> list[dict[str, Any]]:
        """What a task's key holds of these, one entry per kind."""
        spec = checkpoint.input
        most = self.max_shift if self.max_shift is not None else max(min(spec.height, spec.width) // 8, 1)
        margin = 2 * most  # a window of the input's size can move by the largest shift
        larger = self.crop_size or as_size((spec.height + margin, spec.width + margin), "crop size")
        return [
            {
                "kind": name,
                "max_shift": most,
                "n_shifts": self.n_shifts,
                "fill": self.fill if SHIFT_KINDS[name].takes_fill else None,
                "crop_size": None if SHIFT_KINDS[name].keeps_size else larger,
            }
            for name in dict.fromkeys(self.shift)
        ]


@dataclass(frozen=True)
class PassOptions:
    """Passes: how networks are run."""

    seed: int = 0
    """Seed of the shifts, and of whatever else is drawn by chance."""
    precision: str = "fp32"
    """Of the passes over shifted images: fp32 (the network's own type) or bf16."""
    fold: bool = True
    """Fold batch norms into convolutions for the passes over shifted images."""
    device: str = "cpu"
    """Device: cpu, cuda or mps. It moves values by rounding only and is not in the tasks' keys, but for timings."""
    batch_size: int | None = None
    """Images per forward pass; by default 8 to 64, by the input size. It moves values by rounding only."""

    def __post_init__(self) -> None:
        one_of("precision", [self.precision], PRECISIONS)
        at_least_one(self, "batch_size")
        check_device(self.device)

    def settings(self) -> dict[str, Any]:
        """What the key of a task with shifted passes holds of these, the seed apart."""
        return {"precision": self.precision, "fold": self.fold}


SHARED_GROUPS = {"shifts": ShiftOptions, "passes": PassOptions}
"""The groups that several collectors read, by name."""


def option_groups() -> dict[str, type[Any]]:
    """Every group of knobs: the shared ones, and that of each collector that has one under the collector's name.

    Raises:
        InputError: for a knob that two groups have.
    """
    own = {name: COLLECTORS[name].options for name in COLLECTORS}
    groups = {**SHARED_GROUPS, **{name: group for name, group in own.items() if group is not None}}
    owners: dict[str, str] = {}
    for name, group in groups.items():
        for field in dataclasses.fields(group):
            if (other := owners.setdefault(field.name, name)) != name:
                raise InputError(f"{name} and {other} both have an option {field.name!r}: give one another name")
    return groups


def register_collector(name: str, collector: Collector) -> None:
    """Add a collector, its table and its flags, for this process and its workers.

    Raises:
        InputError: for a name that is taken, an option that is there already, or no collector.
    """
    COLLECTORS.add(name, collector)
    try:
        option_groups()
    except InputError:
        COLLECTORS.remove(name)
        raise


@dataclass(frozen=True, init=False)
class Options:
    """What to measure: the collectors by name, and an instance of each group of knobs.

    >>> Options(("layers", "surface"), msb_images=100, surface_images=12)  # doctest: +SKIP
    >>> Options(("layers",), [LayersOptions(msb_images=100)])[LayersOptions].msb_images  # doctest: +SKIP

    Args:
        collect: names of collectors; by default those of networks that predict the class of an image.
        groups: instances of groups (:func:`option_groups`); the others have their defaults.
        knobs: single knobs by name, as on the command line, over those of ``groups``.

    Raises:
        InputError: an unknown collector, group or knob, or a value that its group refuses.
    """

    collect: tuple[str, ...]
    groups: tuple[Any, ...]

    def __init__(self, collect: Iterable[str] | None = None, groups: Sequence[Any] = (), **knobs: Any) -> None:
        wanted = default_collectors() if collect is None else tuple(collect)
        one_of("collector", wanted, COLLECTORS)
        # In the order of the registry: MSB comes before the scores, whose unshifted pass it shares.
        object.__setattr__(self, "collect", tuple(name for name in COLLECTORS if name in wanted))
        given = {type(group): group for group in groups}
        known = option_groups().values()
        if strangers := [kind.__name__ for kind in given if kind not in known]:
            raise InputError(unknown("group of options", strangers[0], [kind.__name__ for kind in known]))
        made = []
        for kind in dict.fromkeys(known):
            own = {field.name: knobs.pop(field.name) for field in dataclasses.fields(kind) if field.name in knobs}
            made.append(dataclasses.replace(given.get(kind, kind()), **own))
        if knobs:
            every = [field.name for kind in known for field in dataclasses.fields(kind)]
            raise InputError(unknown("option", next(iter(knobs)), every))
        object.__setattr__(self, "groups", tuple(made))
        for name in self.collect:
            if (check := COLLECTORS[name].check) is not None:
                check(self)

    def __getitem__(self, kind: type[Group]) -> Group:
        """The group of this type.

        Raises:
            InputError: it is the group of no collector that was registered when these options were made.
        """
        for group in self.groups:
            if type(group) is kind:
                return group
        raise InputError(unknown("group of options", kind.__name__, [type(group).__name__ for group in self.groups]))

    def shifts(self, checkpoint: Checkpoint) -> list[dict[str, Any]]:
        """The settings of the tasks under shifts with the passes of these options, one entry per kind."""
        passes = self[PassOptions]
        shared = {"seed": passes.seed, **passes.settings()}
        return [{**settings, **shared} for settings in self[ShiftOptions].settings(checkpoint)]
