"""Scores for Weights & Biases, through its own client, offline: `wandb sync` sends them where somebody wants that."""

from __future__ import annotations

from pathlib import Path

from invariscope.analysis.exports.exporter import Exporter, Source
from invariscope.analysis.exports.tracked import folder_for, tracked_runs
from invariscope.base.extras import needs_extras


def write_wandb(source: Source, out: Path, *, name: str | None = None) -> list[Path]:
    """An offline run per training run in ``out/wandb``: factors as its configuration, scores logged per snapshot, and
    those of the last one as its summary. ``wandb sync out/wandb/offline-run-*`` sends them.

    Args:
        name: project of the runs; by default ``invariscope``.

    Raises:
        MissingPackageError: wandb is not installed.
        TableError: nothing to log.
    """
    with needs_extras("export to wandb"):
        import wandb
    runs, folder, written = tracked_runs(source.wide), folder_for(out), []
    quiet = wandb.Settings(
        silent=True, console="off", x_disable_stats=True, x_save_requirements=False, disable_git=True
    )
    for run in runs:
        with wandb.init(
            project=name or "invariscope",
            name=run.name,
            group=str(run.settings.get("operator", "")) or None,
            config=run.settings,
            dir=str(folder),
            mode="offline",
            reinit="finish_previous",
            settings=quiet,
        ) as logged:
            for step, scores in run.steps:
                logged.log(scores, step=step)
            written.append(Path(logged.dir).parent)
    return written


EXPORTER = Exporter("a run per training run, for Weights & Biases, offline", write_wandb)
