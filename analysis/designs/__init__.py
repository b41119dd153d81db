"""Designs that go beyond correlation: one knob turned with all else equal (doses), one operator exchanged (swaps), MSB
assigned (rotations, drawn operators, pairs).

from invariscope.analysis import join, load
from invariscope.analysis.designs import dose_trends, statements, swap_changes
from invariscope.analysis.tables.swapped import swap_frame

tables = load("out/tables")
dose_trends(join(tables))
swap_changes(swap_frame(tables))
statements(join(tables))

What ``statements`` holds is made in ``rotations``, ``population``, ``heldout``, ``paired`` and ``reliability`` from the
rows that ``assigned`` admits; ``verdicts`` says what it allows to be said, and ``simulated`` what it would say of zoos
whose truth is known. docs/analysis-plan.md, version 2, is what they carry out.
"""

from invariscope.analysis.designs.assigned_statements import statements
from invariscope.analysis.designs.chain import chain
from invariscope.analysis.designs.common import COLUMNS, design_table
from invariscope.analysis.designs.dose import dose_trends
from invariscope.analysis.designs.swaps import swap_changes
from invariscope.analysis.designs.verdicts import causes

__all__ = ["COLUMNS", "causes", "chain", "design_table", "dose_trends", "statements", "swap_changes"]
