"""What to measure, and how finely: a frozen dataclass per group of knobs, which is also its flags on the command line.

A knob is written once: its dataclass has its name, default, meaning and check, and says what of it enters a task's key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from invariscope.base.bounds import LARGEST_INTEGER
from invariscope.base.errors import DataError, InputError, ShiftError
from invariscope.base.names import unknown
from invariscope.base.registry import tell
from invariscope.collectors.measure.precision import PRECISIONS, RUNTIMES
from invariscope.collectors.schema import COLLECTORS, FILLS, SHIFT_KINDS, Collector, default_collectors
from invariscope.zoo.code_leave import kept, refuse_code
from invariscope.zoo.datasets.inputs import LARGEST_SIDE, as_size
from invariscope.zoo.devices import check_device

if TYPE_CHECKING:
    from invariscope.zoo.checkpoint import Checkpoint
    from invariscope.zoo.datasets.inputs import InputSpec

Group = TypeVar("Group")


def at_least(least: int, options: object, *names: str) -> None:
    """Refuse smaller numbers; as slices of the data, counts below 1 would mean other images, -1 all but the last.

    Raises:
        DataError: naming the option.
    """
    for name in names:
        if (count := getattr(options, name)) is not None and count < least:
            raise DataError(f"{name} is {count}: take at least {least}")


def at_most(most: int, options: object, *names: str) -> None:
    """Refuse larger numbers, which would take longer than anybody waits, or more memory than a machine has.

    Raises:
        DataError: naming the option.
    """
    for name in names:
        if (count := getattr(options, name)) is not None and count > most:
            raise DataError(f"{name} is {count}: take at most {most}")


def one_of(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that are not known with an :class:`InputError`, and a text where names are wanted."""
    if isinstance(names, str):
        raise InputError(f"{names!r} stands where names of a {kind} are wanted: write ({names!r},)")
    for name in names:
        if name not in known:
            raise InputError(unknown(kind, name, known))


OWN = "own_accuracy"
"""Setting of the tasks under kinds that do not keep the size: their views have an accuracy of their own."""


def with_own_accuracy(settings: dict[str, Any]) -> dict[str, Any]:
    """A task's settings with :data:`OWN` where its views are not the images."""
    return settings if SHIFT_KINDS[settings["kind"]].keeps_size else {**settings, OWN: True}


@dataclass(frozen=True)
class ShiftOptions:
    """Shifts: of every collector that measures under shifts."""

    shift: tuple[str, ...] = ("circular", "zero")
    """Shift kinds, with commas between; `invariscope --help` lists them."""
    max_shift: tuple[str, ...] = ("1/8",)
    """Largest shift along each axis: input pixels, or a part of the input size such as 1/8; several make as many plans
    of each kind, as 1/8,1/4 does."""
    n_shifts: int = 9
    """Shifts per image."""
    fill: str = "background"
    """What a zero shift fills with: the data set's background, mean (0 after normalisation) or black (0 before it)."""
    crop_size: int | None = None
    """Size to which images are brought for crop shifts; by default the input size + 2 x max shift."""

    def __post_init__(self) -> None:
        one_of("shift kind", self.shift, SHIFT_KINDS)
        given = (self.max_shift,) if isinstance(self.max_shift, str | int) else self.max_shift
        object.__setattr__(self, "max_shift", tuple(map(str, given or ())))
        self.reaches(32)
        at_least(1, self, "n_shifts", "crop_size")
        at_most(LARGEST_SIDE, self, "crop_size")
        one_of("fill", [self.fill], FILLS)

    def reaches(self, side: int) -> list[int]:
        """The largest shifts in pixels, for images whose shorter side is ``side``; one pixel at least of a part.

        Raises:
            DataError: neither whole pixels nor a part of the side below 1, or none at all.
        """
        found = []
        for text in self.max_shift:
            try:
                part = Fraction(text)
            except (ValueError, ZeroDivisionError):
                part = Fraction(-1)
            if not 0 <= part <= LARGEST_SIDE or (part.denominator > 1 and part > 1):
                raise DataError(f"max_shift is {text}: give whole pixels, or a part of the input size such as 1/8")
            found.append(int(part) if part.denominator == 1 else max(int(side * part), 1))
        if not found:
            raise DataError("max_shift is empty: give whole pixels, or a part of the input size such as 1/8")
        return list(dict.fromkeys(found))

    def settings(self, checkpoint: Checkpoint) -> list[dict[str, Any]]:
        """What a task's key holds of these, one entry per kind and largest shift.

        Raises:
            ShiftError: shifts that the checkpoint's input size, or the size for crops, has no room for.
        """
        spec = checkpoint.input
        reaches = self.reaches(min(spec.height, spec.width))
        for most in reaches:
            self._check_room(checkpoint, most)
        return [self._plan(spec, name, most) for name in dict.fromkeys(self.shift) for most in reaches]

    def _plan(self, spec: InputSpec, name: str, most: int) -> dict[str, Any]:
        margin = 2 * most  # a window of the input's size can move by the largest shift
        larger = self.crop_size or as_size((spec.height + margin, spec.width + margin), "crop size")
        return {
            "kind": name,
            "max_shift": most,
            "n_shifts": self.n_shifts,
            "fill": self.fill if SHIFT_KINDS[name].takes_fill else None,
            "crop_size": None if SHIFT_KINDS[name].keeps_size else larger,
        }

    def _check_room(self, checkpoint: Checkpoint, most: int) -> None:
        """Refuse what no image has room for: each would be a failure of its own, once for every checkpoint."""
        spec, choices = checkpoint.input, (2 * most + 1) ** 2
        shorter = min(spec.height, spec.width)
        if self.shift and self.n_shifts > choices:
            raise ShiftError(
                f"{checkpoint.name}: n_shifts is {self.n_shifts} and shifts of up to {most} pixels are {choices}: take "
                "fewer, or a larger max_shift"
            )
        if most >= shorter and any(SHIFT_KINDS[name].keeps_size for name in self.shift):
            raise ShiftError(
                f"{checkpoint.name}: max_shift is {most} and its images have {shorter} pixels: take less than {shorter}"
            )
        has_windows = any(not SHIFT_KINDS[name].keeps_size for name in self.shift)
        if has_windows and self.crop_size and self.crop_size < shorter + 2 * most:
            raise ShiftError(
                f"{checkpoint.name}: crop_size is {self.crop_size}, and a window of {shorter} pixels that moves by "
                f"{most} needs {shorter + 2 * most}: take at least that, or a smaller max_shift"
            )


