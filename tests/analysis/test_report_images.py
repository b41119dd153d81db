"""What the report packs of single images: against the plain functions, and what is refused."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from invariscope.analysis import TableError, compare, image_flips, join
from invariscope.analysis.report.drilled import LEAST_STABLE, MAX_DRILLED, drilled


@pytest.fixture(scope="module")
def joined(simulate: ModuleType, pages: ModuleType) -> pd.DataFrame:
    return join(pages.small_zoo(simulate))


@pytest.fixture(scope="module")
def predictions(simulate: ModuleType, pages: ModuleType) -> pd.DataFrame:
    return pages.predictions_of(pages.small_zoo(simulate))


def test_images_and_pairs_are_those_of_the_plain_functions(joined: pd.DataFrame, predictions: pd.DataFrame) -> None:
    names = sorted(set(predictions["checkpoint"]))[3:5]
    # A measurement that the joined frame does not speak of, such as an older one, is left out.
    older = predictions.assign(data_fingerprint="older")
    found = drilled(pd.concat([predictions, older]), joined, names)
    payload = found.payload
    assert payload["networks"] == names
    assert found.note == "The networks that were asked for."
    table = compare(predictions, *names)
    images = image_flips(predictions, names)
    assert len(payload["views"]) == images["shift_kind"].nunique() == 2
    for view, plan in zip(payload["views"], payload["plans"], strict=True):
        kind = plan.partition(",")[0]
        of_plan = table[table["shift_kind"] == kind].set_index("score")
        for row in view["pairs"]["0,1"]:
            assert row["difference"] == pytest.approx(of_plan.loc[row["score"], "difference"], rel=1e-3)
        for place, name in enumerate(names):
            mine = images[(images["checkpoint"] == name) & (images["shift_kind"] == kind)].head(LEAST_STABLE)
            shown = [view["images"][at] for at in view["of"][place]["least"]]
            assert shown == mine["image"].tolist()
            flips = [view["of"][place]["n_shifts_flipped"][at] for at in view["of"][place]["least"]]
            assert flips == mine["n_shifts_flipped"].tolist()


def test_which_networks_are_shown_is_said(joined: pd.DataFrame, predictions: pd.DataFrame) -> None:
    found = drilled(predictions, joined)
    shown = joined[joined["checkpoint"].isin(found.payload["networks"])]
    assert shown["operator"].nunique() == len(found.payload["networks"]) == MAX_DRILLED
    assert found.note.startswith("8 of 44 networks: the first by name of each operator;")
    assert drilled(None, joined).payload is None
    assert "collect `predictions`" in drilled(None, joined).note


def test_thumbnails_are_of_the_images_that_are_shown(joined: pd.DataFrame, predictions: pd.DataFrame) -> None:
    name = predictions["checkpoint"].iloc[0]
    images = np.zeros((40, 3, 96, 96), np.uint8)
    found = drilled(predictions, joined, [name], {"digits test": images})
    shown = {str(image) for view in found.payload["views"] for image in view["images"]}
    assert set(found.payload["thumbnails"]["digits test"]) == shown
    assert drilled(predictions, joined, [name]).payload["thumbnails"] == {}
    with pytest.raises(TableError, match="unknown data set of the predictions 'digit test'"):
        drilled(predictions, joined, [name], {"digit test": images})
    with pytest.raises(TableError, match="1 images, and image"):
        drilled(predictions, joined, [name], {"digits test": images[:1]})


def test_what_is_not_there_is_refused(joined: pd.DataFrame, predictions: pd.DataFrame) -> None:
    with pytest.raises(TableError, match="unknown checkpoint of table predictions 'nobody'"):
        drilled(predictions, joined, ["nobody"])
    with pytest.raises(TableError, match="collect `predictions`"):
        drilled(None, joined, ["nobody"])
