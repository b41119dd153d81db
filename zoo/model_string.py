"""Model strings, which say how a network is built: ``zoo:resnet20?operator=tips``, taken apart and put together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from invariscope.base.errors import ModelError
from invariscope.base.names import unknown
from invariscope.zoo.operators import OperatorSpec, operator_code_files
from invariscope.zoo.user_code import find_code

SCHEMES = ("zoo", "python", "timm", "torchvision", "hf", "onnx")
"""What stands before the first colon of a model string."""

LIBRARIES = ("timm", "torchvision", "hf")
"""Schemes whose networks have pretrained weights in a cache of this machine."""

FLAGS = ("pretrained",)
"""Arguments that may stand without a value: ``timm:resnet18?pretrained``."""

LARGEST_ARGUMENT, MOST_CLASSES = 1024, 100_000
"""The largest whole number that an architecture of ours takes, as for its width, and its classes: more fills memory."""

_EXAMPLE = "zoo:resnet20?operator=tips&padding_mode=circular"

Argument = str | int | float | bool | OperatorSpec


@dataclass(frozen=True)
class ModelString:
    """A model string in its parts: ``SCHEME:TARGET[?name=value&name=value]``.

    ``zoo:NAME`` is an architecture of this package, ``python:FILE.py:CALLABLE`` and ``python:PACKAGE.MODULE:CALLABLE``
    a function or class of a user's, ``timm:NAME`` and ``torchvision:NAME`` a network of these packages,
    ``hf:ORG/NAME[@REVISION]`` one of the Hugging Face hub's cache, ``onnx:FILE`` a network in that exchange format.
    """

    scheme: str
    target: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scheme != "zoo":
            return
        for name, value in self.arguments.items():
            most = MOST_CLASSES if name == "classes" else LARGEST_ARGUMENT
            if isinstance(value, int) and not 0 <= value <= most:
                raise ModelError(f"model {self.scheme}:{self.target}: {name} is {value}: take from 0 to {most}")

    @classmethod
    def parse(cls, text: str) -> ModelString:
        """Take a model string apart; values are read as integers, numbers, true/false, or else as text.

        ``pretrained`` may stand alone, for ``pretrained=true``.

        Raises:
            ModelError: for an unknown scheme, an empty part, or an argument that is not ``name=value``.
        """
        head, _, query = text.partition("?")
        scheme, colon, target = head.partition(":")
        if not colon:
            raise ModelError(f"model {text!r} has no scheme: write it like {_EXAMPLE}")
        if scheme not in SCHEMES:
            raise ModelError(f"model {text!r}: {unknown('scheme', scheme, SCHEMES)}")
        if not target:
            raise ModelError(f"model {text!r} names no network: write it like {_EXAMPLE}")
        if scheme == "python" and not all(target.rpartition(":")):
            raise ModelError(f"model {text!r} names no callable: write it like python:my_nets.py:build")
        arguments: dict[str, Argument] = {}
        for pair in query.split("&") if query else []:
            if pair in FLAGS:
                pair = f"{pair}=true"
            name, equals, value = pair.partition("=")
            if not equals or not name.isidentifier() or not value:
                raise ModelError(f"model {text!r}: the argument {pair!r} is not name=value: write it like {_EXAMPLE}")
            if name in arguments:
                raise ModelError(f"model {text!r} gives {name} twice: remove one")
            arguments[name] = parse_value(value)
        return cls(scheme, target, arguments)

    @classmethod
    def of(cls, model: str | ModelString) -> ModelString:
        """A model string in its parts, which may be what was given."""
        return model if isinstance(model, ModelString) else cls.parse(model)

    def __str__(self) -> str:
        pairs = "&".join(f"{name}={_value_text(value)}" for name, value in self.arguments.items())
        return f"{self.scheme}:{self.target}" + (f"?{pairs}" if pairs else "")

    def files(self, folder: str | Path | None = None) -> tuple[Path, ...]:
        """The Python files that build the network or its operator, found from ``folder``; none where none of them do.

        A network of ``zoo:`` has some where its operator is ``python:FILE.py:NAME``, or holds such operators.
        """
        if self.scheme == "zoo":
            return operator_code_files(self.arguments.get("operator"), folder)
        if self.scheme != "python":
            return ()
        return (find_code(self.target.rpartition(":")[0], Path(folder or ".")),)


def is_library(zoo: str) -> bool:
    """Whether a zoo is a pattern of a library's networks: ``timm:resnet*``, ``torchvision:vgg??``, ``hf:ORG/*``."""
    return zoo.partition(":")[0] in LIBRARIES and bool(zoo.partition(":")[2])


def parse_value(text: str) -> Argument:
    """``4`` -> int, ``0.5``, ``1e-3`` and ``inf`` -> float, ``true``/``false`` -> bool, anything else stays text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf", text, re.IGNORECASE):
        return float(text)
    return text


def _value_text(value: Argument) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if "&" in (text := str(value)):
        raise ModelError(f"the model argument {text!r} holds an '&', which separates arguments: leave it out")
    return text
