"""The contract between measuring and analysing: one pyarrow schema per table, every column with its unit and meaning.

Imports pyarrow and nothing else of weight, so that tables can be read and checked on a machine without torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
from pyarrow import fs

from invariscope.base.former import FORMER_NAME

SCHEMA_VERSION = 1
"""Raised whenever a column changes its meaning; part of every task key and of every part's schema metadata."""

MSB_READINGS = ("msb", "msb_all", "msb_weight", "msb_top", "msb_corrected")
"""The readings of the maximum-sampling bias, in the order in which they are reported."""

PRIMARY_READING = "msb_corrected"
PRIMARY_SCORE = "consistency"

SCORES = (
    "accuracy",
    "consistency",
    "consistency_to_clean",
    "fidelity",
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
    "fidelity_pixel",
    "miou_shifted",
    "pixel_accuracy_shifted",
)
"""Every score a row of ``segmentation`` can name; the first two are of unshifted images (kind ``none``)."""

SHIFT_KINDS = ("circular", "zero", "reflect", "replicate", "crop")
"""The shift kinds; ``accuracy`` on the unshifted images has the kind ``none``."""


def _field(name: str, type_: pa.DataType, unit: str, meaning: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"unit": unit, "meaning": meaning})


def _optional(name: str, type_: pa.DataType, unit: str, meaning: str) -> pa.Field:
    return _field(name, type_, unit, meaning, nullable=True)


_TEXT, _INT, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()

_IDENTITY = (
    _field("checkpoint", _TEXT, "", "name of the checkpoint in its manifest"),
    _field("sha256", _TEXT, "hex", "SHA-256 of the weights file; joins the tables together with `model`"),
    _field("model", _TEXT, "", "model string: how the network is built"),
)

_PROVENANCE = (
    _field("data", _TEXT, "", "data set measured on, with its split"),
    _field("data_fingerprint", _TEXT, "hex", "hash of the images, the labels, the input size and the preprocessing"),
    _field("task", _TEXT, "hex", "key of the task that wrote the row: its part file's name"),
    _field("invariscope_version", _TEXT, "", "version of this package"),
    _field("torch_version", _TEXT, "", "version of torch, with its build"),
)

_PLAN = (
    _field("shift_kind", _TEXT, "", "none, circular, zero, reflect, replicate or crop"),
    _optional("fill", _TEXT, "", "zero shifts only: `mean` (0 after normalisation) or `black` (0 before it)"),
    _field("max_shift", _INT, "input pixels", "largest displacement along each axis; 0 without a shift"),
    _field("n_shifts", _INT, "shifts", "shifts per image; 0 without a shift"),
    _field("plan", _TEXT, "", "how shifts are chosen: sampled, grid, path or none"),
    _field("plan_hash", _TEXT, "hex", "hash of every shift of every image; equal hashes = the same comparison"),
)

PLAN_COLUMNS = tuple(field.name for field in _PLAN)
"""The columns that say under which shifts a row was measured."""

_PRECISION = _optional("precision", _TEXT, "", "of the passes: fp32 or bf16; null in tables older than the column")

LATER_COLUMNS = frozenset({"precision"})
"""Columns that the first tables of this schema version lack; they are null there."""

FORMER_COLUMNS = MappingProxyType({"invariscope_version": f"{FORMER_NAME}_version"})
"""Columns that had another name in the first tables of this schema version: name -> former name."""


def _readings() -> tuple[pa.Field, ...]:
    meaning = {
        "msb": "share of non-flat windows whose output equals the window's maximum exactly",
        "msb_all": "the same over all windows, flat ones as hits",
        "msb_weight": "mean sampling weight on the window's maximum, non-flat windows",
        "msb_top": "mean of: the maximum sits at a position of greatest weight (tied weights share the point)",
        "msb_corrected": "chance-corrected msb_weight: 0 blind to the values, 1 always the maximum",
        "flat_fraction": "share of windows whose values are all equal",
    }
    fields = []
    for name, text in meaning.items():
        fields.append(_optional(name, _REAL, "1", text))
        fields.append(_optional(f"{name}_se", _REAL, "1", f"standard error of {name}: jackknife over images"))
    return tuple(fields)


