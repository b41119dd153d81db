"""The first page: a verdict that says what the tables allow, the primary statements, and short first sentences."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from invariscope.analysis import analyze, analyze_tables, join, load
from invariscope.analysis.designs.assigned import Settings
from invariscope.analysis.designs.assigned_statements import statements
from invariscope.analysis.designs.simulated import SimulatedDesign, Truth, simulate_study
from invariscope.analysis.designs.verdicts import judged
from invariscope.analysis.say.assigned_words import assigned_fold, assigned_opening
from invariscope.analysis.say.opening import Opening, Stated, summary_text
from invariscope.analysis.say.published_words import published_opening
from invariscope.analysis.say.vocabulary import IMAGES, PIXELS
from invariscope.analysis.stats.pooled import pool
from invariscope.analysis.stats.power import operators_needed

PUBLISHED = (
    ("data/reference/published", "circular"),
    pytest.param("data/reference/study", "zero", marks=pytest.mark.full),
    ("data/reference/ablation", "zero"),
)
"""Folders of published tables, and the shift kind that is looked at here."""

MOST_LINES, MOST_WORDS, MOST_NUMBERS = 60, 350, 2
_NUMBER = r"[-+]?\d+(?:[.,]\d+)*(?:e-?\d+)?"
_QUICK = {"scores": ["consistency"], "resamples": 5, "permutations": 9}


def numbers_in_first_sentence(bullet: str) -> int:
    """Estimates, each with its interval (or why it has none), ranges and other numbers; names in code are none."""
    text = re.sub(r"\*\*|\((?:\d|[a-c])\)", "", re.sub(r"`[^`]*`", "Name", bullet))
    first = re.split(r"(?<=[.!?])\s+(?=[A-Z0-9`*(-])", text)[0]
    first = re.sub(rf"{_NUMBER} \((?:{_NUMBER} to {_NUMBER}|no interval[^)]*)\)", "7", first)
    first = re.sub(rf"{_NUMBER} to {_NUMBER}|no number \([^)]*\)", "7", first)
    return len(re.findall(rf"(?<![\w.]){_NUMBER}(?!\w)", first))


def check_page(summary: str) -> None:
    """The first fold comes early, every bullet begins with a short sentence, and the verdict is one."""
    opening = summary.split("<details>")[0]
    assert summary.count("<details>") == summary.count("</details>") > 0
    assert len(opening.splitlines()) <= MOST_LINES
    assert len(opening.split()) <= MOST_WORDS
    verdict = opening.split("\n\n")[1]
    assert re.fullmatch(r"\*\*[A-Z0-9].*\.\*\*", verdict)
    assert not re.search(r"\. [A-Z]", verdict)
    assert "nan" not in summary
    bullets = [line[2:] for line in summary.splitlines() if line.startswith("* ")]
    long = [bullet for bullet in bullets if numbers_in_first_sentence(bullet) > MOST_NUMBERS]
    assert bullets
    assert not long


def test_numbers_are_counted_as_a_reader_does() -> None:
    assert (
        numbers_in_first_sentence("(a) of `tips(p=2)` is -0.01 (-0.75 to 0.74) on 11 operators. Then 4, 5 and 6.") == 2
    )
    assert numbers_in_first_sentence("5 of 6 and 1; 2 (10 operators) and resnet8: p = 0.05, 95 % of 1,000.") == 8
    assert numbers_in_first_sentence("It is 0.4 to 0.5, or 0.22 (no interval: 1 cluster is fewer than 5).") == 2


@pytest.mark.parametrize(("folder", "kind"), PUBLISHED)
def test_summaries_of_published_tables_open_with_a_page(repository: Path, folder: str, kind: str) -> None:
    rows = join(load(str(repository / folder)))
    rows = rows[rows["final"] & (rows["shift_kind"] == kind)]
    found = analyze(rows[rows["operator"] != "subsample"], **_QUICK)
    check_page(found.summary)
    assert re.search(r"operators? cannot answer whether maximum-sampling bias", found.opening.verdict)
    assert f"about {operators_needed()} operators" in found.opening.verdict


@pytest.mark.parametrize("truth", ["negative", "simpson"])
def test_summaries_of_simulated_zoos_open_with_a_page(simulate: ModuleType, truth: str) -> None:
    zoo = simulate.Zoo(truth, 16, seeds=2, epochs=(24.0,), padding_modes=("zeros",), shift_kinds=("zero",))
    found = analyze(simulate.simulate_frame(zoo), **_QUICK | {"permutations": 199})
    check_page(found.summary)
    [a, _, c] = found.primary.to_dict("records")
    number = f"{a['estimate']:.2f} ({a['low']:.2f} to {a['high']:.2f})"
    way = "less" if truth == "negative" else "more"
    start = f"Over 16 operators more maximum-sampling bias (MSB) goes with {way} consistency, a Spearman correlation of"
    assert found.opening.verdict.startswith(f"{start} {number} under zero shifts")
    assert (
        f"inside operators more MSB goes with less consistency ({100 * c['effect']:.1f} points" in found.opening.verdict
    )
    points = [100 * c["effect"] * c[name] / c["estimate"] for name in ("estimate", "low", "high")]
    assert found.opening.rows[2].effect == f"{points[0]:.1f} points ({points[1]:.1f} to {points[2]:.1f})"
    first = "below zero" if truth == "negative" else "above zero"
    assert [row.verdict for row in found.opening.rows][::2] == [first, "below zero"]


def test_the_summary_of_segmentation_speaks_of_it(simulate: ModuleType, conditions: ModuleType) -> None:
    tables = simulate.simulate_tables(simulate.Zoo(seeds=1, epochs=(8.0,), padding_modes=("circular",)))
    pixels = replace(conditions.with_conditions(tables), invariance=tables.invariance.iloc[:0])
    found = analyze_tables(pixels, resamples=5, permutations=9)
    check_page(found.summary)
    assert "accuracy" not in found.summary.split("<details>")[0]
    assert "per-pixel consistency" in found.opening.verdict or "of segmentation" in found.opening.verdict


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_networks_get_an_honest_sentence(simulate: ModuleType, count: int) -> None:
    rows = simulate.simulate_frame(
        simulate.Zoo(seeds=1, epochs=(8.0,), padding_modes=("zeros",), shift_kinds=("zero",))
    )
    found = analyze(rows[rows["operator_spec"].isin(["max", "avg"][:count])], **_QUICK)
    check_page(found.summary)
    many = "1 operator" if count == 1 else "2 operators"
    assert found.opening.verdict == (
        f"{many} cannot answer whether maximum-sampling bias (MSB) lowers shift invariance: a correlation takes 3 at "
        "least, and it takes about 89 operators to see one of -0.3 four times in five."
    )
    assert {row.verdict for row in found.opening.rows} == {"no number"}


def test_as_many_operators_are_needed_as_fishers_z_says() -> None:
    n = operators_needed(-0.3)
    assert n == 89
    se = np.sqrt((1 + 0.3**2 / 2) / (n - 3))
    assert stats.norm.sf(stats.norm.ppf(0.975) - np.arctanh(0.3) / se) == pytest.approx(0.8, abs=0.005)
    assert operators_needed(-0.5) < 35 < n


def _primary(**given: object) -> dict[str, object]:
    row = {
        "data": "digits/test",
        "shift_kind": "circular",
        "fill": "",
        "max_shift": "4",
        "n_shifts": 9,
        "plan": "sampled",
    }
    row |= {"statement": "a", "estimate": 0.1, "low": -0.5, "high": 0.6, "effect": np.nan, "n_clusters": 11, "p": 0.6}
    row |= {"p_holm": 0.9, "verdict": "no difference from zero", "role": "primary", "subset": "all operators"}
    return {**row, "snapshots": "final", "reason": "", **given}


def _verdict(*rows: dict[str, object], power: pd.DataFrame | None = None) -> str:
    return published_opening(pd.DataFrame(rows), 11, IMAGES, power).verdict


def test_how_many_it_takes_is_the_simulated_number_where_there_is_one() -> None:
    power = pd.DataFrame(
        {"data": "digits/test", "shift_kind": ["circular"] * 3 + ["zero"], "level": ["between operators"] * 4,
         "n_operators": [11, 110, 130, 500], "power": [0.1, 0.7, 0.9, 0.9], "smallest": [False, False, True, True]}
    )  # fmt: skip
    assert "it takes about 130 operators to see one of -0.3" in _verdict(_primary(), power=power)
    few = power.assign(smallest=False)
    assert "it takes more operators than were simulated" in _verdict(_primary(), power=few)
    assert "about 89 operators" in _verdict(_primary())


def test_a_zoo_that_can_answer_says_what_it_found() -> None:
    clear = {"verdict": "negative", "estimate": -0.4, "low": -0.6, "high": -0.1, "n_clusters": 95}
    many = _primary(n_clusters=95)
    assert "Over 95 operators maximum-sampling bias (MSB) is not found to go with less consistency" in _verdict(many)
    assert _verdict(_primary(**clear, p_holm=0.01)) == (
        "Over 95 operators more maximum-sampling bias (MSB) goes with less consistency, a Spearman correlation of "
        "-0.40 (-0.60 to -0.10) under circular shifts."
    )
    assert "goes with less" not in _verdict(_primary(**clear, p_holm=0.06))
    zero = _primary(shift_kind="zero", n_clusters=95)
    assert _verdict(_primary(**clear, p_holm=0.01), zero).endswith(
        "; not told from zero: a Spearman correlation of 0.10 (-0.50 to 0.60) under zero shifts."
    )
    other = _primary(**clear | {"verdict": "positive", "estimate": 0.4, "low": 0.1, "high": 0.6}, p_holm=0.01, data="b")
    both = _verdict(_primary(**clear, p_holm=0.01), other)
    assert (
        "goes with less consistency, a Spearman correlation of -0.40 (-0.60 to -0.10) under circular shifts on" in both
    )
    assert ", and with more consistency" in both


def test_several_data_sets_and_other_plans_are_told() -> None:
    rows = [_primary(data=data, shift_kind=kind, estimate=r) for r, (data, kind) in
            zip((-0.3, 0.1, 0.2, 0.0), [(d, k) for d in "ab" for k in ("circular", "zero")], strict=True)]  # fmt: skip
    assert "they suggest Spearman correlations of -0.30 to 0.20 over 4 data sets and shift kinds" in _verdict(*rows)
    other = _primary(role="secondary", p_holm=np.nan)
    assert _verdict(other).startswith(
        "None of these measurements is of the plan fixed in advance, and 11 operators cannot"
    )
    segmentation = published_opening(pd.DataFrame([_primary()]), 11, PIXELS).verdict
    assert "lowers shift invariance of segmentation: " in segmentation


STUDY = SimulatedDesign(cells=("a", "b"), draws=44, blocks=24)


def _assigned(slopes: dict[str, tuple[float, float]], n_cells: int = 2, n_units: int = 20, **cells: float) -> str:
    """The verdict on slopes with their errors in logits, by shift kind, and on slopes of single cells."""
    return _opened(slopes, n_cells, n_units, **cells).verdict


def _opened(slopes: dict[str, tuple[float, float]], n_cells: int = 2, n_units: int = 20, **cells: float) -> Opening:
    rows = []
    together = pool(list(cells.values()), [max(se for _, se in slopes.values())] * len(cells)) if cells else None
    spread = (
        {"p_cells": together.p_heterogeneity}
        | {name: getattr(together, name) for name in ("random", "random_low", "random_high")}
        if together
        else dict.fromkeys(("p_cells", "random", "random_low", "random_high"), np.nan)
    )
    for kind, (estimate, se) in slopes.items():
        plan = {"shift_kind": kind, "fill": "background" if kind == "zero" else "", "max_shift": 4, "most_shift": 4}
        plan |= {"n_shifts": 9, "plan": "sampled", "n": 4 * n_units, "n_units": n_units, "note": "", "statement": "1"}
        p = 2 * stats.norm.sf(abs(estimate / se))
        for cell, value in {"pooled": estimate, **cells}.items():
            ends = {"low": value - 1.96 * se, "high": value + 1.96 * se}
            points = {
                f"points{end}": 20 * at for end, at in (("", value), ("_low", ends["low"]), ("_high", ends["high"]))
            }
            rows.append({**plan, **ends, **points, **spread, "quantity": "slope within blocks", "cell": cell,
                         "estimate": value, "se": se, "p": p, "n_cells": n_cells if cell == "pooled" else np.nan,
            })  # fmt: skip
    return assigned_opening(judged(pd.DataFrame(rows)), IMAGES)


def test_the_verdict_on_assigned_msb_follows_the_plan() -> None:
    assert _assigned({"circular": (-1, 0.1), "zero": (-1, 0.1)}) == (
        "Maximum-sampling bias (MSB) as such lowers shift invariance under circular shifts (-20.0 points of "
        "consistency, -23.9 to -16.1) and zero shifts (-20.0 points, -23.9 to -16.1); at equal everything else nothing "
        "else tested goes with consistency (aliasing and selectivity were not tested)."
    )
    assert "as such raises shift invariance under circular shifts" in _assigned({"circular": (1, 0.1)})
    assert ", by less than matters" in _assigned({"circular": (-0.2, 0.05)})
    nothing = _assigned({"circular": (0.0, 0.1)})
    assert nothing.startswith("Maximum-sampling bias (MSB) as such has no effect of a size that matters on shift")
    assert nothing.endswith(
        "; at equal everything else nothing tested goes with consistency (aliasing and selectivity were not tested)."
    )
    alone = _assigned({"circular": (0.0, 0.1)}, n_cells=1)
    assert alone.startswith(
        "Whether maximum-sampling bias (MSB) as such lowers shift invariance is open under circular"
    )
    assert "blocks" not in alone
    needed = int(np.ceil(20 * (2.8015852 * 0.4 / 0.5) ** 2))
    assert f"; about {needed} blocks of rotations are needed to see" in _assigned({"circular": (0.1, 0.4)})
    mixed = _assigned({"circular": (0.1, 0.4), "zero": (-1, 0.1)})
    assert mixed.startswith("Maximum-sampling bias (MSB) as such lowers shift invariance under zero shifts (")
    assert "; whether MSB as such lowers shift invariance is open under circular shifts (" in mixed
    differs = _assigned({"circular": (-0.1, 0.2)}, **{"a/n": -1.0, "b/n": 0.8})
    assert differs.startswith(
        "What maximum-sampling bias (MSB) as such does to shift invariance differs in sign between"
    )
    (row,) = _opened({"circular": (-0.3, 0.05)}, **{"a/n": -1.0, "b/n": 0.8}).rows
    assert row.verdict == "no general statement: signs differ between data sets"
    assert "under circular shifts (a -20.0 points of consistency, b 16.0)" in differs


def test_small_is_said_of_cells_that_differ_only_where_their_mean_as_a_sample_is_small() -> None:
    def said(**cells: float) -> tuple[str, str]:
        opened = _opened({"circular": (-0.3, 0.05)}, **cells)
        return opened.rows[0].verdict, opened.verdict

    verdict, sentence = said(**{"a/n": -0.3, "b/n": -0.31})
    assert verdict == "below zero, smaller than matters"
    assert "(-6.0 points of consistency, -8.0 to -4.0), by less than matters" in sentence
    verdict, sentence = said(**{"a/n": -0.4, "b/n": -0.2, "c/n": -0.3})  # differ, and are small all the same
    assert verdict == "below zero, smaller than matters; sizes differ between data sets"
    assert "(-6.0 points of consistency, -8.0 to -4.0; by data set -8.0 to -4.0), by less than matters" in sentence
    verdict, sentence = said(**{"a/n": -0.7, "b/n": -0.1, "c/n": -0.3})
    assert verdict == "below zero; sizes differ between data sets"
    assert "by less than matters" not in sentence
    assert (
        "lowers shift invariance under circular shifts (-6.0 points of consistency, -8.0 to -4.0; by data set"
        in sentence
    )


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        (Truth("MSB", msb=-2), "as such lowers shift invariance under circular shifts"),
        (
            Truth("selectivity", selectivity=-4),
            "at equal everything else consistency goes with selectivity (how far single pixels",
        ),
    ],
    ids=["MSB", "selectivity"],
)
def test_the_page_of_an_assigned_study(truth: Truth, said: str) -> None:
    frame = simulate_study(truth, STUDY, 1)
    names = ("operator", "cluster", "plan_hash", "msb_all", "msb_weight", "msb_top", "run")
    frame = frame.assign(**dict.fromkeys(names, frame["checkpoint"]), n_sites_unmeasured=0, epoch=1.0)
    found = analyze(frame, scores=["consistency"], settings=Settings(draws=199, resamples=19))
    check_page(found.summary)
    assert said in found.opening.verdict
    assert len(found.opening.rows) == 4
    row = found.statements.query("role == 'primary' and statement == '1'").iloc[0]
    number = f"{row['points']:.1f} points ({row['points_low']:.1f} to {row['points_high']:.1f})"
    assert found.opening.rows[0].effect == number
    alone = analyze(frame[frame["factor_population"] == "P"], scores=["consistency"], settings=Settings(19, 19))
    assert alone.opening.verdict.startswith(
        "Without a slope over rotations of weights these drawn operators do not say"
    )
    check_page(alone.summary)


def test_what_was_not_measured_by_the_plan_is_said_and_not_denied() -> None:
    truth = Truth("MSB", msb=-2)
    frame = simulate_study(truth, STUDY, 1)
    rotated, drawn = (frame[frame["factor_population"] == name] for name in "RP")
    settings = Settings(draws=19, resamples=19)
    other = statements(rotated.assign(n_shifts=5), settings, brief=True)
    found = assigned_opening(other, IMAGES).verdict
    assert found.startswith("The slope over rotations of weights was not measured under the plan fixed in advance")
    assert "correlation" not in found
    shown = assigned_fold(statements(rotated.assign(n_shifts=5), settings)).text
    assert "5 shifts per image), not the plan fixed in advance" in shown
    alone = assigned_opening(statements(rotated, settings, brief=True), IMAGES).verdict
    assert "goes with consistency (aliasing and selectivity were not tested)" in alone
    flat = statements(drawn.assign(consistency=1.0), settings, brief=True)
    (row,) = flat[(flat["statement"] == "2") & (flat["shift_kind"] == "circular")].to_dict("records")
    assert np.isnan(row["estimate"])
    assert "the same for all drawn operators" in row["note"]
    assert np.isnan(row["p_holm"])


def test_a_page_is_markdown_with_its_figure_and_a_table_that_names_cannot_break() -> None:
    row = Stated("(a) on a|b", "circular", "0.1", "–", "3 operators", "open")
    opening = Opening("T?", "Yes.", (row,), ("One.",))
    assert opening.markdown("f.png").split("\n\n")[:2] == ["**Yes.**", "![T?](f.png)"]
    assert "| (a) on a/b | circular | 0.1 | – | 3 operators | open |\n\n* One." in opening.markdown()
    assert opening.lines() == ["Yes.", "(a) on a|b, circular: 0.1, 3 operators: open"]
    assert summary_text(opening, ()).startswith("# T?\n\n**Yes.**\n\n| statement |")
