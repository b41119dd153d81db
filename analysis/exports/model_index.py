"""The scores of one checkpoint as the block ``model-index`` of a model card of Hugging Face
(https://github.com/huggingface/hub-docs/blob/main/modelcard.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from invariscope.analysis.exports.exporter import Exporter, Source
from invariscope.analysis.exports.fields import MEANINGS
from invariscope.analysis.exports.wide import fitting
from invariscope.analysis.tables.checkpoints import NETWORK
from invariscope.base.errors import TableError
from invariscope.base.files import write_whole
from invariscope.collectors.schema import UNSHIFTED

_TASKS = {
    "invariance": ("image-classification", "Image classification"),
    "segmentation": ("image-segmentation", "Image segmentation"),
}
_LEFT_OUT = ("fidelity_product", "stability")
"""Scores that repeat others."""


def write_model_index(source: Source, out: Path, *, name: str | None = None, url: str | None = None) -> list[Path]:
    """One YAML file, to be put between the ``---`` lines of a model card, or given to ``huggingface_hub``.

    Every score of the unshifted images and under every shift plan, a number from 0 to 1 (``kappa`` from -1), its plan
    in ``args`` and its 95 % interval in ``name``.

    Args:
        name: what the model is called on its card; by default the checkpoint's name.
        url: where the measurement can be read.

    Raises:
        TableError: the pattern of names fits more than one checkpoint, or it has no scores.
    """
    found = fitting(sorted(source.tables.checkpoints["checkpoint"]), source.only)
    if len(found) > 1:
        raise TableError(
            f"a model card is of one checkpoint, and {len(found)} are there ({', '.join(found[:3])}, ...): name one "
            "with --only"
        )
    block = {"model-index": [model_index(source, found[0], name or found[0], url)]}
    return [write_whole(out, yaml.safe_dump(block, sort_keys=False, allow_unicode=True).encode())]


def model_index(source: Source, checkpoint: str, name: str, url: str | None = None) -> dict[str, Any]:
    """The entry of one model: its results on every data set and task.

    Raises:
        TableError: it has no scores.
    """
    described = source.tables.checkpoints.set_index("checkpoint").loc[checkpoint]
    results = []
    for table, task in _TASKS.items():
        rows: pd.DataFrame = getattr(source.tables, table)
        rows = rows[(rows[NETWORK] == described[NETWORK]).all(axis=1) & rows["value"].notna()]
        rows = rows[~rows["score"].isin(_LEFT_OUT)]
        rows = rows.sort_values("shift_kind", key=lambda kinds: kinds != UNSHIFTED, kind="stable")
        for data, some in rows.groupby("data", sort=False):
            results.append(_result(task, str(data), some, url))
    if not results:
        raise TableError(f"checkpoint {checkpoint!r} has no scores: collect invariance or segmentation first")
    return {"name": name, "results": results}


def _result(task: tuple[str, str], data: str, rows: pd.DataFrame, url: str | None) -> dict[str, Any]:
    kind, _, split = data.partition("/")
    found: dict[str, Any] = {
        "task": {"type": task[0], "name": task[1]},
        "dataset": {"type": kind, "name": data, **({"split": split} if split else {})},
        "metrics": [_metric(row) for row in rows.itertuples()],
    }
    return found | ({"source": {"name": "invariscope", "url": url}} if url else {})


def _metric(row: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {}
    under = "unshifted images"
    if row.shift_kind != UNSHIFTED:
        plan = {"shift_kind": row.shift_kind, "max_shift": int(row.max_shift), "n_shifts": int(row.n_shifts)}
        plan |= {"plan": row.plan, **({"fill": row.fill} if isinstance(row.fill, str) and row.fill else {})}
        under = f"{row.shift_kind} shifts of up to {row.max_shift} px"
    interval = "" if pd.isna(row.low) else f", 95 % interval {row.low:.4f} to {row.high:.4f}"
    return {
        "type": row.score,
        "value": round(float(row.value), 6),
        "name": f"{row.score.replace('_', ' ').capitalize()} ({under}, {row.n_images} images{interval})",
        "args": {**plan, "n_images": int(row.n_images), "definition": MEANINGS.get(row.score, row.score)},
        "verified": False,
    }


EXPORTER = Exporter("scores of one checkpoint for its model card (YAML)", write_model_index, (".yaml", ".yml"))
