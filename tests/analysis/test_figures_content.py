"""What is drawn is what the tables say: points, curves, means, maps and numbers against independent computations."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import special, stats

from invariscope.analysis.figures import fits
from invariscope.analysis.figures.confounding import confounding
from invariscope.analysis.figures.msb_by_operator import msb_by_operator
from invariscope.analysis.figures.msb_invariance import msb_invariance
from invariscope.analysis.tables import frames
from invariscope.analysis.tables.joined import join
from invariscope.analysis.tables.load import Tables
from invariscope.base.errors import TableError


@pytest.fixture(scope="module")
def tables(simulate: ModuleType) -> Tables:
    return simulate.simulate_tables(
        simulate.Zoo(seeds=2, epochs=(8.0, 24.0), padding_modes=("zeros",), surface_shift=2)
    )


@pytest.fixture(scope="module")
def everything(tables: Tables) -> pd.DataFrame:
    joined = join(tables)
    return joined.assign(**{name: joined[name].round(9) for name in ("msb", "msb_corrected")})


@pytest.fixture(scope="module")
def frame(everything: pd.DataFrame) -> pd.DataFrame:
    """The last snapshots, which are what figures draw unless told otherwise."""
    return everything[everything["epoch"] == 24].reset_index(drop=True)


@pytest.mark.parametrize("width", ["double", pytest.param("single", marks=pytest.mark.full)])
def test_the_headline_shows_the_frame(seen: ModuleType, frame: pd.DataFrame, width: str) -> None:
    figure = msb_invariance(frame.assign(consistency_se=0.01, fidelity_se=0.012), width=width)
    wanted = [(score, kind) for score in ("consistency", "fidelity") for kind in ("circular", "zero")]
    assert len(figure.axes) == 4  # too few operators near 0 to be shown again
    for whole, (score, kind) in zip(figure.axes, wanted, strict=True):
        rows = frame[frame["shift_kind"] == kind]
        rest = rows[rows["operator"] != "subsample"]
        seen.assert_same_points(seen.points(whole), seen.expected(rows, "msb_corrected", score))
        assert seen.heading(whole) == f"{kind} shift, ≤ 4 px"  # no statistic
        assert seen.line(whole, "fit")[0, 0] == rows["msb_corrected"].min()
        assert seen.line(whole, "fit")[-1, 0] == rows["msb_corrected"].max()
        fit = smf.glm(f"{score} ~ msb_corrected", rest, family=_binomial()).fit()
        drawn = seen.line(whole, "without subsample")
        np.testing.assert_allclose(drawn[:, 1], fit.predict(pd.DataFrame({"msb_corrected": drawn[:, 0]})), atol=1e-8)
        told = next(text for text in figure.caption.splitlines() if text.startswith(f"{score}, {kind}: "))
        told = told.replace("−", "-")
        assert f"over n = {len(rows)}, 11 operators" in told
        assert seen.numbers_after(told, "Pearson r") == seen.bootstrap(rows, "msb_corrected", score)
        means = rows.groupby("operator")[["msb_corrected", score]].mean().reset_index()
        assert seen.numbers_after(told, "ρ") == seen.bootstrap(means, "msb_corrected", score, "spearman", None)
        assert seen.numbers_after(told, "without subsample r") == seen.bootstrap(rest, "msb_corrected", score)
    assert figure.axes[0].get_ylabel().replace("\n", " ") == "consistency (share of shift pairs)"
    assert figure.axes[3].get_xlabel().replace("\n", " ") == "MSB, chance-corrected (1 = always the maximum)"
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"95 % band", "operator mean, 95 %"} <= labels
    told = "Median standard error of one point, over images (600): consistency 0.010, fidelity 0.012."
    assert told in figure.caption


def test_operator_means_have_bars_and_names_and_the_heap_is_stretched(seen: ModuleType, frame: pd.DataFrame) -> None:
    heaped = frame["operator"].isin(["avg", "blur", "aps", "tips"])
    frame = frame.assign(msb_corrected=frame["msb_corrected"].where(~heaped, 0.03 * frame["msb_corrected"]))
    figure = msb_invariance(frame, scores=["consistency"])
    heap, whole = figure.axes[-2:]
    rows = frame[frame["shift_kind"] == "zero"]
    means = rows.groupby("operator")[["msb_corrected", "consistency"]].mean()
    span = np.ptp(frame["msb_corrected"])
    near = {name for name, x in frame.groupby("operator")["msb_corrected"].mean().items() if abs(x) < 0.06 * span}
    assert 4 <= len(near) < 11
    for ax, names in ((heap, near), (whole, set(means.index) - near)):
        assert {text.get_text() for text in ax.texts} == names
        for name in names:
            assert seen.line(ax, f"mean of {name}")[0] == pytest.approx(means.loc[name].to_numpy(), abs=1e-9)
            of_one = rows.loc[rows["operator"] == name, "consistency"]
            middle, error = of_one.mean(), stats.sem(of_one)
            half = stats.t.ppf(0.975, len(of_one) - 1) * error / (middle * (1 - middle))
            ends = special.expit(special.logit(middle) + np.array([-half, half]))
            bars = [np.asarray(drawn.get_ydata()) for drawn in ax.lines if drawn.get_label() == "_interval"]
            assert any(np.allclose(bar, ends, atol=1e-9) for bar in bars), name
            told = f"{name} {middle:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"
            assert told in figure.caption
    inside = rows.loc[rows["operator"].isin(near), "msb_corrected"]
    assert seen.heading(heap) == "zero shift, ≤ 4 px"
    assert seen.heading(whole) == ""
    assert heap.get_xlim()[0] < inside.min()
    assert inside.max() < heap.get_xlim()[1] < 0.5
    assert all(y <= 1 for ax in figure.axes for drawn in ax.lines for y in np.asarray(drawn.get_ydata(), float))


def test_padding_and_architecture_are_seen(simulate: ModuleType) -> None:
    zoo = simulate.Zoo(n_operators=3, seeds=2, epochs=(8.0,), architectures=("smallcnn", "resnet20"))
    rows = simulate.simulate_frame(zoo)
    figure = msb_invariance(rows, scores=["consistency"])
    kind = rows[rows["shift_kind"] == "zero"]
    collection = next(c for c in figure.axes[-1].collections if c.get_label() == "op1")
    part = kind[kind["operator"] == "op1"]
    looks: dict[tuple[str, str], set] = {}
    for place, face, edge in zip(
        collection.get_offsets(), collection.get_facecolors(), collection.get_edgecolors(), strict=True
    ):
        row = part[np.isclose(part["consistency"], place[1], atol=1e-12)].iloc[0]
        looks.setdefault((row["padding_mode"], row["architecture"]), set()).add((tuple(face), tuple(edge)))
    assert len(looks) == 4
    assert all(len(seen) == 1 for seen in looks.values())
    assert len(set.union(*looks.values())) == 4
    assert "filling: padding mode (" in figure.caption
    assert "edge: architecture (" in figure.caption
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"circular padding", "zeros padding", "smallcnn", "resnet20"} <= labels


def _binomial():
    import statsmodels.api as sm

    return sm.families.Binomial()


def test_other_readings_and_scores_can_be_drawn(seen: ModuleType, frame: pd.DataFrame) -> None:
    figure = msb_invariance(frame, reading="msb", scores=["kappa"])
    rows = frame[frame["shift_kind"] == "zero"]
    seen.assert_same_points(seen.points(figure.axes[-1]), seen.expected(rows, "msb", "kappa"))
    assert figure.axes[-1].get_xlabel().replace("\n", " ") == "MSB, literal (share of windows)"


def test_confounding_shows_accuracy_and_partial_residuals(seen: ModuleType, frame: pd.DataFrame) -> None:
    frame = frame.assign(consistency=np.where(frame["operator"] == "aps", 1.0, frame["consistency"]))
    figure = confounding(frame)
    for index, kind in enumerate(("circular", "zero")):
        rows = frame[frame["shift_kind"] == kind].reset_index(drop=True)
        n, c = rows["n_images"], rows["consistency"]
        rows["logit"] = special.logit((n * c + 0.5) / (n + 1))
        left, right = figure.axes[2 * index : 2 * index + 2]
        seen.assert_same_points(seen.points(left), seen.expected(rows, "accuracy", "consistency"))
        assert seen.heading(left) == f"{kind} shift, ≤ 4 px"
        ols = smf.ols("logit ~ msb_corrected + accuracy", rows).fit()
        slope = ols.params["msb_corrected"]
        x = rows["msb_corrected"]
        rows["adjusted"] = special.expit(ols.resid + slope * (x - x.mean()) + rows["logit"].mean())
        seen.assert_same_points(seen.points(right), seen.expected(rows, "msb_corrected", "adjusted"))
        assert max(place[:, 1].max() for place in seen.points(right).values()) < 1
        assert right.get_ylim()[1] <= 1.02
        drawn = seen.line(right, "fit")
        bent = special.logit(drawn[:, 1])
        assert np.polyfit(drawn[:, 0], bent, 1)[0] == pytest.approx(slope, abs=1e-9)
        assert np.interp(x.mean(), drawn[:, 0], bent) == pytest.approx(rows["logit"].mean(), abs=1e-9)
        told = [text.replace("−", "-") for text in figure.caption.splitlines() if text.startswith(f"{kind}, ")]
        assert seen.numbers_after(told[0], "Pearson r") == seen.bootstrap(rows, "accuracy", "consistency")
        assert seen.numbers_after(told[1], "partial r") == seen.bootstrap(
            rows, "msb_corrected", "consistency", "partial_pearson", covariates=("accuracy",)
        )
        robust = smf.ols("logit ~ msb_corrected + accuracy", rows).fit(
            cov_type="cluster", cov_kwds={"groups": pd.factorize(rows["operator"])[0]}
        )
        half = stats.t.ppf(0.975, rows["operator"].nunique() - 1) * robust.bse["msb_corrected"]
        assert seen.numbers_after(told[1], "slope") == [round(v, 2) for v in (slope, slope - half, slope + half)]
        assert "without subsample partial r" in told[1]
        assert right.get_ylabel() == "consistency\nat mean accuracy\n(share of shift pairs)"
    assert figure.axes[2].get_xlabel() == "accuracy (share of images)"
    with pytest.raises(TableError, match="another score"):
        confounding(frame, score="accuracy")
    with pytest.raises(TableError, match="choose a score that is a share"):
        confounding(frame.assign(kappa=-0.1), score="kappa")


def test_architecture_joins_the_covariates_where_there_are_several(seen: ModuleType, simulate: ModuleType) -> None:
    zoo = simulate.Zoo(
        n_operators=3, seeds=2, epochs=(8.0,), architectures=("smallcnn", "resnet20"), shift_kinds=("zero",)
    )
    rows = simulate.simulate_frame(zoo)
    figure = confounding(rows)
    n = rows["n_images"]
    rows["logit"] = special.logit((n * rows["consistency"] + 0.5) / (n + 1))
    slope = smf.ols("logit ~ msb_corrected + accuracy + C(architecture)", rows).fit().params["msb_corrected"]
    assert seen.heading(figure.axes[1]) == "given accuracy\nand architecture"
    drawn = seen.line(figure.axes[1], "fit")
    assert np.polyfit(drawn[:, 0], special.logit(drawn[:, 1]), 1)[0] == pytest.approx(slope, abs=1e-9)


def test_operators_are_ordered_and_every_checkpoint_is_there(
    seen: ModuleType, frame: pd.DataFrame, tables: Tables
) -> None:
    figure = msb_by_operator(frame, frames.site_frame(tables))
    rows = frame[frame["shift_kind"] == "zero"]
    means = rows.groupby("operator")["msb_corrected"].mean().sort_values(ascending=False)
    counts = rows["operator"].value_counts()
    left, right = figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == [
        f"{name} (n = {counts[name]})" for name in means.index
    ]
    assert left.get_ylim()[0] > left.get_ylim()[1]
    assert left.get_xlim()[1] < 1.1  # though intervals from two runs reach further
    for position, name in enumerate(means.index):
        drawn = seen.points(left)[name]
        np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(rows.loc[rows["operator"] == name, "msb_corrected"]))
        assert ((drawn[:, 1] > position - 0.35) & (drawn[:, 1] < position + 0.1)).all()
        mean, low, high = fits.clustered_mean(
            rows.loc[rows["operator"] == name, "msb_corrected"], rows.loc[rows["operator"] == name, "cluster"]
        )
        lines = [drawn.get_xydata().tolist() for drawn in left.lines]
        assert [[mean, position + 0.27]] in lines
        assert [[low, position + 0.27], [high, position + 0.27]] in lines
        text = f"{name}: {mean:.2f} [{low:.2f}, {high:.2f}], n = {counts[name]} in".replace("-", "−")
        assert text.replace("−0.00", "0.00") in figure.caption
    sites = tables.layers.merge(tables.checkpoints[["sha256", "operator"]], on="sha256")
    sites = sites[sites["checkpoint"].isin(frame["checkpoint"])]
    for name, part in sites.groupby("operator"):
        drawn = seen.points(right)[name]
        by_depth = part.groupby("depth")["msb_corrected"].mean().to_numpy()
        order = np.argsort(drawn[:, 1])
        np.testing.assert_allclose(drawn[order, 0], by_depth, atol=1e-12)
    assert len(msb_by_operator(frame).axes) == 1


def test_black_fill_is_said_in_the_heading(seen: ModuleType, frame: pd.DataFrame) -> None:
    black = frame[frame["shift_kind"] == "zero"].assign(fill="black")
    assert seen.heading(msb_invariance(black).axes[0]).startswith("zero shift, ≤ 4 px, black")


def test_five_kinds_stand_below_each_other(seen: ModuleType, simulate: ModuleType) -> None:
    kinds = ("circular", "zero", "reflect", "replicate", "crop")
    rows = simulate.simulate_frame(
        simulate.Zoo(n_operators=3, seeds=1, epochs=(8.0,), padding_modes=("zeros",), shift_kinds=kinds)
    )
    figure = msb_invariance(rows)
    titles = [seen.heading(ax).split()[0] for ax in figure.axes if seen.heading(ax)]
    assert list(dict.fromkeys(titles)) == list(kinds)
    assert len(figure.axes) in (10, 20)


def test_earlier_snapshots_are_left_out_unless_asked_for(
    seen: ModuleType, everything: pd.DataFrame, frame: pd.DataFrame
) -> None:
    one = everything[everything["shift_kind"] == "zero"]
    figure = msb_invariance(one, scores=["consistency"])
    final = frame[frame["shift_kind"] == "zero"]
    seen.assert_same_points(seen.points(figure.axes[0]), seen.expected(final, "msb_corrected", "consistency"))
    assert f"not shown here: {len(final)} checkpoints." in figure.caption
    figure = msb_invariance(one, scores=["consistency"], snapshots="all")
    seen.assert_same_points(seen.points(figure.axes[0]), seen.expected(one, "msb_corrected", "consistency"))
    assert "snapshots" not in figure.caption
    with pytest.raises(TableError, match="unknown choice of snapshots 'some': known are all, final"):
        msb_invariance(one, snapshots="some")  # type: ignore[arg-type]
