"""CPU time of the cluster bootstrap and the permutation tests of correlations, against loops over scipy and pingouin.

    python -m benchmarks.correlation

1,000 checkpoints in 100 clusters, 5 x by 3 y columns, Pearson, Spearman and Kendall, 10,000 resamples. The loops draw
the same clusters, and run on a few resamples only, from which their time is extrapolated.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pingouin
from scipy import stats

from benchmarks.results import machine, table, write_section
from invariscope.analysis.stats.correlation import correlate
from invariscope.analysis.stats.resampling import bootstrap_counts, cluster_codes

RESAMPLES, PERMUTATIONS, REPEATS, IN_LOOPS = 10_000, 1999, 5, 4
X, Y = [f"x{i}" for i in range(5)], [f"y{i}" for i in range(3)]
METHODS = ("pearson", "spearman", "kendall")
SCIPY: dict[str, Callable] = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}


def checkpoints(n: int = 1000, clusters: int = 100, seed: int = 0) -> pd.DataFrame:
    """Columns whose variance lies half between clusters."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(clusters), n // clusters)
    values = rng.normal(size=(clusters, len(X) + len(Y)))[codes] + rng.normal(size=(n, len(X) + len(Y)))
    return pd.DataFrame(values, columns=[*X, *Y]).assign(cluster=codes)


def cpu_seconds(call: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """User and system time of the process, per call."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return taken


def loop(frame: pd.DataFrame, coefficient: Callable[[np.ndarray, np.ndarray, str], float], method: str) -> np.ndarray:
    """Percentile interval of every pair by really drawing clusters, one resample and one pair at a time."""
    codes, clusters = cluster_codes(frame["cluster"])
    drawn = []
    for counts in bootstrap_counts(clusters, IN_LOOPS):
        rows = frame.iloc[np.repeat(np.arange(len(frame)), counts[codes].astype(int))]
        drawn.append([coefficient(rows[a].to_numpy(), rows[b].to_numpy(), method) for a in X for b in Y])
    return np.quantile(drawn, [0.025, 0.975], axis=0)


def main() -> None:
    """Measure and write the section."""
    frame = checkpoints()
    clusters = {"clusters": "cluster"}

    def bootstrap(methods: tuple[str, ...]) -> object:
        options = {"interval": "percentile", "resamples": RESAMPLES, "permutations": 0}
        return correlate(frame, X, Y, methods=methods, clusters=clusters, **options)

    ours = {method: cpu_seconds(lambda method=method: bootstrap((method,))) for method in METHODS}
    ours["all three"] = cpu_seconds(lambda: bootstrap(METHODS))
    rows = [{"what": f"{RESAMPLES} resamples, {name}", "CPU seconds": _median(taken)} for name, taken in ours.items()]
    for label, options in (
        ("jackknife intervals, all three", {"permutations": 0}),
        (f"{PERMUTATIONS} permutations, Pearson and Spearman", {"methods": METHODS[:2], "permutations": PERMUTATIONS}),
        (f"{PERMUTATIONS} permutations, Kendall", {"methods": METHODS[2:], "permutations": PERMUTATIONS}),
    ):
        taken = cpu_seconds(lambda options=options: correlate(frame, X, Y, clusters=clusters, **options), repeats=3)
        rows.append({"what": label, "CPU seconds": _median(taken)})
    whole = statistics.median(ours["all three"])
    for library, coefficient in (
        ("scipy", lambda a, b, method: SCIPY[method](a, b).statistic),
        ("pingouin", lambda a, b, method: pingouin.corr(a, b, method=method)["r"].iloc[0]),
    ):
        calls = [partial(loop, frame, coefficient, method) for method in METHODS]
        taken = sum(statistics.median(cpu_seconds(call, repeats=3)) for call in calls)
        full = taken * RESAMPLES / IN_LOOPS
        what = f"{RESAMPLES} resamples, all three, loop over {library} (extrapolated from {IN_LOOPS} resamples)"
        rows.append({"what": what, "CPU seconds": f"{full:,.0f} ({full / whole:,.0f} times ours)"})
    body = (
        f"`python -m benchmarks.correlation`: {len(frame)} checkpoints in 100 clusters, {len(X) * len(Y)} column "
        f"pairs, one thread. Median of {REPEATS} calls (3 where permutations or loops are timed), "
        f"least and most in brackets. {machine('numpy', 'scipy', 'pandas', 'pingouin')}\n\n{table(rows)}"
    )
    write_section("Correlations", body)


def _median(taken: list[float]) -> str:
    return f"{statistics.median(taken):.2f} ({min(taken):.2f} to {max(taken):.2f})"


if __name__ == "__main__":
    main()
