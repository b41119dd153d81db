"""Numbers from frames, and no words: what is computed, with its interval, its p-value and what the interval is worth.

``correlation`` (``coefficients``, ``blocks``), ``resampling`` and ``permutation`` for clustered rows, ``coverage`` by
simulation, ``regression`` of a bounded score, ``primary`` for the statements fixed in advance, ``power``,
``corruption_error``. For assigned factors: ``randomisation`` within blocks, ``ranks`` (correlations in strata),
``robust`` (HC3), ``importance`` (LMG shares), ``mediation``, ``pooled`` (cells together, equivalence).
"""
