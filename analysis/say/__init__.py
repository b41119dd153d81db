"""What the numbers say, in words; nothing is computed here that a table does not hold.

``numbers`` writes estimates with intervals, ``plan_words`` shift plans, ``vocabulary`` names the score and accuracy of
what was measured (whole images or pixels). ``findings`` and ``slope_findings`` hold the sentences on correlations and
slopes, ``design_findings`` those on doses and swaps, ``power_findings`` and ``conditions`` those on their tables;
``summary`` puts them together.
"""
