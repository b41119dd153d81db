"""The table ``checkpoints``: what each checkpoint is, by its manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from invariscope.collectors.schema import INT, OPERATOR_ERROR, REAL, TEXT, Collector, column, optional

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from invariscope.collectors.engine.subject import Subject
    from invariscope.collectors.options import Options
    from invariscope.zoo.checkpoint import Checkpoint

COLUMNS = (
    optional("architecture", TEXT, "", "architecture, for example resnet20"),
    optional("operator", TEXT, "", "downsampling operator without its arguments: soft of soft(beta=4)"),
    optional("operator_spec", TEXT, "", "downsampling operator with its arguments"),
    optional("strength", REAL, "1", "the operator's one knob where it has one: beta of soft, p of lp, m of blur"),
    optional("padding_mode", TEXT, "", "padding of the network's convolutions"),
    optional("training_data", TEXT, "", "data set trained on"),
    optional("seed", INT, "", "seed of the training run"),
    optional("run", TEXT, "", "training run; snapshots of one run share it"),
    optional("epoch", REAL, "epochs", "epochs trained at the snapshot"),
    column("n_params", INT, "parameters", "number of parameters"),
    column("factors", TEXT, "JSON", "all factors of the manifest entry, free columns for the analysis"),
    optional("metrics", TEXT, "JSON", "numbers measured elsewhere that the manifest entry gives"),
    optional("tensors_sha256", TEXT, "hex", "hash of the weights alone, whatever else their file holds"),
    optional("probe", pa.list_(REAL), "", "outputs for two images of noise: with equal weights, one network"),
    optional(OPERATOR_ERROR, REAL, "1", "site equivariance error of the operator alone, on noise, without training"),
    optional("not_applicable", TEXT, "", "that error where it has no number, with the reason"),
)


def settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    """One task: the description follows the file, its factors and metrics, whatever is measured."""
    described = {"name": checkpoint.name, "factors": json.loads(json.dumps(dict(checkpoint.factors), default=str))}
    return [{**described, **({"metrics": dict(checkpoint.metrics)} if checkpoint.metrics else {})}]


def rows(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """The description."""
    import pandas as pd

    from invariscope.collectors.measure.operator_error import error_of_network

    factors = settings["factors"]
    error, reason = error_of_network(subject.checkpoint.parts, subject.checkpoint.folder)
    text = {name: _text(factors.get(name)) for name in ("architecture", "operator", "operator_spec", "padding_mode")}
    row = {
        **text,
        "strength": _number(factors.get("strength")),
        "training_data": _text(factors.get("training_data", subject.checkpoint.labels)),
        "seed": factors.get("seed"),
        "run": _text(factors.get("run")),
        "epoch": _number(factors.get("epoch")),
        "n_params": sum(parameter.numel() for parameter in subject.model.parameters()),
        "factors": json.dumps(factors, sort_keys=True),
        "metrics": json.dumps(settings["metrics"], sort_keys=True) if settings.get("metrics") else None,
        "tensors_sha256": hash_tensors(subject.model.state_dict()),
        "probe": subject.probe(),
        OPERATOR_ERROR: error,
        "not_applicable": reason and f"{OPERATOR_ERROR}: {reason}",
    }
    return pd.DataFrame([row])


def hash_tensors(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict: names, types, shapes and bytes of its tensors, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


COLLECTOR = Collector(
    "what each checkpoint is",
    COLUMNS,
    settings,
    rows,
    of_data=False,
    replaces=True,
    default=True,
    renewed=("n_params", OPERATOR_ERROR),
)
