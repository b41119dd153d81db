"""The packages of the extras, which reading tables does not need: what to say where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from invariscope.base.errors import InputError

MEASURE = ("torch", "safetensors", "sklearn", "joblib", "cloudpickle")
"""What the extra ``measure`` adds to the installation, by the names under which it is imported."""


EXTRAS = {
    **dict.fromkeys(MEASURE, "measure"),
    "torchmetrics": "torchmetrics",
    "wandb": "wandb",
    **dict.fromkeys(("mlflow", "sqlalchemy", "alembic"), "mlflow"),
}
"""The extra that brings a package, by the name under which it is imported."""


class MissingPackageError(InputError, ImportError):
    """A package of an extra that is not installed."""


@contextmanager
def needs_extras(what: str) -> Iterator[None]:
    """Say in one line which package ``what`` lacks, where an import within the block fails for one of an extra.

    Raises:
        MissingPackageError: names the package and the extra to install.
    """
    try:
        yield
    except ModuleNotFoundError as problem:
        package = (problem.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingPackageError(
            f"{what} needs {package}, which is not installed: pip install 'invariscope[{EXTRAS[package]}]'"
        ) from None  # what was being imported when is of no help
