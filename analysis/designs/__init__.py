"""Designs that go beyond correlation: one knob turned with all else equal (doses), one operator exchanged (swaps).

from invariscope.analysis import join, load
from invariscope.analysis.designs import dose_trends, swap_changes
from invariscope.analysis.tables.swapped import swap_frame

tables = load("out/tables")
dose_trends(join(tables))
swap_changes(swap_frame(tables))
"""

from invariscope.analysis.designs.common import COLUMNS, design_table
from invariscope.analysis.designs.dose import dose_trends
from invariscope.analysis.designs.swaps import swap_changes

__all__ = ["COLUMNS", "design_table", "dose_trends", "swap_changes"]
