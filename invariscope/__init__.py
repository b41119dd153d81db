"""Shift invariance and maximum-sampling bias of trained networks: measured, correlated, drawn.

The whole of it under one name, in three lines::

    import invariscope as iv
    iv.measure_msb(model, images)
    iv.measure_invariance(model, images, labels, iv.ShiftPlan.sampled(len(images), max_shift=4, kind="zero"))

A name is imported at its first use, so that importing this package costs nothing and needs no torch. What measures or
trains needs the packages of ``pip install 'invariscope[measure]'``; what reads tables does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invariscope.analysis import Tables as Tables
    from invariscope.analysis import analyze as analyze
    from invariscope.analysis import join as join
    from invariscope.analysis import load as load
    from invariscope.analysis import write_report as write_report
    from invariscope.analysis import write_results as write_results
    from invariscope.analysis.drawing import save_figures as save_figures
    from invariscope.analysis.exports import export as export
    from invariscope.analysis.exports import register_exporter as register_exporter
    from invariscope.analysis.exports.exporter import Exporter as Exporter
    from invariscope.analysis.exports.wide import wide_table as wide_table
    from invariscope.analysis.figures import FigureEntry as FigureEntry
    from invariscope.analysis.figures import draw as draw
    from invariscope.analysis.figures import register_figure as register_figure
    from invariscope.analysis.publication import register_paper_table as register_paper_table
    from invariscope.analysis.stats.correlation import correlate as correlate
    from invariscope.analysis.tables.frames import Frames as Frames
    from invariscope.analysis.tables.frames import register_frame as register_frame
    from invariscope.base.errors import InputError as InputError
    from invariscope.collectors import Options as Options
    from invariscope.collectors import ShiftPlan as ShiftPlan
    from invariscope.collectors import apply_shift as apply_shift
    from invariscope.collectors import collect as collect
    from invariscope.collectors import corrupt as corrupt
    from invariscope.collectors import explain_invariance as explain_invariance
    from invariscope.collectors import measure_attack as measure_attack
    from invariscope.collectors import measure_cost as measure_cost
    from invariscope.collectors import measure_drift as measure_drift
    from invariscope.collectors import measure_invariance as measure_invariance
    from invariscope.collectors import measure_msb as measure_msb
    from invariscope.collectors import measure_surface as measure_surface
    from invariscope.collectors import measure_swaps as measure_swaps
    from invariscope.collectors import operator_equivariance_error as operator_equivariance_error
    from invariscope.collectors import register_collector as register_collector
    from invariscope.collectors import register_shift_kind as register_shift_kind
    from invariscope.collectors.schema import Collector as Collector
    from invariscope.collectors.shift_kinds import ShiftKind as ShiftKind
    from invariscope.looking.look import look as look
    from invariscope.zoo.datasets import ImageSet as ImageSet
    from invariscope.zoo.datasets import InputSpec as InputSpec
    from invariscope.zoo.datasets import load_dataset as load_dataset
    from invariscope.zoo.datasets import register_dataset as register_dataset
    from invariscope.zoo.datasets.source import DataSource as DataSource
    from invariscope.zoo.from_csv import zoo_from_csv as zoo_from_csv
    from invariscope.zoo.from_library import zoo_from_library as zoo_from_library
    from invariscope.zoo.loading import build_model as build_model
    from invariscope.zoo.loading import load_checkpoint as load_checkpoint
    from invariscope.zoo.manifest import read_manifest as read_manifest
    from invariscope.zoo.model_input import set_input as set_input
    from invariscope.zoo.operators import Downsample as Downsample
    from invariscope.zoo.operators import build_operator as build_operator
    from invariscope.zoo.operators import register_operator as register_operator
    from invariscope.zoo.sampling import Taps as Taps
    from invariscope.zoo.sites import find_sites as find_sites
    from invariscope.zoo.surgery import replace_downsampling as replace_downsampling
    from invariscope.zoo.training import train_recipe as train_recipe

    __version__: str

_HOMES = {
    "Collector": "collectors.schema",
    "DataSource": "zoo.datasets.source",
    "Downsample": "zoo.operators",
    "Exporter": "analysis.exports.exporter",
    "FigureEntry": "analysis.figures",
    "Frames": "analysis.tables.frames",
    "ImageSet": "zoo.datasets",
    "InputError": "base.errors",
    "InputSpec": "zoo.datasets",
    "Options": "collectors",
    "ShiftKind": "collectors.shift_kinds",
    "ShiftPlan": "collectors",
    "Tables": "analysis",
    "Taps": "zoo.sampling",
    "analyze": "analysis",
    "apply_shift": "collectors",
    "build_model": "zoo.loading",
    "build_operator": "zoo.operators",
    "collect": "collectors",
    "correlate": "analysis.stats.correlation",
    "corrupt": "collectors",
    "draw": "analysis.figures",
    "explain_invariance": "collectors",
    "export": "analysis.exports",
    "find_sites": "zoo.sites",
    "join": "analysis",
    "load": "analysis",
    "load_checkpoint": "zoo.loading",
    "load_dataset": "zoo.datasets",
    "look": "looking.look",
    "measure_attack": "collectors",
    "measure_cost": "collectors",
    "measure_drift": "collectors",
    "measure_invariance": "collectors",
    "measure_msb": "collectors",
    "measure_surface": "collectors",
    "measure_swaps": "collectors",
    "operator_equivariance_error": "collectors",
    "read_manifest": "zoo.manifest",
    "register_collector": "collectors",
    "register_dataset": "zoo.datasets",
    "register_exporter": "analysis.exports",
    "register_figure": "analysis.figures",
    "register_frame": "analysis.tables.frames",
    "register_operator": "zoo.operators",
    "register_paper_table": "analysis.publication",
    "register_shift_kind": "collectors",
    "replace_downsampling": "zoo.surgery",
    "save_figures": "analysis.drawing",
    "set_input": "zoo.model_input",
    "train_recipe": "zoo.training",
    "wide_table": "analysis.exports.wide",
    "write_report": "analysis",
    "write_results": "analysis",
    "zoo_from_csv": "zoo.from_csv",
    "zoo_from_library": "zoo.from_library",
}
"""Where each name of the facade is defined, within this package."""


def _find(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("invariscope")
    elif name == "__all__":  # asked for by `import *` alone; type checkers read the imports above
        found = sorted(_HOMES)
    elif name in _HOMES:
        from invariscope.base.extras import needs_extras

        with needs_extras(f"invariscope.{name}"):
            found = getattr(importlib.import_module(f"invariscope.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


if not TYPE_CHECKING:  # a type checker would take every name for one of ours
    __getattr__ = _find


def __dir__() -> list[str]:
    return sorted({*_HOMES, "__version__", *(name for name in globals() if name.startswith("__"))})