CHECKPOINTS = pa.schema(
    [
        *_IDENTITY,
        _optional("architecture", _TEXT, "", "architecture, for example resnet20"),
        _optional("operator", _TEXT, "", "downsampling operator without its arguments: soft of soft(beta=4)"),
        _optional("operator_spec", _TEXT, "", "downsampling operator with its arguments"),
        _optional("strength", _REAL, "1", "the operator's one knob where it has one: beta of soft, p of lp, m of blur"),
        _optional("padding_mode", _TEXT, "", "padding of the network's convolutions"),
        _optional("training_data", _TEXT, "", "data set trained on"),
        _optional("seed", _INT, "", "seed of the training run"),
        _optional("run", _TEXT, "", "training run; snapshots of one run share it"),
        _optional("epoch", _REAL, "epochs", "epochs trained at the snapshot"),
        _field("n_params", _INT, "parameters", "number of parameters"),
        _field("factors", _TEXT, "JSON", "all factors of the manifest entry, free columns for the analysis"),
        *_PROVENANCE[2:],
    ]
)

LAYERS = pa.schema(
    [
        *_IDENTITY,
        _field("depth", _INT, "", "index of the site in the order of the forward pass, from 0"),
        _field("n_sites", _INT, "sites", "downsampling sites of the network, measured or not"),
        _optional("site", _TEXT, "", "module path of the site; null: the network has no site"),
        _optional("site_kind", _TEXT, "", "max, avg, blur, conv, subsample, soft, lp, aps, lps, tips, ..."),
        _optional("kernel", _TEXT, "feature pixels", "kernel, height x width"),
        _optional("stride", _TEXT, "feature pixels", "stride, height x width"),
        _optional("channels", _INT, "channels", "channels of the site's input"),
        _optional("input_size", _TEXT, "feature pixels", "size of the site's input, height x width"),
        _optional("output_size", _TEXT, "feature pixels", "size of the site's output, height x width"),
        _field("n_windows", _INT, "windows", "windows measured, over all images and channels"),
        _field("n_images", _INT, "images", "images measured"),
        *_readings(),
        _optional("reason", _TEXT, "", "why there is no number, where there is none"),
        *_PROVENANCE,
    ]
)

INVARIANCE = pa.schema(
    [
        *_IDENTITY,
        *_PLAN,
        _PRECISION,
        _field("score", _TEXT, "", "name of the score"),
        _optional("value", _REAL, "1", "the score"),
        _optional("se", _REAL, "1", "standard error, images as the sampling unit"),
        _optional("low", _REAL, "1", "lower end of the 95 % interval"),
        _optional("high", _REAL, "1", "upper end of the 95 % interval"),
        _field("n_images", _INT, "images", "images measured"),
        _field("n_pairs", _INT, "pairs", "pairs of shifts compared, over all images; 0 for accuracy"),
        *_PROVENANCE,
    ]
)

SURFACE = pa.schema(
    [
        *_IDENTITY,
        *_PLAN,
        _PRECISION,
        _field("dy", _INT, "input pixels", "shift down"),
        _field("dx", _INT, "input pixels", "shift right"),
        _field("agreement", _REAL, "1", "share of images predicted as without the shift"),
        _optional("agreement_se", _REAL, "1", "its standard error over images"),
        _field("accuracy", _REAL, "1", "share of images predicted right under the shift"),
        _optional("accuracy_se", _REAL, "1", "its standard error over images"),
        _field("n_images", _INT, "images", "images measured"),
        *_PROVENANCE,
    ]
)

PREDICTIONS = pa.schema(
    [
        *_IDENTITY,
        *_PLAN,
        _PRECISION,
        _field("image", _INT, "", "index of the image in the data set"),
        _field("label", _INT, "class", "label"),
        _field("clean_prediction", _INT, "class", "top-1 class of the unshifted image"),
        _field("clean_probability", _REAL, "1", "softmax probability of that class on the unshifted image"),
        _field("dy", pa.list_(pa.int32()), "input pixels", "shift down, per shift"),
        _field("dx", pa.list_(pa.int32()), "input pixels", "shift right, per shift"),
        _field("prediction", pa.list_(pa.int32()), "class", "top-1 class, per shift"),
        _field("probability", pa.list_(pa.float64()), "1", "softmax probability of the top-1 class, per shift"),
        _field("drift_probability", pa.list_(pa.float64()), "1", "probability of the unshifted prediction, per shift"),
        *_PROVENANCE,
    ]
)