RUNTIME = "runtime"
"""Setting of the tasks in bfloat16 by another runtime than torch, which rounds otherwise."""


@dataclass(frozen=True)
class PassOptions:
    """Passes: how networks are run."""

    seed: int = 0
    """Seed of the shifts, and of whatever else is drawn by chance."""
    precision: str = "fp32"
    """Of the passes over shifted images: fp32 (the network's own type) or bf16."""
    fold: bool = True
    """Fold batch norms into convolutions for the passes over shifted images, and pack the weights of 1 x 1 ones."""
    device: str = "cpu"
    """Device: cpu, cuda or mps. It moves values by rounding only and is not in the tasks' keys, but for timings."""
    runtime: str = "torch"
    """What runs the passes over shifted images: torch, openvino (on processors; torch where it cannot, which is said),
    or auto, the faster one. It moves fp32 values by rounding only; bf16 ones have keys of their own."""
    batch_size: int | None = None
    """Images per forward pass; by default 8 to 64, by the input size. It moves values by rounding only."""

    def __post_init__(self) -> None:
        one_of("precision", [self.precision], PRECISIONS)
        one_of("runtime", [self.runtime], RUNTIMES)
        if self.runtime != "torch" and self.device != "cpu":
            raise InputError(f"runtime {self.runtime} is for processors: leave it out on device {self.device}")
        if self.runtime == "openvino" and find_spec("openvino") is None:
            raise InputError("runtime openvino is not installed: pip install 'invariscope[openvino]'")
        if self.runtime == "auto" and self.precision != "fp32":
            raise InputError(f"runtimes round differently in {self.precision}: name one in place of runtime auto")
        at_least(1, self, "batch_size")
        at_least(0, self, "seed")
        at_most(LARGEST_INTEGER, self, "seed")
        check_device(self.device)

    def settings(self) -> dict[str, Any]:
        """What the key of a task with shifted passes holds of these, the seed apart."""
        runtime = {RUNTIME: self.runtime} if self.runtime != "torch" and self.precision != "fp32" else {}
        return {"precision": self.precision, "fold": self.fold, **runtime}


SHARED_GROUPS = {"shifts": ShiftOptions, "passes": PassOptions}
"""The groups that several collectors read, by name."""


def option_groups() -> dict[str, type[Any]]:
    """Every group of knobs: the shared ones, and that of each collector that has one under the collector's name.

    Raises:
        InputError: for a knob that two groups have.
    """
    own = {name: found.options for name, found in COLLECTORS.working().items() if found.options is not None}
    groups = dict(SHARED_GROUPS)
    owners = {field.name: name for name, group in groups.items() for field in dataclasses.fields(group)}
    for name, group in own.items():
        fields = [field.name for field in dataclasses.fields(group)]
        if twice := [one for one in fields if one in owners]:
            line = f"{name} and {owners[twice[0]]} both have an option {twice[0]!r}: give one another name"
            if name in COLLECTORS.own or name in COLLECTORS.added:
                raise InputError(line)
            tell(f"{line} (the options of {name} are left out)")
            continue
        groups[name] = group
        owners |= dict.fromkeys(fields, name)
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
        allow_code: run the Python files that knobs name (``python:``), which are refused without.
        knobs: single knobs by name, as on the command line, over those of ``groups``.

    Raises:
        InputError: an unknown collector, group or knob, a value that its group refuses, or code without leave.
    """

    collect: tuple[str, ...]
    groups: tuple[Any, ...]

    def __init__(
        self,
        collect: Iterable[str] | None = None,
        groups: Sequence[Any] = (),
        *,
        allow_code: bool = False,
        **knobs: Any,
    ) -> None:
        collect = (collect,) if isinstance(collect, str) else collect
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
            base, names = given.get(kind, kind()), [field.name for field in dataclasses.fields(kind)]
            own = {name: kept(knobs.pop(name)) for name in names if name in knobs}
            held = {name: getattr(base, name) for name in names if name not in own}
            own |= {name: kept(value) for name, value in held.items() if isinstance(value, Iterator)}
            # A single name where several may stand is that one, and not its letters.
            lists = {field.name for field in dataclasses.fields(kind) if isinstance(field.default, tuple)}
            own |= {name: (value,) for name, value in own.items() if name in lists and isinstance(value, str)}
            made.append(dataclasses.replace(base, **own))
        if knobs:
            every = [field.name for kind in known for field in dataclasses.fields(kind)]
            raise InputError(unknown("option", next(iter(knobs)), every))
        refuse_code((getattr(group, field.name) for group in made for field in dataclasses.fields(group)), allow_code)
        object.__setattr__(self, "groups", tuple(made))
        passes = self[PassOptions]
        watching = [name for name in self.collect if COLLECTORS[name].watches]
        if watching and RUNTIME in passes.settings():
            raise InputError(
                f"{watching[0]} watches maps inside of networks, which torch alone can: measure it in "
                f"{passes.precision} apart, with runtime torch"
            )
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
