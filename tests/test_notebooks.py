"""The notebooks are stored as they run: a picture first, in plain calls, and their numbers are those of the tables."""

from __future__ import annotations

import ast
import base64
import importlib
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pandas as pd
import pyarrow.dataset as ds
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image

import invariscope as iv
from invariscope.analysis.designs.assigned_statements import statements

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
BY_NUMBER = {path.stem.partition("_")[0]: path for path in NOTEBOOKS}
MOST_CELLS, MOST_BYTES = 12, 150_000
_OF_A_MACHINE = r"(?<![\w.:/])/(?:work|home|root|tmp|opt|usr|var|mnt|Users)/|\b[A-Z]:\\"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _stored(number: str) -> nbformat.NotebookNode:
    return nbformat.read(BY_NUMBER[number], as_version=4)


def _code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in _code(notebook) for output in cell.outputs]


def _printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(output["text"] for output in _outputs(notebook) if output.output_type == "stream")


def _pictures(notebook: nbformat.NotebookNode) -> list[bytes]:
    shown = [output.data["image/png"] for output in _outputs(notebook) if "image/png" in output.get("data", {})]
    return [base64.b64decode(png) for png in shown]


def _tables(notebook: nbformat.NotebookNode) -> list[list[list[str]]]:
    """The cells of every frame that is shown, its index first."""
    found = []
    for output in _outputs(notebook):
        html = output.get("data", {}).get("text/html", "")
        if '<table border="1" class="dataframe">' in html:
            body = ElementTree.fromstring(html[html.index("<table") : html.index("</table>") + 8]).find("tbody")
            assert body is not None
            found.append([[cell.text or "" for cell in row] for row in body])
    return found


def _frame(repository: Path, folder: str) -> pd.DataFrame:
    return iv.join(iv.load(repository / "data" / "reference" / folder))


def _run(cell: nbformat.NotebookNode, names: dict[str, Any], **changes: str) -> None:
    source = cell.source
    for old, new in changes.items():
        source = source.replace(old, new)
    exec(compile(source, "cell", "exec"), names)


def test_there_are_five() -> None:
    assert [path.name for path in NOTEBOOKS] == [
        "1_measure_one_model.ipynb",
        "2_explore_a_zoo.ipynb",
        "3_figures.ipynb",
        "4_what_msb_explains.ipynb",
        "5_move_an_image.ipynb",
    ]


