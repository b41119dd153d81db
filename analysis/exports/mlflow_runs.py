"""Scores for MLflow, through its own client, into a local store."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from invariscope.analysis.exports.exporter import Exporter, Source
from invariscope.analysis.exports.tracked import folder_for, tracked_runs
from invariscope.base.errors import TableError, one_line
from invariscope.base.extras import needs_extras


def write_mlflow(source: Source, out: Path, *, name: str | None = None) -> list[Path]:
    """A run per training run in the SQLite store ``out``: factors as its parameters, scores as metrics with a step
    per snapshot. ``mlflow ui --backend-store-uri sqlite:///OUT`` shows them; what is in the store stays.

    Args:
        name: experiment of the runs; by default ``invariscope``.

    Raises:
        MissingPackageError: mlflow is not installed.
        TableError: nothing to log, no folder to write to, or a run that MLflow refuses, which ends as failed.
    """
    with needs_extras("export to mlflow"):
        import alembic  # noqa: F401  # of the store, which mlflow imports late
        import sqlalchemy  # noqa: F401
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
    runs, folder, title = tracked_runs(source.wide), folder_for(out.parent), name or "invariscope"
    client = MlflowClient(tracking_uri=f"sqlite:///{(folder / out.name).as_posix()}")
    known = client.get_experiment_by_name(title)
    experiment = known.experiment_id if known else client.create_experiment(title, (folder / "mlruns").as_uri())
    for run in runs:
        made = client.create_run(experiment, run_name=run.name)
        start = made.info.start_time
        scores = {key: None for _, step in run.steps for key in step}
        names, keys = accepted(scores), accepted(run.settings)
        metrics = [Metric(names[key], value, start, step) for step, some in run.steps for key, value in some.items()]
        params = [Param(keys[key], str(value)) for key, value in run.settings.items()]
        try:
            for first in range(0, max(len(metrics), len(params)), BATCH):
                part = slice(first, first + BATCH)
                client.log_batch(made.info.run_id, metrics[part], params[part])
        except BaseException as error:
            client.set_terminated(made.info.run_id, "FAILED")
            if not isinstance(error, Exception):
                raise
            raise TableError(
                f"{out}: MLflow refused run {run.name}, which ended as failed: {one_line(error)}"
            ) from error
        client.set_terminated(made.info.run_id)
    return [out]


def accepted(names: Iterable[str]) -> dict[str, str]:
    """The keys under which MLflow takes names: ``lr (max)`` as ``lr _max_``; numbered where two would be the same."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^\w. -]|^\.+", "_", name)[:LONGEST] or "_"
        keys = (plain, *(f"{plain}_{count}" for count in range(2, len(found) + 3)))
        found[name] = next(key for key in keys if key not in found.values())
    return found


LONGEST = 240
"""Characters of a key: MLflow takes 250, and a number may follow."""

BATCH = 100
"""Metrics, and parameters, of one call: MLflow takes at most 1,000 and 100."""

EXPORTER = Exporter("a run per training run, for MLflow, in a local store (SQLite)", write_mlflow, (".db",))
