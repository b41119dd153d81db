"""Published result tables as tidy frames: ImageNet's testbed, and the tables of two papers on shift invariance.

>>> frame = read_testbed("imagenet_testbed_top1.csv")  # doctest: +SKIP
>>> figure = benchmark_scatter(frame, "val", "imagenet-vid-robust_pm10")  # doctest: +SKIP
>>> figure.savefig("testbed.png")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from invariscope.base.errors import TableError

_TIPS_KINDS = ("zero", "circular")


def read_testbed(path: Path | str) -> pd.DataFrame:
    """Top-1 accuracies of the ImageNet testbed: ``model`` and a column per evaluation setting, as shares.

    ``path``: a CSV in percent with the column ``model`` first, as ``robustness_top1s.csv`` of Taori et al., Measuring
    robustness to natural distribution shifts in image classification, 2020. A setting on which a model was not
    evaluated is missing.

    Raises:
        TableError: no such file, not a CSV, no column ``model``, a model twice, or a number outside 0 to 100.
    """
    rows = _read(path, ["model"])
    settings = [name for name in rows.columns if name != "model"]
    if not settings:
        raise TableError(f"{path}: no column beside `model`; give a table with a column of accuracies per setting")
    _refuse_twice(path, rows, ["model"])
    return rows.assign(**_shares(path, rows, settings))


def read_adobe(path: Path | str) -> pd.DataFrame:
    """``model``, ``operator`` (``baseline`` or ``blur4``), ``accuracy`` and ``consistency`` on ImageNet, as shares.

    ``path``: a CSV in percent with these columns, as the table of Zhang, Making convolutional networks shift-invariant
    again, 2019, gives them.

    Raises:
        TableError: no such file, not a CSV, a column missing, a row twice, or a number outside 0 to 100.
    """
    scores = ["accuracy", "consistency"]
    rows = _read(path, ["model", "operator", *scores])
    _refuse_twice(path, rows, ["model", "operator"])
    return rows.assign(**_shares(path, rows, scores))


def read_tips(path: Path | str) -> pd.DataFrame:
    """``dataset``, ``architecture``, ``operator``, ``shift_kind``, ``accuracy``, ``consistency`` and ``stability``.

    One row per network and shift kind (``zero``: the paper's standard shift), as shares. ``path``: a CSV in percent
    with ``accuracy`` and, per kind, ``consistency_<kind>`` and ``stability_<kind>``, as the results of Saha and
    Gokhale, Improving shift invariance in convolutional neural networks with translation invariant polyphase
    sampling, 2024.

    Raises:
        TableError: no such file, not a CSV, a column missing, a row twice, or a number outside 0 to 100.
    """
    network = ["dataset", "architecture", "operator"]
    scores = [f"{score}_{kind}" for kind in _TIPS_KINDS for score in ("consistency", "stability")]
    rows = _read(path, [*network, "accuracy", *scores])
    _refuse_twice(path, rows, network)
    rows = rows.assign(**_shares(path, rows, ["accuracy", *scores]))
    parts = [
        rows[[*network, "accuracy"]].assign(
            shift_kind=kind, consistency=rows[f"consistency_{kind}"], stability=rows[f"stability_{kind}"]
        )
        for kind in _TIPS_KINDS
    ]
    columns = [*network, "shift_kind", "accuracy", "consistency", "stability"]
    return pd.concat(parts, ignore_index=True)[columns]


def _read(path: Path | str, columns: Sequence[str]) -> pd.DataFrame:
    try:
        rows = pd.read_csv(path)
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror}); give the path of a published CSV") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: not a CSV ({str(error).splitlines()[0]}); give a published table") from error
    missing = [name for name in columns if name not in rows.columns]
    if missing:
        raise TableError(f"{path}: no column {', '.join(missing)}; it has {', '.join(map(str, rows.columns[:8]))}")
    if rows.empty:
        raise TableError(f"{path}: no rows below the header; give the whole table")
    return rows


def _refuse_twice(path: Path | str, rows: pd.DataFrame, keys: list[str]) -> None:
    twice = rows[rows.duplicated(keys)]
    if len(twice):
        name = " ".join(map(str, twice.iloc[0][keys]))
        raise TableError(f"{path}: {name!r} stands in two rows; keep one of them")


def _shares(path: Path | str, rows: pd.DataFrame, columns: Sequence[str]) -> dict[str, pd.Series]:
    made = {}
    for name in columns:
        values = pd.to_numeric(rows[name], errors="coerce")
        wrong = (values.isna() & rows[name].notna()) | (values < 0) | (values > 100)
        if wrong.any():
            line = int(wrong.to_numpy().argmax())
            raise TableError(
                f"{path}: {name} is {rows[name].iloc[line]!r} in row {line + 1}; give a percentage from 0 to 100"
            )
        made[name] = values / 100
    return made
