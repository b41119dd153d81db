"""A model fitted again with some rows left out, from the design of all of them: what influence and prediction are made
of.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from invariscope.analysis.stats.regression.design import Design, assemble, complete, obstacle
from invariscope.analysis.stats.regression.estimate import Coefficients, estimate
from invariscope.analysis.stats.regression.model import Model
from invariscope.analysis.stats.resampling import Array

_LEFT = 1e-6
"""Where less than this share of some combination of columns is left, the columns are chosen anew."""

WARM_ROWS = 1_000
"""With more rows the search starts from the fit of all of them. With fewer it costs nothing to start as any fit does,
and degrees of freedom that rest on one cluster can move with the last digits of an estimate."""

Fitted = tuple[Design, Coefficients | str]


class Refits:
    """Fits of ``model`` to the rows of ``columns`` (of :func:`design.columns_of`) without some of them.

    Columns, factors' levels and clusters are taken from the fit of all rows. Where what is left does not determine
    every coefficient, everything is made anew from the rows that are left.
    """

    def __init__(self, columns: dict[str, Array], model: Model) -> None:
        self.columns, self.model = columns, model
        self.usable = complete(columns, model)
        design = assemble(columns, model)
        self.whole: Fitted = (design, design.reason or estimate(design, model))
        self._basis = np.empty((len(design.y), 0)) if design.reason else np.linalg.qr(design.matrix)[0]

    def without(self, left_out: np.ndarray) -> Fitted:
        """The fit without the rows ``left_out`` ``(n,)``, True and False."""
        if not self.determined(left_out):
            design = assemble({name: column[~left_out] for name, column in self.columns.items()}, self.model)
            return design, design.reason or estimate(design, self.model)
        (whole, found), kept = self.whole, ~left_out[self.usable]
        codes, places = pd.factorize(whole.codes[kept])
        design = replace(
            whole,
            y=whole.y[kept],
            trials=whole.trials[kept],
            terms={name: column[kept] for name, column in whole.terms.items()},
            codes=codes,
            clusters=whole.clusters[places],
            n_missing=int((~self.usable[~left_out]).sum()),
        )
        design = replace(design, reason=obstacle(design, self.model))
        near = getattr(found, "params", None) if len(kept) > WARM_ROWS else None
        return design, design.reason or estimate(design, self.model, start=near)

    def determined(self, left_out: np.ndarray) -> bool:
        """Whether every coefficient of the fit of all rows is determined without those rows."""
        if isinstance(self.whole[1], str):
            return False
        gone = self._basis[left_out[self.usable]]
        return bool(np.linalg.eigvalsh(np.eye(gone.shape[1]) - gone.T @ gone)[0] > _LEFT)
