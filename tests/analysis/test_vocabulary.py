"""The words for the score are a parameter: names that others gave are never rewritten."""

from __future__ import annotations

import dataclasses
import re
from types import ModuleType

import pandas as pd
import pytest

from invariscope.analysis import Results, Tables, analyze_tables, report_page
from invariscope.analysis.drawing import draw_figures
from invariscope.analysis.say.vocabulary import IMAGES, PIXELS, VOCABULARIES, first_measured, measured
from invariscope.analysis.tables.frames import FRAMES, Frames

HELD = ("x", "y", "given", "term", "covariates", "model", "group", "left_out")


@pytest.fixture(scope="module")
def both(simulate: ModuleType, conditions: ModuleType) -> Tables:
    """Scores of images and of pixels; an architecture, an operator and copies that are called as scores are."""
    zoo = simulate.Zoo(seeds=2, padding_modes=("circular",), epochs=(24.0,), architectures=("accuracy-net", "unet"))
    tables = conditions.with_conditions(simulate.simulate_tables(zoo))
    named = tables.checkpoints.assign(
        operator=tables.checkpoints["operator"].replace("soft", "consistency"),
        operator_spec=tables.checkpoints["operator_spec"].str.replace("soft(", "consistency("),
    )
    copy = named.iloc[:1].assign(checkpoint="z-accuracy of consistency")
    tables = dataclasses.replace(tables, checkpoints=pd.concat([named, copy], ignore_index=True))
    # Without plain subsampling, which would be a second subset of everything.
    kept = named.loc[named["operator"] != "subsample", "checkpoint"].tolist() + copy["checkpoint"].tolist()
    frames = {name: rows for name, rows in vars(tables).items() if isinstance(rows, pd.DataFrame)}
    few = {name: rows[rows["checkpoint"].isin(kept)] for name, rows in frames.items() if "checkpoint" in rows}
    return dataclasses.replace(tables, **few)


@pytest.fixture(scope="module")
def pixels(both: Tables) -> Tables:
    return dataclasses.replace(both, invariance=both.invariance.iloc[:0])


@pytest.fixture(scope="module")
def results(pixels: Tables) -> Results:
    return analyze_tables(pixels, resamples=5, permutations=9)


def test_what_was_measured_is_what_is_spoken_of(both: Tables, pixels: Tables) -> None:
    nothing = dataclasses.replace(pixels, segmentation=pixels.segmentation.iloc[:0])
    images = dataclasses.replace(both, segmentation=both.segmentation.iloc[:0])
    assert measured(both) == [IMAGES, PIXELS]
    assert [first_measured(tables) for tables in (both, images, pixels, nothing)] == [IMAGES, IMAGES, PIXELS, IMAGES]


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda vocabulary: vocabulary.table)
def test_every_vocabulary_names_columns_of_its_frame(both: Tables, vocabulary) -> None:
    frame = FRAMES[vocabulary.frame](both)
    assert {vocabulary.score, vocabulary.accuracy} <= set(frame.columns)
    assert vocabulary.score in vocabulary.split
    assert set(vocabulary.split) <= set(vocabulary.scores)


def test_names_stay_as_they_are(results: Results) -> None:
    assert "In `accuracy-net` " in results.summary
    assert "**Dose, `consistency`**" in results.summary
    assert "z-accuracy of consistency" in results.summary
    assert "mIoU-net" not in results.summary
    text = results.summary.replace("accuracy-net", "").replace("z-accuracy of consistency", "")
    assert not re.search("accuracy", text, re.IGNORECASE)
    assert set(results.regressions["group"]) >= {"operator=consistency", "operator_spec=consistency(beta=0)"}
    assert set(results.influence["left_out"]) >= {"consistency", "accuracy-net"}
    assert "architecture[unet]" in set(results.regressions["term"])


def test_columns_are_those_of_pixels(results: Results) -> None:
    for name in ("correlations", "regressions", "influence", "comparisons", "sites", "designs"):
        table = getattr(results, name)
        named = {str(value) for column in ("x", "y", "given") if column in table for value in table[column].dropna()}
        words = {word for value in named for word in value.split(" + ")}
        assert not words & {"accuracy", "consistency", "fidelity"}
    assert set(results.correlations["y"]) == {"consistency_pixel"}
    assert {"miou", "msb_corrected"} <= set(results.correlations["x"])
    assert {"miou_within", "miou_between"} <= set(results.regressions["term"])


def test_the_words_are_those_of_pixels(results: Results) -> None:
    assert results.summary.startswith("# Does maximum-sampling bias go with shift invariance of segmentation?\n")
    assert "*mIoU* is taken on the unshifted images" in results.summary
    assert "slope at equal mIoU, architecture and data set" in results.summary
    assert "mIoU alone has a Spearman correlation" in results.summary
    lines = "\n".join(results.headline)
    assert "msb_corrected against per-pixel consistency (mASCC)" in lines
    assert "msb_corrected against per-pixel consistency (mASSC)" in lines
    assert re.search(r"^  Spearman given mIoU {11}[-+]0", lines, re.MULTILINE)


def test_numbers_are_those_of_images_with_the_same_scores(pixels: Tables, results: Results) -> None:
    """The scores of pixels under the names of those of images give the same numbers."""
    renamed = {"consistency_pixel": "consistency", "miou": "accuracy"}
    rows = pixels.segmentation[pixels.segmentation["score"].isin(renamed)]
    rows = rows.assign(score=rows["score"].map(renamed)).reindex(columns=pixels.invariance.columns)
    images = dataclasses.replace(pixels, invariance=rows, segmentation=pixels.segmentation.iloc[:0])
    expected = analyze_tables(images, resamples=5, permutations=9)
    for name in ("correlations", "regressions", "influence", "comparisons", "sites", "primary"):
        mine, theirs = getattr(results, name), getattr(expected, name)
        numbers = [column for column in theirs.select_dtypes("number") if column in mine]
        pd.testing.assert_frame_equal(mine[numbers], theirs[numbers], check_exact=True)
    # Drawn operators have a fold of their own, for scores of images alone.
    of_images = [fold for fold in expected.folds if not fold.title.startswith("Operators drawn at random")]
    assert len(of_images) == len(expected.folds) - 1
    for mine, theirs in zip(results.folds, of_images, strict=True):
        assert mine.title == theirs.title
        assert len(mine.text.splitlines()) == len(theirs.text.splitlines())


def test_the_report_names_the_scores_of_pixels(pixels: Tables, results: Results, pages: ModuleType) -> None:
    frames = Frames(pixels)
    page = report_page(frames, results=results, drawn=draw_figures(frames, ["segmentation"]))
    payload = pages.unpacked(pages.read(page).by_id("explorer-data").text)
    titles = {column["name"]: column["title"] for column in payload["columns"] if column["role"] == "measure"}
    assert titles["consistency_pixel"] == "per-pixel consistency (share of pixels)"
    assert payload["start"]["y"] == "consistency_pixel"
    assert "miou" in titles
    assert "accuracy" not in titles
