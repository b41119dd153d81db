"""Whether the ``zoo:`` networks of a manifest can be built: architecture, operator and arguments, without building."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from invariscope.base.errors import InputError, ManifestError, ModelError
from invariscope.base.names import unknown
from invariscope.zoo.architectures import ARCHITECTURES, takes_strided
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.operators import OperatorSpec, parse_operator

_KINDS: Mapping[type, tuple[Any, str]] = MappingProxyType(
    {bool: (bool, "true or false"), int: (int, "a whole number"), float: ((int, float), "a number")}
)
"""What the value of an argument must be where its default is of a type, and in words."""


def check_models(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse ``zoo:`` models that cannot be built, of checkpoints that were read with ``operators=False``.

    Raises:
        ManifestError: for the first problem, as :func:`read_manifest`.
    """
    problems = []
    for checkpoint in checkpoints:
        if checkpoint.manifest is None or checkpoint.parts.scheme != "zoo":
            continue
        try:
            check_zoo_model(checkpoint.parts, checkpoint.folder)
        except InputError as problem:
            problems.append(f"{checkpoint.manifest}:{checkpoint.line}: checkpoint {checkpoint.name!r}: {problem}")
    if problems:
        more = f" (and {len(problems) - 1} more checkpoints with a problem)" if len(problems) > 1 else ""
        raise ManifestError(f"{problems[0]}{more}")


def check_zoo_model(model: ModelString, folder: str | Path | None = None) -> None:
    """Refuse a ``zoo:`` model whose architecture, operator or arguments are not known, without building it.

    An operator of a Python file, which is found from ``folder``, runs.

    Raises:
        ModelError: for an unknown architecture, or an argument that it does not have or of another type.
        OperatorError: for an unknown operator, or an argument that it does not have.
    """
    parameters = inspect.signature(ARCHITECTURES[model.target]).parameters
    for name, value in model.arguments.items():
        _check_argument(model, name, value, parameters)
    operator = model.arguments.get("operator")
    if operator is not None and not (operator == "strided" and takes_strided(model)):
        parse_operator(operator if isinstance(operator, OperatorSpec) else str(operator), folder)


def _check_argument(model: ModelString, name: str, value: Any, parameters: Mapping[str, inspect.Parameter]) -> None:
    """Refuse an argument that an architecture lacks, and one that is of another kind than its default."""
    from invariscope.zoo.sampling import PADDING_MODES  # imports torch, as the architecture did

    if name not in parameters:
        raise ModelError(f"model {str(model)!r}: {unknown('argument', name, parameters)}")
    if name == "padding_mode" and value not in PADDING_MODES:
        raise ModelError(f"model {str(model)!r}: {unknown('padding mode', str(value), PADDING_MODES)}")
    default = parameters[name].default
    kind, article = _KINDS.get(type(default), (object, ""))
    if not isinstance(value, kind) or (isinstance(value, bool) and type(default) is not bool):
        raise ModelError(f"model {str(model)!r}: {name} is {value!r}, and must be {article}, as {default!r} is")
