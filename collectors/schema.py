"""The contract between measuring and analysing: the tables by name, the columns that they share, the shift kinds.

A table's own columns stand with its collector, in :mod:`invariscope.collectors.tables`. Imports pyarrow and nothing
else of weight, so that tables can be read and checked on a machine without torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from invariscope.base.errors import InputError
from invariscope.base.former import FORMER_NAME
from invariscope.base.names import unknown
from invariscope.base.registry import Registry
from invariscope.collectors.shift_kinds import FILLS, SHIFT_KINDS, UNSHIFTED

if TYPE_CHECKING:
    import pandas as pd

    from invariscope.collectors.engine.subject import Subject
    from invariscope.collectors.options import Options
    from invariscope.zoo.checkpoint import Checkpoint

__all__ = [
    "COLLECTORS",
    "DESCRIPTION",
    "FILLS",
    "FORMER_COLUMNS",
    "LATER_COLUMNS",
    "MSB_READINGS",
    "NOT_APPLICABLE",
    "OPERATOR_ERROR",
    "OTHER_READINGS",
    "PIXEL_SCORES",
    "PLAN_COLUMNS",
    "PRIMARY_READING",
    "PRIMARY_SCORE",
    "RUN_TABLES",
    "SCHEMA_VERSION",
    "SCORES",
    "SHIFT_KINDS",
    "TABLES",
    "UNSHIFTED",
    "Collector",
    "default_collectors",
    "describe",
]

SCHEMA_VERSION = 1
"""Raised whenever a column changes its meaning; part of every task key and of every part's schema metadata."""

MSB_READINGS = ("msb", "msb_all", "msb_weight", "msb_top", "msb_corrected")
"""The readings of the maximum-sampling bias, in the order in which they are reported."""

OTHER_READINGS = ("selectivity", "position", "msb_jacobian", "aliasing", "see", "see_padding")
"""The rival explanations: what else is read of each site, in the order in which it is reported."""

OPERATOR_ERROR = "operator_equivariance_error"
"""The reading of a network's operator alone, on noise: a column of the table of descriptions."""

NOT_APPLICABLE = "not_applicable"
"""Column of the readings of a row without a number, each with the reason."""

PRIMARY_READING = "msb_corrected"
PRIMARY_SCORE = "consistency"

SCORES = (
    "accuracy",
    "consistency",
    "consistency_to_clean",
    "fidelity",
    "stability",
    "fidelity_product",
    "worst_case_accuracy",
    "kappa",
    "flip_rate",
    "probability_drift",
)
"""Every invariance score a row of ``invariance`` can name."""

PIXEL_SCORES = (
    "miou",
    "pixel_accuracy",
    "consistency_pixel",
    "consistency_pixel_corrected",
    "fidelity_pixel",
    "miou_shifted",
    "pixel_accuracy_shifted",
)
"""Every score a row of ``segmentation`` can name; the first two are of unshifted images (kind ``none``)."""


def column(name: str, type_: pa.DataType, unit: str, meaning: str, *, nullable: bool = False) -> pa.Field:
    """A column that is never null, with its unit and its meaning."""
    return pa.field(name, type_, nullable=nullable, metadata={"unit": unit, "meaning": meaning})


def optional(name: str, type_: pa.DataType, unit: str, meaning: str) -> pa.Field:
    """A column that may be null."""
    return column(name, type_, unit, meaning, nullable=True)


TEXT, INT, REAL = pa.string(), pa.int64(), pa.float64()


def with_errors(readings: Mapping[str, str]) -> tuple[pa.Field, ...]:
    """A column for each reading, by name and meaning, and one for its standard error; both may be null."""
    fields = []
    for name, meaning in readings.items():
        fields.append(optional(name, REAL, "1", meaning))
        fields.append(optional(f"{name}_se", REAL, "1", f"standard error of {name}: jackknife over images"))
    return tuple(fields)


IDENTITY = (
    column("checkpoint", TEXT, "", "name of the checkpoint in its manifest"),
    column("sha256", TEXT, "hex", "SHA-256 of the weights file; joins the tables together with `model`"),
    column("model", TEXT, "", "model string: how the network is built"),
)

ON_DATA = (
    column("data", TEXT, "", "data set measured on, with its split"),
    column("data_fingerprint", TEXT, "hex", "hash of the images, the labels, the input size and the preprocessing"),
    optional("deterministic", pa.bool_(), "", "false: other logits on a second pass, or in other batches"),
)

TASK = column("task", TEXT, "hex", "key of the task that wrote the row: its part file's name")

VERSIONS = (
    column("invariscope_version", TEXT, "", "version of this package"),
    column("torch_version", TEXT, "", "version of torch, with its build"),
)

MADE_BY = (
    optional("code_sha256", TEXT, "hex", "hash of the user's Python files that make the network"),
    optional("timm_version", TEXT, "", "version of timm, where the network has layers of it"),
    optional("torchvision_version", TEXT, "", "version of torchvision, where the network has layers of it"),
)

PROVENANCE = (*ON_DATA, TASK, *VERSIONS, *MADE_BY)

