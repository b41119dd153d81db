"""The report's explorer and figures: the joined rows as columns, marks as paths and colours, every data set."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from matplotlib.markers import MarkerStyle

from invariscope.analysis import Frames, Tables, draw_figures
from invariscope.analysis.drawing import caption_of
from invariscope.analysis.figures import style
from invariscope.analysis.report.colours import dark_of, light_dark, outline
from invariscope.analysis.report.explorer import explorer
from invariscope.analysis.report.page_figures import data_sets, drawn_of_data, figure_groups
from invariscope.collectors.schema import MSB_READINGS


@pytest.fixture(scope="module")
def tables(simulate: ModuleType, pages: ModuleType) -> Tables:
    return pages.small_zoo(simulate)


def column_of(payload: dict, name: str, role: str = "measure") -> dict:
    [found] = [column for column in payload["columns"] if (column["name"], column["role"]) == (name, role)]
    return found


def test_points_are_the_joined_rows_with_the_tables_intervals(tables: Tables, pages: ModuleType) -> None:
    frames = Frames(tables)
    payload, frame = explorer(frames), frames["joined"]
    assert len(payload["unit"]) == len(frame) == 2 * 2 * 22
    assert len(payload["names"]) == 44
    raw = {
        (r["checkpoint"], r["shift_kind"], r["score"]): [r["value"], r["low"], r["high"]]
        for r in tables.invariance.to_dict("records")
    }
    for place, row in enumerate(frame.to_dict("records")):
        unit = payload["unit"][place]
        assert payload["names"][unit] == row["checkpoint"]
        assert payload["plans"][payload["plan"][place]].startswith(f"{row['shift_kind']}, ≤ 4 px, 9 sampled")
        assert payload["final"][unit] == (row["epoch"] == 24)
        for score, kind in (("consistency", row["shift_kind"]), ("fidelity", row["shift_kind"]), ("accuracy", "none")):
            column = column_of(payload, score)
            at = unit if column["of"] == "unit" else place
            told = [column[key][at] for key in ("numbers", "low", "high")]
            assert told == pytest.approx(raw[row["checkpoint"], kind, score], abs=6e-4)
        reading = column_of(payload, "msb_corrected")
        sites = tables.layers[tables.layers["checkpoint"] == row["checkpoint"]]
        mean, error = sites["msb_corrected"].mean(), 1.96 * sites["msb_corrected_se"].mean()
        told = [reading[key][unit] for key in ("low", "numbers", "high")]
        assert told == pytest.approx([mean - error, mean, mean + error], abs=6e-4)
        operator = column_of(payload, "operator", "factor")
        assert operator["levels"][operator["codes"][unit]] == row["operator"]
    assert (payload["start"]["x"], payload["start"]["y"]) == ("msb_corrected", "consistency")
    assert column_of(payload, "consistency")["share"]
    assert not column_of(payload, "n_params")["share"]


def test_columns_without_a_number_are_no_axis_and_own_factors_are_columns(tables: Tables) -> None:
    rows = tables.checkpoints
    factors = [json.dumps({**json.loads(text), "group": f"g{place % 3}", "metric": place / 7})
               for place, text in enumerate(rows["factors"])]  # fmt: skip
    changed = replace(
        tables, checkpoints=rows.assign(factors=factors), layers=tables.layers.assign(msb=np.nan, msb_se=np.nan)
    )
    payload = explorer(Frames(changed))
    measures = [column["name"] for column in payload["columns"] if column["role"] == "measure"]
    assert "msb" not in measures
    assert set(MSB_READINGS[1:]) < set(measures)
    own = column_of(payload, "factor_metric")
    by = dict(zip(payload["names"], own["numbers"], strict=True))
    assert by == {name: pytest.approx(place / 7, rel=1e-3) for place, name in enumerate(rows["checkpoint"])}
    assert sorted(column_of(payload, "factor_group", "factor")["levels"]) == ["g0", "g1", "g2"]


def test_drift_is_an_axis_where_it_was_measured(tables: Tables) -> None:
    rows = tables.invariance[
        (tables.invariance["shift_kind"] != "none") & (tables.invariance["score"] == "consistency")
    ]
    head = rows.assign(site=None, depth=9, drift_in=np.arange(len(rows)) / 100, drift_out=0.5, drift_in_se=0.01,
                       drift_out_se=0.02, site_kind="logits", reason="")  # fmt: skip
    payload = explorer(Frames(replace(tables, drift=head)))
    drift = column_of(payload, "drift_last_map")
    expected = {(r.checkpoint, r.shift_kind): r.drift_in for r in head.itertuples()}
    for place, (unit, plan) in enumerate(zip(payload["unit"], payload["plan"], strict=True)):
        key = (payload["names"][unit], payload["plans"][plan].partition(",")[0])
        assert drift["numbers"][place] == pytest.approx(expected[key], rel=1e-3)
        assert drift["high"][place] - drift["numbers"][place] == pytest.approx(0.0196, abs=6e-3)


def test_of_very_many_networks_a_sample_is_shown_and_said(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    from invariscope.analysis.report import explorer as module
    from invariscope.analysis.report.html_tables import explorer_table

    monkeypatch.setattr(module, "MAX_NETWORKS", 10)
    payload = explorer(Frames(tables))
    assert payload["sampled"] == [10, 44]
    assert len(payload["names"]) == 10
    assert len(payload["unit"]) == 20
    assert payload == explorer(Frames(tables))
    assert explorer_table(payload).notes == ("A random sample of 10 of 44 networks; `invariscope analyze` reads all.",)


def test_the_explorer_uses_the_figures_colours_and_shapes(tables: Tables) -> None:
    payload = explorer(Frames(tables))
    known = style.marks(tables.checkpoints["operator"])
    assert list(payload["marks"]) == list(known)
    assert [color for color, _ in payload["marks"].values()] == [light_dark(mark.color) for mark in known.values()]
    assert len({path for _, path in payload["marks"].values()}) == len(known) == 11


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", sorted(style.MARKS))
def test_marks_stand_out_from_dark_paper(name: str) -> None:
    """WCAG asks for 3 : 1 of what is drawn."""
    dark = dark_of(style.MARKS[name].color)
    assert (luminance(dark) + 0.05) / (luminance("#15171a") + 0.05) > 3


def test_dark_colours_keep_hue_and_turn_lightness_round() -> None:
    assert (dark_of("#000000"), dark_of("#ffffff")) == ("#ffffff", "#808080")
    red, green, blue = (int(dark_of("#D55E00")[place : place + 2], 16) for place in (1, 3, 5))
    assert red > green > blue
    assert light_dark("#000000") == "light-dark(#000000,#ffffff)"
    assert dark_of("red;}<b>") == "red;}<b>"


@pytest.mark.parametrize("marker", sorted({m.marker for m in (*style.MARKS.values(), *style.OTHER_MARKS)}))
def test_symbols_have_the_markers_outline(marker: str) -> None:
    drawn = outline(marker)
    if marker == "o":
        assert drawn.count("A1,1,") == 2
        return
    corners = np.array([[float(v) for v in point.split(",")] for point in drawn.strip("MZ").split("L")])
    assert np.abs(corners).max() == 1
    own = MarkerStyle(marker)
    vertices = own.get_transform().transform(own.get_path().vertices)
    expected = {(x / np.abs(vertices).max(), -y / np.abs(vertices).max()) for x, y in vertices}
    for x, y in corners:
        assert min(max(abs(x - u), abs(y - v)) for u, v in expected) < 6e-4


def test_figures_of_every_data_set(simulate: ModuleType) -> None:
    zoo = simulate.Zoo(seeds=1, epochs=(24.0,), padding_modes=("circular",), shift_kinds=("zero",))
    first = simulate.simulate_tables(zoo)
    again = {
        name: getattr(first, name).assign(data="other/test", data_fingerprint="f1") for name in ("layers", "invariance")
    }
    few = again["invariance"]["checkpoint"].isin(sorted(first.checkpoints["checkpoint"])[:-1])
    both = replace(
        first,
        layers=pd.concat([first.layers, again["layers"]], ignore_index=True),
        invariance=pd.concat([first.invariance, again["invariance"][few]], ignore_index=True),
    )
    frames = Frames(both)
    assert data_sets(frames) == ["digits test", "other/test"]
    drawn = draw_figures(frames, ["msb_by_operator", "msb_invariance"])
    found = drawn_of_data(frames, drawn)
    assert {name: list(by_data) for name, by_data in found.figures.items()} == {
        name: ["digits test", "other/test"] for name in drawn.figures
    }
    headline = drawn.figures["msb_invariance"]
    by_operator, invariance = figure_groups(found, headline)
    assert [figure.data for figure in by_operator.figures] == ["digits test", "other/test"]
    for figure in by_operator.figures:
        assert figure.data in figure.caption
    assert [figure.data for figure in invariance.figures] == ["other/test"]
    assert invariance.note == "That of digits test stands beside the verdict."
    alone = drawn_of_data(Frames(first), drawn)
    assert [list(by_data) for by_data in alone.figures.values()] == [[""], [""]]
    # What was drawn of the second data set is taken for what it is.
    other = drawn_of_data(frames, draw_figures(frames, ["msb_by_operator"], data="other/test"))
    assert set(other.figures["msb_by_operator"]) == {"digits test", "other/test"}
    captions = {data: caption_of(figure) for data, figure in other.figures["msb_by_operator"].items()}
    assert "digits test" in captions["digits test"]
    assert "other/test" in captions["other/test"]