SWAPS = pa.schema(
    [
        *_IDENTITY,
        _optional("depth", _INT, "", "index of the changed site in the order of the forward pass; null: every site"),
        _field("n_sites", _INT, "sites", "downsampling sites of the network"),
        _optional("site", _TEXT, "", "module path of the changed site"),
        _optional("site_kind", _TEXT, "", "kind of the site before the change"),
        _field("replacement", _TEXT, "", "operator put in its place, with its arguments; the weights stay"),
        *_PLAN,
        _field("measure", _TEXT, "", "an MSB reading, or a score"),
        _field("scope", _TEXT, "", "site: of the changed site; network: of all sites, or of the predictions"),
        _optional("before", _REAL, "1", "the measure of the network as it was trained"),
        _optional("after", _REAL, "1", "the measure with the replacement"),
        _optional("change", _REAL, "1", "after - before, on the same images and shifts"),
        _optional("se", _REAL, "1", "standard error of the change, images as the sampling unit, paired"),
        _optional("low", _REAL, "1", "lower end of the change's 95 % interval"),
        _optional("high", _REAL, "1", "upper end of the change's 95 % interval"),
        _field("n_images", _INT, "images", "images measured"),
        _optional("reason", _TEXT, "", "why there is no number, where there is none"),
        *_PROVENANCE,
    ]
)

ROBUSTNESS = pa.schema(
    [
        *_IDENTITY,
        _field("condition_kind", _TEXT, "", "clean, adversarial, corruption or data"),
        _field("condition", _TEXT, "", "the attack, the corruption, or the other data set's name"),
        _optional("severity", _REAL, "", "corruptions: 1 to 5; attacks: the budget epsilon, in units of [0, 1] pixels"),
        _optional("norm", _TEXT, "", "attacks: linf or l2"),
        _optional("steps", _INT, "steps", "attacks: gradient steps"),
        _optional("restarts", _INT, "", "attacks: random restarts"),
        _optional("step_size", _REAL, "[0, 1] pixels", "attacks: size of a step"),
        _optional("seed", _INT, "", "seed of the condition's random numbers"),
        _field("accuracy", _REAL, "1", "share of images predicted right"),
        _optional("se", _REAL, "1", "its standard error over images"),
        _optional("low", _REAL, "1", "lower end of the 95 % interval"),
        _optional("high", _REAL, "1", "upper end of the 95 % interval"),
        _field("n_images", _INT, "images", "images measured"),
        _optional("note", _TEXT, "", "what the number rests on, and what it does not say"),
        *_PROVENANCE,
    ]
)

SEGMENTATION = pa.schema(
    [
        *_IDENTITY,
        *_PLAN,
        _field("score", _TEXT, "", "name of the score"),
        _optional("value", _REAL, "1", "the score; void pixels are left out of it"),
        _optional("se", _REAL, "1", "standard error, images as the sampling unit"),
        _optional("low", _REAL, "1", "lower end of the 95 % interval"),
        _optional("high", _REAL, "1", "upper end of the 95 % interval"),
        _field("n_images", _INT, "images", "images with pixels that are not void"),
        _optional("n_pairs", _INT, "pairs", "pairs of shifts compared, over all images; 0 for accuracies"),
        _optional("n_classes", _INT, "classes", "mIoU: classes in the masks or predicted, that it is the mean of"),
        _optional("void_share", _REAL, "1", "share of the masks' pixels that are void"),
        _optional("classes_absent", _TEXT, "", "classes of the data set with no pixel in the masks, comma between"),
        *_PROVENANCE,
    ]
)