PLAN = (
    column("shift_kind", TEXT, "", f"{', '.join((UNSHIFTED, *SHIFT_KINDS.own))}, or one of another package"),
    optional("fill", TEXT, "", "zero shifts only: `background` of the data, `mean` (0 when normalised) or `black`"),
    column("max_shift", INT, "input pixels", "largest displacement along each axis; 0 without a shift"),
    column("n_shifts", INT, "shifts", "shifts per image; 0 without a shift"),
    column("plan", TEXT, "", "how shifts are chosen: sampled, grid, path or none"),
    column("plan_hash", TEXT, "hex", "hash of every shift of every image; equal hashes = the same comparison"),
)

PLAN_COLUMNS = tuple(field.name for field in PLAN)
"""The columns that tell one shift plan from another, in every table that has shifts."""

PLAN_CONDITIONS = PLAN_COLUMNS[:-1]
"""The same without the hash, which says no more of two plans of equal images."""

PRECISION = optional("precision", TEXT, "", "of the passes: fp32 or bf16; null in tables older than the column")

LATER_COLUMNS = frozenset(
    {"precision", "explained", NOT_APPLICABLE, "deterministic", "tensors_sha256", "probe", "metrics", OPERATOR_ERROR}
    | {column for name in OTHER_READINGS for column in (name, f"{name}_se")}
    | {field.name for field in MADE_BY}
)
"""Columns that the first tables of this schema version lack; they are null there."""

FORMER_COLUMNS = MappingProxyType({"invariscope_version": f"{FORMER_NAME}_version"})
"""Columns that had another name in the first tables of this schema version: name -> former name."""


WATCHED = "images"
"""Setting of the tasks of a collector that watches: of how many of the first images."""

Scores = Literal["images", "pixels"]
"""What is predicted: the class of a whole image, or of each of its pixels."""


@dataclass(frozen=True)
class Collector:
    """One table: its columns, its options, the settings of its tasks, and the rows of one task.

    A part of the table is one task. Its key is a hash of the network, the data and the task's settings: equal settings
    are measured once.

    Attributes:
        help: what is measured, in a few words.
        columns: fields of pyarrow, each with ``unit`` and ``meaning`` in its metadata. Which network it is, which data,
            which task and which versions stands before and after them, and is filled in.
        settings: the settings of every task for a checkpoint: plain values for JSON.
        rows: the rows of one task, a frame with these columns.
        options: a frozen dataclass with a default for every field, whose fields are flags of ``collect``.
        check: refuses options before anything is measured, where this collector is asked for.
        conditions: columns that say what of the table a task measured, for ``status``.
        scores: what the network must predict: the class of an image, or of each pixel, which needs masks; None suits
            every network and data set.
        of_labels: whether nothing of it can be measured on images without labels.
        of_data: whether the rows depend on the images; otherwise neither key nor rows name them.
        replaces: a checkpoint has one task, and a new one replaces the old one's rows.
        alone: what is measured in several processes at once would be wrong.
        keeps_predictions: what other tasks predict under the same shifts is wanted in full.
        watches: the passes that others make under shifts are watched at the sites; of so many images as the setting
            :data:`WATCHED` of its tasks says.
        default: whether it is measured where nobody says what.
        renewed: a column that every measured row has, and one that older rows lack, unless their ``not_applicable``
            names it (a column of such a table): what was measured before it was there stays as it is, and is told of.
        definition: version of what the columns mean; raised where a value is computed otherwise than before, so that
            the tasks are others and tables measured before are not taken for done.
        remark: what must be said of a task's rows in a few words; None where there is nothing to say.
    """

    help: str
    columns: tuple[pa.Field, ...]
    settings: Callable[[Checkpoint, Options], list[dict[str, Any]]]
    rows: Callable[[Subject, dict[str, Any]], pd.DataFrame]
    options: type[Any] | None = None
    check: Callable[[Options], None] | None = None
    conditions: tuple[str, ...] = ()
    scores: Scores | None = None
    of_labels: bool = False
    of_data: bool = True
    replaces: bool = False
    alone: bool = False
    keeps_predictions: bool = False
    watches: bool = False
    default: bool = False
    renewed: tuple[str, str] | None = None
    definition: int = 1
    remark: Callable[[pd.DataFrame], str | None] | None = None


DESCRIPTION = "checkpoints"
"""The table that says what each checkpoint is, to which all others are joined: always filled."""

RUN_TABLES = ("failures", "timings")
"""Tables of the runs themselves, which no collector fills."""


