"""The packages that measuring and training need and reading tables does not: what to say where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from invariscope.base.errors import InputError

MEASURE = ("torch", "safetensors", "sklearn", "joblib", "cloudpickle")
"""What the extra ``measure`` adds to the installation, by the names under which it is imported."""


class MissingPackageError(InputError, ImportError):
    """A package of the extra ``measure`` that is not installed."""


@contextmanager
def needs_extras(what: str) -> Iterator[None]:
    """Say in one line which package ``what`` lacks, where an import within the block fails for one of :data:`MEASURE`.

    Raises:
        MissingPackageError: names the package and the extra to install.
    """
    try:
        yield
    except ModuleNotFoundError as problem:
        package = (problem.name or "").partition(".")[0]
        if package not in MEASURE:
            raise
        raise MissingPackageError(
            f"{what} needs {package}, which is not installed: pip install 'invariscope[measure]'"
        ) from None  # what was being imported when is of no help
