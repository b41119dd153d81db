"""The notebooks run from top to bottom, the first four are stored without outputs, and their words are true."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
from pathlib import Path

import nbformat
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import invariscope as iv
from invariscope.analysis import join, load
from invariscope.analysis.designs.assigned_statements import statements

TABLES = "../data/reference/published"
NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


def _executed(path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for old, new in changes.items():
            cell.source = cell.source.replace(old, new)
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(path.parent)}}).execute()
    return notebook


def _printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    return "".join(output["text"] for output in outputs if output.output_type == "stream")


@pytest.fixture(scope="module")
def notebook_path() -> dict[str, Path]:
    return {path.stem.partition("_")[0]: path for path in NOTEBOOKS}


@pytest.fixture(scope="module")
def last_snapshots(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables that the notebooks look at, without earlier snapshots: half the work."""
    folder, source = tmp_path_factory.mktemp("tables"), repository / "data" / "reference" / "published"
    described = ds.dataset(source / "checkpoints").to_table().to_pandas()
    last = described.loc[described["epoch"] == described.groupby("run")["epoch"].transform("max"), "checkpoint"]
    for table in source.iterdir():
        (folder / table.name).mkdir()
        for part in table.iterdir():
            rows = pq.read_table(part).filter(ds.field("checkpoint").isin(last.tolist()))
            pq.write_table(rows, folder / table.name / part.name)
    return folder


def test_there_are_five() -> None:
    assert [path.name for path in NOTEBOOKS] == [
        "1_measure_one_model.ipynb",
        "2_explore_a_zoo.ipynb",
        "3_figures.ipynb",
        "4_what_msb_explains.ipynb",
        "5_move_an_image.ipynb",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS[:4], ids=lambda path: path.stem)