# Here timings are the measurement: two runs have the same parameters and multiply-adds, and no two the same seconds.
COST = pa.schema(
    [
        *_IDENTITY,
        _field("quantity", _TEXT, "", "parameters, multiply_adds, latency or training_step"),
        _field("value", _REAL, "unit", "the quantity; of timings the median"),
        _field("unit", _TEXT, "", "parameters, multiply-adds or s"),
        _optional("low", _REAL, "unit", "timings: first quartile"),
        _optional("high", _REAL, "unit", "timings: third quartile"),
        _optional("relative", _REAL, "1", "value as a share of the reference's; of timings measured in turn with it"),
        _optional("relative_low", _REAL, "1", "timings: first quartile of the ratios of each pair"),
        _optional("relative_high", _REAL, "1", "timings: third quartile of the ratios of each pair"),
        _optional("reference", _TEXT, "", "operator that the network was compared with, all else equal"),
        _field("input_size", _TEXT, "input pixels", "size of the input, height x width"),
        _field("batch_size", _INT, "images", "images of one pass"),
        _optional("repeats", _INT, "", "timings: passes timed"),
        _optional("threads", _INT, "", "timings: threads of the process"),
        _optional("device", _TEXT, "", "timings: device, with its name"),
        *_PROVENANCE[2:],
    ]
)

FAILURES = pa.schema(
    [
        _field("checkpoint", _TEXT, "", "name of the checkpoint in its manifest"),
        _field("sha256", _TEXT, "hex", "SHA-256 of the weights file that failed"),
        _field("stage", _TEXT, "", "what failed: load, or the collector's name"),
        _field("error", _TEXT, "", "class of the error"),
        _field("message", _TEXT, "", "its message, one line"),
        _field("data", _TEXT, "", "data set measured on, with its split"),
        _field("task", _TEXT, "hex", "key of the task that failed; its success, or other weights, remove the row"),
        _field("invariscope_version", _TEXT, "", "version of this package"),
        _field("torch_version", _TEXT, "", "version of torch, with its build"),
    ]
)

TIMINGS = pa.schema(
    [
        _field("task", _TEXT, "hex", "key of the task"),
        _field("checkpoint", _TEXT, "", "name of the checkpoint in its manifest"),
        _field("collector", _TEXT, "", "name of the collector"),
        _field("started", pa.timestamp("us", tz="UTC"), "UTC", "start of the task"),
        _field("seconds", _REAL, "s", "wall time of the task, model loading apart"),
    ]
)

_COLUMNS = {
    "checkpoints": CHECKPOINTS,
    "layers": LAYERS,
    "invariance": INVARIANCE,
    "surface": SURFACE,
    "predictions": PREDICTIONS,
    "swaps": SWAPS,
    "robustness": ROBUSTNESS,
    "segmentation": SEGMENTATION,
    "cost": COST,
    "failures": FAILURES,
    "timings": TIMINGS,
}

TABLES: Mapping[str, pa.Schema] = MappingProxyType(
    {
        name: columns.with_metadata({"table": name, "schema_version": str(SCHEMA_VERSION)})
        for name, columns in _COLUMNS.items()
    }
)
"""Every table by name. A table is a folder ``TABLES/<name>`` of parquet parts that follow its schema.

A part holds the rows of one task and is named by it. A part whose name begins with :data:`COMPACTED` holds the rows of
many; where it and another part hold the same thing (the same value of :func:`part_key`), one of the two counts.
"""

COMPACTED = "compacted-"
"""How the name of a part begins that ``invariscope compact`` made of many."""


def part_key(table: str) -> str:
    """The column whose value stands for one task's rows: a checkpoint is described once, whatever the task."""
    return "checkpoint" if table == "checkpoints" else "task"


def open_folder(folder: Path | str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder of tables and the path in it, from a path or a URI.

    ``s3://...``, ``gs://...``, ``hdfs://...`` and ``file://...`` are pyarrow's own; any other scheme is looked up in
    fsspec.

    Raises:
        ValueError: for a URI that neither knows; the message is one line.
    """
    text = str(folder)
    if "://" not in text:
        return fs.LocalFileSystem(), os.path.abspath(text)
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(text)
        return found
    except pa.ArrowInvalid:
        pass
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(text)
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{text}: no such file system ({reason}): give a folder, or a URI such as s3://...") from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


def describe(table: str) -> str:
    """The columns of a table as Markdown: name, type, unit and meaning, one row each."""
    lines = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    for field in TABLES[table]:
        notes = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        lines.append(f"| `{field.name}` | {field.type} | {notes['unit']} | {notes['meaning']} |")
    return "\n".join(lines)
