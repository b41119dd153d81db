"""The first page of a summary from the tables alone: assigned MSB where there is any, else the published operators."""

from __future__ import annotations

import pandas as pd

from invariscope.analysis.say.assigned_words import assigned_opening
from invariscope.analysis.say.opening import Opening
from invariscope.analysis.say.published_words import published_opening
from invariscope.analysis.say.vocabulary import Vocabulary


def opening_of(
    statements: pd.DataFrame,
    primary: pd.DataFrame,
    operators: int,
    vocabulary: Vocabulary,
    power: pd.DataFrame | None = None,
) -> Opening:
    """Verdict, primary statements and caveats.

    Args:
        statements: of drawn operators; decides where it has rows, since there MSB was assigned.
        primary: the statements on published operators, ``operators`` of them.
        power: how many operators it takes, where that was simulated.
    """
    if len(statements):
        return assigned_opening(statements, vocabulary)
    return published_opening(primary, operators, vocabulary, power)