def check_collector(name: str, collector: Any) -> None:
    """Refuse what is no collector, or one that cannot stand beside the others.

    Raises:
        InputError: another object, a name that is a run's table or no file name, options that are no frozen dataclass
            with defaults, or a column that is there twice.
    """
    if not isinstance(collector, Collector):
        raise InputError(f"collector {name!r} is a {type(collector).__name__}: give a Collector")
    if name in RUN_TABLES or not name.isidentifier():
        raise InputError(f"{name!r} cannot name a collector: give a Python name, and none of {', '.join(RUN_TABLES)}")
    columns = [column.name for column in collector.columns]
    shared = [field.name for field in (*IDENTITY, *PROVENANCE)]
    if twice := {one for one in columns if columns.count(one) > 1 or one in shared}:
        raise InputError(f"collector {name!r}: the column {min(twice)!r} is there already: give it another name")
    if collector.renewed and (missing := [one for one in (*collector.renewed, NOT_APPLICABLE) if one not in columns]):
        raise InputError(f"collector {name!r}: is renewed, and has no column {missing[0]!r}: add it")
    if missing := [one for one in collector.conditions if one not in columns]:
        raise InputError(f"collector {name!r}: its condition {missing[0]!r} is none of its columns: correct it")
    options = collector.options
    if options is None:
        return
    if not (dataclasses.is_dataclass(options) and options.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise InputError(f"collector {name!r}: its options are no frozen dataclass: write @dataclass(frozen=True)")
    for field in dataclasses.fields(options):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"collector {name!r}: its option {field.name!r} has no default: give it one")


_TABLES = "invariscope.collectors.tables"

COLLECTORS = Registry(
    "collector",
    {
        "checkpoints": f"{_TABLES}.checkpoints:COLLECTOR",
        "layers": f"{_TABLES}.layers:COLLECTOR",  # before the scores, whose unshifted pass it shares
        "invariance": f"{_TABLES}.invariance:COLLECTOR",
        "drift": f"{_TABLES}.drift:COLLECTOR",  # after the scores, whose passes it watches
        "surface": f"{_TABLES}.surface:COLLECTOR",
        "predictions": f"{_TABLES}.predictions:COLLECTOR",
        "segmentation": f"{_TABLES}.segmentation:COLLECTOR",
        "swaps": f"{_TABLES}.swaps:COLLECTOR",
        "cost": f"{_TABLES}.cost:COLLECTOR",
        "robustness": f"{_TABLES}.robustness:COLLECTOR",
    },
    InputError,
    group="invariscope.collectors",
    check=check_collector,
)
"""Name of the table -> :class:`Collector`, in the order in which a checkpoint is measured. A further one is a file in
``tables`` and a line here; one of another package is an entry point."""


def default_collectors(scores: Scores = "images") -> tuple[str, ...]:
    """What is measured where nobody says: of networks that predict the class of an image, or of each pixel."""
    return tuple(
        name for name, found in COLLECTORS.working().items() if found.default and found.scores in (None, scores)
    )


_FAILURES = (
    column("checkpoint", TEXT, "", "name of the checkpoint in its manifest"),
    column("sha256", TEXT, "hex", "SHA-256 of the weights file that failed"),
    column("stage", TEXT, "", "what failed: load, or the collector's name"),
    column("error", TEXT, "", "class of the error"),
    column("message", TEXT, "", "its message, one line"),
    ON_DATA[0],
    column("task", TEXT, "hex", "key of the task that failed; its success, or other weights, remove the row"),
    *VERSIONS,
)

_TIMINGS = (
    column("task", TEXT, "hex", "key of the task"),
    column("checkpoint", TEXT, "", "name of the checkpoint in its manifest"),
    column("collector", TEXT, "", "name of the collector"),
    column("started", pa.timestamp("us", tz="UTC"), "UTC", "start of the task"),
    column("seconds", REAL, "s", "wall time of the task, model loading apart"),
    optional(
        "runtime",
        TEXT,
        "",
        "what ran the shifted passes (null: none was run anew), and why torch where another was asked for",
    ),
)


class _Tables(Mapping[str, pa.Schema]):
    """The schemas of the collectors' tables and of those of the runs, whatever was registered last."""

    def __getitem__(self, name: str) -> pa.Schema:
        if name in RUN_TABLES:
            columns = {"failures": _FAILURES, "timings": _TIMINGS}[name]
        elif name in COLLECTORS:
            collector = COLLECTORS[name]
            columns = (
                *IDENTITY,
                *collector.columns,
                *(PROVENANCE if collector.of_data else PROVENANCE[len(ON_DATA) :]),
            )
        else:
            raise InputError(unknown("table", name, self))
        return pa.schema(columns, metadata={"table": name, "schema_version": str(SCHEMA_VERSION)})

    def __contains__(self, name: object) -> bool:
        return name in RUN_TABLES or name in COLLECTORS

    def __iter__(self) -> Iterator[str]:
        return iter((*COLLECTORS.working(), *RUN_TABLES))

    def __len__(self) -> int:
        return sum(1 for _ in self)


TABLES: Mapping[str, pa.Schema] = _Tables()
"""Every table by name. A table is a folder ``TABLES/<name>`` of parquet parts that follow its schema; how they lie
there is known to :mod:`invariscope.collectors.store` alone."""


def describe(table: str) -> str:
    """The columns of a table as Markdown: name, type, unit and meaning, one row each."""
    lines = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    for field in TABLES[table]:
        notes = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        lines.append(f"| `{field.name}` | {field.type} | {notes.get('unit', '')} | {notes.get('meaning', '')} |")
    return "\n".join(lines)
