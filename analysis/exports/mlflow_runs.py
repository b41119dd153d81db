"""Scores for MLflow, through its own client, into a local store."""

from __future__ import annotations

from pathlib import Path

from invariscope.analysis.exports.exporter import Exporter, Source
from invariscope.analysis.exports.tracked import folder_for, tracked_runs
from invariscope.base.extras import needs_extras


def write_mlflow(source: Source, out: Path, *, name: str | None = None) -> list[Path]:
    """A run per training run in the SQLite store ``out``: factors as its parameters, scores as metrics with a step
    per snapshot. ``mlflow ui --backend-store-uri sqlite:///OUT`` shows them; what is in the store stays.

    Args:
        name: experiment of the runs; by default ``invariscope``.

    Raises:
        MissingPackageError: mlflow is not installed.
        TableError: nothing to log, or no folder to write to.
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
        metrics = [Metric(key, value, start, step) for step, scores in run.steps for key, value in scores.items()]
        params = [Param(key, str(value)) for key, value in run.settings.items()]
        for first in range(0, max(len(metrics), len(params)), BATCH):
            some = slice(first, first + BATCH)
            client.log_batch(made.info.run_id, metrics[some], params[some])
        client.set_terminated(made.info.run_id)
    return [out]


BATCH = 100
"""Metrics, and parameters, of one call: MLflow takes at most 1,000 and 100."""

EXPORTER = Exporter("a run per training run, for MLflow, in a local store (SQLite)", write_mlflow, (".db",))