def test_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_interactive_one_opens_with_a_picture_and_is_small(notebook_path: dict[str, Path]) -> None:
    notebook = nbformat.read(notebook_path["5"], as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 12
    assert len(notebook.cells[0].attachments["moved.png"]["image/png"]) < 200_000
    (chart,) = (
        output.data["text/html"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output
    )
    assert "vegaEmbed" in chart
    assert len(chart) < 200_000


@pytest.mark.full
def test_the_interactive_one_says_what_is_measured(
    notebook_path: dict[str, Path], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consistency of its image, pair of shifts by pair of shifts, from predictions made here."""
    pytest.importorskip("altair")
    stored = nbformat.read(notebook_path["5"], as_version=4)
    printed = _printed(_executed(notebook_path["5"], repository, monkeypatch))
    assert printed == _printed(stored)
    found = next(one for one in iv.read_manifest(repository / "data" / "zoo") if one.name in stored.cells[1].source)
    model, data = iv.load_checkpoint(found), iv.load_dataset("digits", limit=4)
    image = (data.images[3:] / 255 - found.input.mean[0]) / found.input.std[0]
    moves = itertools.product(range(-4, 5), repeat=2)
    said = [int(model(torch.roll(image, move, (2, 3))).argmax()) for move in moves]
    pairs = [one == other for one, other in itertools.combinations(said, 2)]
    assert f"consistency of this image {sum(pairs) / len(pairs):.3f}" in printed


@pytest.mark.full
def test_one_model(notebook_path: dict[str, Path], repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = _printed(_executed(notebook_path["1"], repository, monkeypatch))
    found = re.search(r"MSB runs from (\S+) \(\S+\) to (\S+) \(\S+\); the network's own is .*, (\S+)\.\n", printed)
    lowest, highest, mean = map(float, found.groups())
    assert 0 < lowest <= mean <= highest < 1
    changes = re.findall(r"(\S+): MSB (\S+) -> (\S+), consistency (\S+) \((?:in|out)side", printed)
    assert [name for name, *_ in changes] == ["stage1.down", "stage2.down", "stage3.down"]
    assert all(float(after) < float(before) for _, before, after, _ in changes)
    helped = sum(float(change) > 0 for *_, change in changes)
    assert f"more consistency at {helped} of 3 layers" in printed


def test_a_zoo(notebook_path: dict[str, Path], repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = _printed(_executed(notebook_path["2"], repository, monkeypatch))
    frame = join(load(repository / "data" / "reference" / "published"))
    assert f"{len(frame)} rows, {frame['checkpoint'].nunique()} checkpoints" in printed
    rows = frame[frame["final"] & (frame["architecture"] == "smallcnn") & (frame["shift_kind"] == "circular")]
    means = {name: of["consistency"].mean() for name, of in rows.groupby("operator")}
    worst = min(means, key=means.__getitem__)
    assert f"{max(means, key=means.__getitem__)} is the most consistent" in printed
    assert f"{worst} the least ({means[worst]:.2f}" in printed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_they_import_is_there(path: Path) -> None:
    """The quick run runs only the second of them."""
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    cells = [re.sub(r"^%.*$", "", source, flags=re.M) for source in code]
    nodes = [part for source in cells for part in ast.walk(ast.parse(source))]
    parts = [part for part in nodes if isinstance(part, ast.ImportFrom)]
    facade = [part.attr for part in nodes if isinstance(part, ast.Attribute) and ast.unparse(part.value) == "iv"]
    assert parts or facade
    assert all(hasattr(iv, name) for name in facade)
    for part in parts:
        for alias in part.names:
            assert hasattr(importlib.import_module(str(part.module)), alias.name)


@pytest.mark.full
def test_figures(
    notebook_path: dict[str, Path], repository: Path, monkeypatch: pytest.MonkeyPatch, last_snapshots: Path
) -> None:
    from invariscope.analysis.figures import FIGURES
    from invariscope.analysis.publication import PAPER_TABLES

    notebook = _executed(notebook_path["3"], repository, monkeypatch, **{TABLES: str(last_snapshots)})
    shown = [o for cell in notebook.cells for o in cell.get("outputs", []) if "data" in o]
    titles = [o["data"]["text/markdown"] for o in shown if o["data"].get("text/markdown", "").startswith("## ")]
    told = re.findall(r"^(\w+): ", _printed(notebook), re.M)
    names = [title.split()[1] for title in titles]
    assert sorted(names + told) == sorted([*FIGURES, *PAPER_TABLES])
    assert sum("image/png" in o["data"] for o in shown) == len([name for name in names if name in FIGURES]) + 2


@pytest.mark.full
def test_what_msb_explains(
    notebook_path: dict[str, Path], repository: Path, monkeypatch: pytest.MonkeyPatch, last_snapshots: Path
) -> None:
    notebook = _executed(notebook_path["4"], repository, monkeypatch, **{TABLES: str(last_snapshots)})
    printed = _printed(notebook)
    found = statements(join(load(repository / "data" / "reference" / "digits")), brief=True)
    for row in found[found["role"] == "primary"].to_dict("records"):
        assert f"{row['shift_kind']}: {row['quantity']} {row['estimate']:+.2f} ({row['low']:+.2f} to " in printed
    rows = join(load(repository / "data" / "reference" / "published")).query("final and shift_kind == 'zero'")
    raw = rows[["msb_corrected", "accuracy", "consistency"]].rank().corr()
    assert f"zero: Spearman over checkpoints {raw.loc['msb_corrected', 'consistency']:+.3f} (" in printed
    assert f"zero: Spearman of accuracy with consistency {raw.loc['accuracy', 'consistency']:+.3f} (" in printed
    means = rows.groupby("operator")[["msb_corrected", "consistency"]].mean().corr("spearman").iloc[0, 1]
    assert f"zero: Spearman over operator means {means:+.3f} (" in printed
    assert "an estimate from 11 clusters, no statement of significance" in printed
    within = rows[["msb_corrected", "consistency"]] - rows.groupby(["operator", "architecture", "padding_mode"])[
        ["msb_corrected", "consistency"]
    ].transform("mean")
    assert f"zero: Pearson within operators {within.corr().iloc[0, 1]:+.3f} (" in printed
    soft = rows[rows["operator"] == "soft"].groupby("strength")["consistency"].mean()
    assert f"zero: consistency goes from {soft.iloc[0]:.2f} to {soft.iloc[-1]:.2f}, down in" in printed
    for low, high, meaning in re.findall(r"\((\S+) to (\S+)\), the interval (excludes|includes) zero", printed):
        assert (meaning == "includes") == (float(low) <= 0 <= float(high))


def _guard(path: Path) -> str:
    """The lines of a notebook that read the tables."""
    (cell,) = (cell for cell in nbformat.read(path, as_version=4).cells if "load(TABLES)" in cell.source)
    return cell.source[cell.source.index("TABLES =") :].partition("\n\n")[0]


@pytest.mark.parametrize("number", ["3", "4"])
def test_tables_are_read_alike(number: str, notebook_path: dict[str, Path]) -> None:
    assert _guard(notebook_path[number]) == _guard(notebook_path["2"])


@pytest.mark.parametrize("number", ["2", *(pytest.param(number, marks=pytest.mark.full) for number in "34")])
def test_missing_tables_are_told_in_one_line(
    number: str, notebook_path: dict[str, Path], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CellExecutionError) as stop:
        _executed(notebook_path[number], repository, monkeypatch, **{TABLES: "nowhere"})
    assert stop.value.ename == "SystemExit"
    assert stop.value.evalue.startswith("No tables to look at: nowhere: no such folder of tables; make one with")
