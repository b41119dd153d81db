"""A shift plan in words: for sentences, captions, panels and menus."""

from __future__ import annotations

from typing import Any

from invariscope.collectors.schema import FILLS


def plan_words(plan: Any) -> str:
    """``zero shifts (up to 2 px, fill background, 9 shifts per image)``."""
    how = f"{plan['n_shifts']} shifts per image" if plan["plan"] == "sampled" else f"{plan['plan']} plan"
    return f"{plan['shift_kind']} shifts (up to {plan['max_shift']} px{_fill(plan)}, {how})"


def plan_short(plan: Any, *, several: bool = False) -> str:
    """``zero shifts``; with the largest shift, and another fill than the background, where a kind has ``several``
    plans: ``zero shifts up to 8 px, mean fill``.
    """
    return f"{plan['shift_kind']} shifts" + (f" up to {plan['max_shift']} px{_other_fill(plan)}" if several else "")


def plan_on_data(plan: Any) -> str:
    """``zero shifts up to 2 px on digits/test``, and the fill where it is not the background."""
    return f"{plan['shift_kind']} shifts up to {plan['max_shift']} px{_other_fill(plan)} on {plan['data']}"


def plan_in_caption(plan: Any) -> str:
    """``zero (≤ 2 px, 9 per image, sampled, fill background)``."""
    numbers = f"≤ {int(plan['max_shift'])} px, {int(plan['n_shifts'])} per image, {plan['plan']}"
    return f"{plan['shift_kind']} ({numbers}{_fill(plan)})"


def plan_in_menu(plan: Any) -> str:
    """``zero, ≤ 2 px, 9 sampled, fill background``."""
    return f"{plan['shift_kind']}, ≤ {int(plan['max_shift'])} px, {int(plan['n_shifts'])} {plan['plan']}{_fill(plan)}"


def panel_title(plan: Any) -> str:
    """``zero shift, ≤ 2 px``, and the fill where it is not the background."""
    return f"{plan['shift_kind']} shift, ≤ {int(plan['max_shift'])} px{_other_fill(plan)}"


def _other_fill(plan: Any) -> str:
    fill = plan["fill"] if isinstance(plan["fill"], str) else ""
    return f", {fill} fill" if fill not in ("", FILLS[0]) else ""


def _fill(plan: Any) -> str:
    return f", fill {plan['fill']}" if isinstance(plan["fill"], str) and plan["fill"] else ""
