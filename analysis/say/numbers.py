"""Estimates with their intervals, and what an interval is worth, in words: the one place that writes them."""

from __future__ import annotations

from typing import Any

import numpy as np


def estimate_of(row: Any) -> float:
    """The number of a row of correlations (``r``) or of another table (``estimate``)."""
    return float(row["r"] if "r" in row.index else row["estimate"])


def ranged(value: float, low: float, high: float, digits: int = 2, *, sign: str = "") -> str:
    """``-0.62 (-0.81 to -0.35)``; the value alone where there is no interval. ``sign="+"`` writes every sign."""
    text = f"{value:{sign}.{digits}f}"
    return f"{text} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})" if _is_interval(low, high) else text


def with_interval(row: Any) -> str:
    """:func:`ranged` of a row, or why there is no number or no interval: ``no number (x is constant)``."""
    estimate = estimate_of(row)
    if not np.isfinite(estimate):
        return f"no number ({row['reason']})"
    if not np.isfinite(row["low"]):
        return f"{estimate:.2f} ({row['reason']})"
    return ranged(estimate, row["low"], row["high"])


def in_line(row: Any, unit: str) -> str:
    """A row of correlations in a line for a terminal: ``-0.62 [-0.81, -0.35]  11 operators, coverage 0.95``."""
    if not np.isfinite(row["r"]):
        return f"  -   ({row['reason']})"
    if not np.isfinite(row["low"]):
        return f"{row['r']:+.2f} ({row['reason']})"
    interval = f"[{row['low']:+.2f}, {row['high']:+.2f}]"
    return f"{row['r']:+.2f} {interval}  {int(row['n_clusters'])} {unit}{coverage(row, ', coverage {:.2f}')}"


def number(value: float, digits: int = 2) -> str:
    """A number with a real minus sign, and no minus before a zero, for figures and tables."""
    text = f"{value:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return text.replace("-", "−")


def bracketed(value: float, low: float, high: float, digits: int = 2) -> str:
    """``0.71 [0.66, 0.76]``, or the value alone where there is no interval, for figures and tables."""
    interval = f" [{number(low, digits)}, {number(high, digits)}]" if _is_interval(low, high) else ""
    return f"{number(value, digits)}{interval}"


def plus_minus(value: float, low: float, high: float, digits: int = 2) -> str:
    """``0.71 ± 0.05``, half the interval's width, or the value alone where there is no interval, for tables."""
    return (
        f"{number(value, digits)} ± {number((high - low) / 2, digits)}"
        if _is_interval(low, high)
        else number(value, digits)
    )


def r_in_words(row: Any, symbol: str = "r") -> str:
    """``r = −0.45 [−0.70, −0.20]``; no brackets where there is no interval, ``r: –`` where there is no number."""
    if not np.isfinite(row["r"]):
        return f"{symbol}: –"
    return f"{symbol} = {bracketed(row['r'], row['low'], row['high'])}"


def coverage(row: Any, form: str = "{:.2f}") -> str:
    """The simulated coverage of a row's interval, as ``form`` has it; nothing where there is no interval, or none is
    known.
    """
    known = np.isfinite(row["coverage"]) and np.isfinite(row["low"])
    return form.format(row["coverage"]) if known else ""


def nominal_and_coverage(row: Any) -> str:
    """`` (nominal 0.95, simulated coverage 0.90)``: what an interval is worth, beside it; empty where there is none."""
    return coverage(row, f" (nominal {row['nominal']:.2f}, simulated coverage {{:.2f}})")


def _is_interval(low: float, high: float) -> bool:
    return bool(np.isfinite(low) and np.isfinite(high))