@each_notebook
def test_stored_with_outputs_and_opens_with_a_picture(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= MOST_CELLS
    assert [cell.execution_count for cell in _code(notebook)] == list(range(1, len(_code(notebook)) + 1))
    outputs = _outputs(notebook)
    assert not [one for one in outputs if one.output_type == "error" or one.get("name") == "stderr"]
    pictures = _pictures(notebook)
    assert all(len(png) <= MOST_BYTES and min(Image.open(io.BytesIO(png)).size) > 300 for png in pictures)
    if path == BY_NUMBER["5"]:
        assert len(notebook.cells[0].attachments["moved.png"]["image/png"]) < 200_000
        assert "vegaEmbed" in outputs[0].data["text/html"]
        assert len(outputs[0].data["text/html"]) < 200_000
    else:
        assert "image/png" in _code(notebook)[0].outputs[0].data


@each_notebook
def test_nothing_of_a_machine_and_no_warning_is_stored(path: Path) -> None:
    text = re.sub(r'"image/png": (?:"[^"]*"|\[[^\]]*\])', "", json.dumps(json.loads(path.read_text(encoding="utf-8"))))
    assert not re.findall(_OF_A_MACHINE, text)
    shown = [text for output in _outputs(nbformat.read(path, as_version=4)) for text in _words(output)]
    assert not [text for text in shown if re.search(r"Warning|Traceback", text)]


def _words(output: nbformat.NotebookNode) -> list[str]:
    return [output.get("text", ""), *(text for kind, text in output.get("data", {}).items() if kind != "image/png")]


@each_notebook
def test_cells_are_plain_calls(path: Path) -> None:
    """No code and no sentence is put together from strings; the interactive one writes expressions for Vega-Lite."""
    cells = _code(nbformat.read(path, as_version=4))
    nodes = [node for cell in cells for node in ast.walk(ast.parse(cell.source))]
    assert "import invariscope as iv" in cells[0].source
    assert not {node.id for node in nodes if isinstance(node, ast.Name)} & {"exec", "eval", "compile", "get_ipython"}
    if path != BY_NUMBER["5"]:
        assert not [node for node in nodes if isinstance(node, ast.JoinedStr)]
        assert not [node for node in nodes if isinstance(node, ast.Attribute) and node.attr == "format"]


@each_notebook
def test_what_they_import_is_there(path: Path) -> None:
    """The quick run runs only the second of them."""
    nodes = [part for cell in _code(nbformat.read(path, as_version=4)) for part in ast.walk(ast.parse(cell.source))]
    facade = [part.attr for part in nodes if isinstance(part, ast.Attribute) and ast.unparse(part.value) == "iv"]
    assert facade
    assert all(hasattr(iv, name) for name in facade)
    for part in nodes:
        for alias in part.names if isinstance(part, ast.ImportFrom) else ():
            assert hasattr(importlib.import_module(str(part.module)), alias.name)


@pytest.mark.parametrize("number", ["2", "3", "4"])
def test_missing_tables_are_told_in_one_line(number: str) -> None:
    cell = next(cell for cell in _code(_stored(number)) if "iv.load(" in cell.source)
    with pytest.raises(iv.InputError) as stop:
        _run(cell, {}, **{"../data/reference/": "nowhere/"})
    assert str(stop.value).startswith("nowhere/")
    assert "no such folder of tables; make one with" in str(stop.value)
    assert "\n" not in str(stop.value)


def _consistency(model: torch.nn.Module, images: torch.Tensor, plan: iv.ShiftPlan) -> float:
    """The share of pairs of shifts with one prediction, from images that are rolled here."""
    shifts = [[tuple(map(int, shift)) for shift in of_image] for of_image in plan.offsets]
    moved = [torch.roll(images[i : i + 1], shift, (2, 3)) for i, own in enumerate(shifts) for shift in own]
    with torch.no_grad():
        said = model(torch.cat(moved)).argmax(1).reshape(len(images), -1).tolist()
    pairs = [one == other for own in said for one, other in itertools.combinations(own, 2)]
    return sum(pairs) / len(pairs)


def test_one_model_says_what_is_measured(repository: Path) -> None:
    notebook = _stored("1")
    sites, scores, swaps = _tables(notebook)
    found = next(one for one in iv.read_manifest(repository / "data" / "zoo") if one.name in _code(notebook)[0].source)
    model, data = iv.load_checkpoint(found), iv.load_dataset("digits", limit=150)
    images = (data.images / 255 - found.input.mean[0]) / found.input.std[0]
    plan = iv.ShiftPlan.sampled(150, max_shift=4, kind="circular")
    with torch.no_grad():
        accuracy = float((model(images).argmax(1) == torch.as_tensor(data.labels)).double().mean())
    values = {row[1]: float(row[2]) for row in scores}
    assert values["accuracy"] == pytest.approx(accuracy, abs=6e-4)
    assert values["consistency"] == pytest.approx(_consistency(model, images, plan), abs=6e-4)
    after = {(row[1], row[2]): float(row[4]) for row in swaps}
    changed, _ = iv.replace_downsampling(model, "soft(beta=1)", images[:2], where="stage2.down")
    assert after["stage2.down", "consistency"] == pytest.approx(_consistency(changed, images, plan), abs=6e-4)
    before = {row[2]: float(row[3]) for row in swaps}
    assert before["consistency"] == values["consistency"]
    assert before["msb_corrected"] == pytest.approx(sum(float(row[5]) for row in sites) / 3, abs=1.1e-3)
    assert [row[1] for row in swaps[::3]] == [*(row[1] for row in sites), ""]


def test_a_zoo_says_what_its_tables_hold(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells are run here; their numbers, and the stored ones, are those of the raw rows."""
    from matplotlib import pyplot as plt

    monkeypatch.chdir(BY_NUMBER["2"].parent)
    notebook, names = _stored("2"), dict[str, Any]()
    for cell in _code(notebook):
        _run(cell, names)
    plt.close("all")
    folder = repository / "data" / "reference" / "published"
    raw = {name: ds.dataset(folder / name).to_table().to_pandas() for name in ("checkpoints", "invariance")}
    described = raw["checkpoints"].query("architecture == 'smallcnn'")
    last = described[described["epoch"] == described.groupby("run")["epoch"].transform("max")]
    rows = raw["invariance"].query("score == 'consistency' and plan == 'sampled'")
    once = last.sort_values("checkpoint").drop_duplicates("tensors_sha256")  # lp(p=1) and soft(beta=0) are avg
    rows = rows.merge(once[["checkpoint", "operator"]], on="checkpoint")
    means = rows.groupby(["operator", "shift_kind"])["value"].mean()
    shown = {row[0]: row[2:] for row in _tables(notebook)[-1]}
    assert len(shown) == rows["operator"].nunique() == 11
    for operator, values in shown.items():
        for kind, value in zip(("circular", "zero"), values, strict=True):
            assert float(value) == pytest.approx(means[operator, kind], abs=6e-4)
            assert names["by_operator"].loc[operator, kind] == pytest.approx(means[operator, kind])


def test_what_msb_explains_says_what_its_tables_hold(repository: Path) -> None:
    notebook = _stored("4")
    asked, dose, readings = _tables(notebook)
    shown = {(row[1], row[2], row[3], row[4]): float(row[5]) for row in asked}
    assert {row[8] for row in asked} == {"11"}
    frame = _frame(repository, "published").query("final")
    pair = ["msb_corrected", "consistency"]
    for kind in ("circular", "zero"):
        rows = frame[frame["shift_kind"] == kind]
        ranks = rows[[*pair, "accuracy"]].rank().corr()
        xy, xz, yz = ranks.iloc[0, 1], ranks.iloc[0, 2], ranks.iloc[1, 2]
        partial = (xy - xz * yz) / ((1 - xz**2) * (1 - yz**2)) ** 0.5
        within = rows[pair] - rows.groupby(["operator", "architecture", "padding_mode"])[pair].transform("mean")
        means = rows.groupby("operator")[[*(row[0] for row in readings), "consistency"]].mean().corr("spearman")
        expected = {
            ("checkpoints", "spearman", ""): xy,
            ("checkpoints", "partial_spearman", "accuracy"): partial,
            ("operator means", "spearman", ""): means.loc[*pair],
            ("within operator", "within_pearson", ""): within.corr().iloc[0, 1],
        }
        for key, value in expected.items():
            assert shown[kind, *key] == pytest.approx(value, abs=6e-4)
        place = 1 if kind == "circular" else 2
        for row in readings:
            assert float(row[place]) == pytest.approx(means.loc[row[0], "consistency"], abs=6e-4)
        soft = rows[rows["operator"] == "soft"].groupby("strength")[["msb_corrected", "accuracy", "consistency"]].mean()
        for row in dose:
            numbers = [float(row[1]), float(row[2]), float(row[place + 2])]
            assert numbers == pytest.approx(soft.loc[float(row[0])].tolist(), abs=6e-4)


def test_the_verdict_is_that_of_the_assigned_operators(repository: Path) -> None:
    assigned, observed = (one.data["text/markdown"] for one in _outputs(_stored("4")) if "text/markdown" in one.data)
    found = statements(_frame(repository, "digits"), brief=True).query("role == 'primary' and statement == '1'")
    assert len(found) == 2
    for row in found.to_dict("records"):
        points = f"{row['points']:.1f} points ({row['points_low']:.1f} to {row['points_high']:.1f})"
        assert re.search(rf"\| {row['shift_kind']} shifts [^|]* \| {re.escape(points)} \|.*{row['verdict']}", assigned)
    assert observed.count("| 11 operators |") == 6


@pytest.mark.full
@pytest.mark.parametrize("number", BY_NUMBER)
def test_they_run_from_top_to_bottom_and_say_the_same(
    number: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number == "5":
        pytest.importorskip("altair")
    stored, notebook = _stored(number), _stored(number)
    for name, value in {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}.items():
        monkeypatch.setenv(name, value)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(BY_NUMBER[number].parent)}}).execute()
    assert not [output for output in _outputs(notebook) if output.get("name") == "stderr"]
    assert _printed(notebook) == _printed(stored)
    assert [one.get("data", {}).get("text/plain") for one in _outputs(notebook)] == [
        one.get("data", {}).get("text/plain") for one in _outputs(stored)
    ]
    assert [Image.open(io.BytesIO(png)).size for png in _pictures(notebook)] == [
        Image.open(io.BytesIO(png)).size for png in _pictures(stored)
    ]


@pytest.mark.full
def test_the_interactive_one_says_what_is_measured(repository: Path) -> None:
    """The consistency of its image, pair of shifts by pair of shifts, from predictions made here."""
    stored = _stored("5")
    found = next(one for one in iv.read_manifest(repository / "data" / "zoo") if one.name in stored.cells[1].source)
    model, data = iv.load_checkpoint(found), iv.load_dataset("digits", limit=4)
    image = (data.images[3:] / 255 - found.input.mean[0]) / found.input.std[0]
    moves = itertools.product(range(-4, 5), repeat=2)
    said = [int(model(torch.roll(image, move, (2, 3))).argmax()) for move in moves]
    pairs = [one == other for one, other in itertools.combinations(said, 2)]
    assert f"consistency of this image {sum(pairs) / len(pairs):.3f}" in _printed(stored)
