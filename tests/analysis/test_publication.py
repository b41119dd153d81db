"""The paper's tables: their numbers against plain pandas and scipy, and what each of the three formats looks like."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from invariscope import cli
from invariscope.analysis import drawing, publication
from invariscope.analysis.drawing import save_figures
from invariscope.analysis.figures import FIGURES
from invariscope.analysis.publication import PAPER_TABLES, Column, PaperTable, to_csv, to_latex, to_markdown
from invariscope.analysis.tables.frames import Frames, cost_frame, robustness_frame, segmentation_frame
from invariscope.analysis.tables.joined import join
from invariscope.analysis.tables.load import Tables
from invariscope.base.errors import TableError


@pytest.fixture(scope="module")
def tables(simulate: ModuleType, conditions: ModuleType) -> Tables:
    zoo = simulate.Zoo(seeds=3, epochs=(8.0, 24.0), padding_modes=("zeros",))
    return conditions.with_conditions(simulate.simulate_tables(zoo))


@pytest.fixture(scope="module")
def frame(tables: Tables) -> pd.DataFrame:
    return join(tables)


@pytest.fixture(scope="module")
def made(tables: Tables) -> dict[str, PaperTable]:
    """Every table of the simulated zoo, tips with two settings."""
    drawn = zip(tables.checkpoints["factors"], tables.checkpoints["seed"], strict=True)
    settings = tables.checkpoints.assign(
        factors=[json.dumps({**json.loads(told), "alpha": 0.0 if seed == 0 else 0.35}) for told, seed in drawn]
    )
    tables = dataclasses.replace(tables, checkpoints=settings)
    frames = Frames(tables)
    return {name: entry(*(frames[frame] for frame in entry.frames)) for name, entry in PAPER_TABLES.items()}


@pytest.mark.parametrize("name", PAPER_TABLES.own)
def test_every_table_is_imported_by_its_name(name: str) -> None:
    assert getattr(publication, name) is PAPER_TABLES[name].load()
    assert getattr(publication, name).__name__ == name


def one(table: PaperTable, **wanted: str) -> pd.Series:
    rows = table.rows
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    (row,) = [row for _, row in rows.iterrows()]
    return row


def assert_mean(row: pd.Series, key: str, values: pd.Series) -> None:
    low, high = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose([row[key], row[f"{key}_low"], row[f"{key}_high"]], [values.mean(), low, high], atol=1e-9)


def test_classification_gives_means_and_t_intervals_over_runs(frame: pd.DataFrame, made: dict) -> None:
    table = made["table_classification"]
    last = frame[(frame["epoch"] == 24) & (frame["operator_spec"] == "soft(beta=2)")]
    row = one(table, operator_spec="soft(beta=2)")
    for kind in ("circular", "zero"):
        of_kind = last[last["shift_kind"] == kind]
        assert_mean(row, f"consistency_{kind}", of_kind["consistency"])
        assert_mean(row, f"fidelity_{kind}", of_kind["fidelity"])
        assert_mean(row, "accuracy", of_kind["accuracy"])
        assert_mean(row, "msb_corrected", of_kind["msb_corrected"])
    assert (row["n"], row["runs"]) == (3, 3)
    specs = [f"soft(beta={b:g})" for b in (0, 0.5, 1, 2, 8, 32)]
    assert [spec for spec in table.rows["operator_spec"] if spec.startswith("soft")] == specs
    assert table.rows["operator_spec"].tolist()[:2] == ["max", "avg"]
    assert table.keys == ("operator_spec",)
    assert "All: architecture smallcnn, padding zeros." in table.caption
    count = frame["run"].nunique()
    assert f"{count} checkpoints, 11 operators, {count} operator × run clusters" in table.caption


def test_all_snapshots_count_runs_as_clusters(frame: pd.DataFrame) -> None:
    row = one(publication.table_classification(frame, snapshots="all"), operator_spec="max")
    assert (row["n"], row["runs"]) == (6, 3)
    rows = frame[(frame["operator_spec"] == "max") & (frame["shift_kind"] == "zero")]
    by_run = rows.groupby("run")["accuracy"].mean()
    assert row["accuracy"] == pytest.approx(by_run.mean())
    assert row["accuracy_high"] - row["accuracy"] == pytest.approx(stats.t.ppf(0.975, 2) * stats.sem(by_run))


def test_rows_are_told_apart_by_what_varies(simulate: ModuleType) -> None:
    zoo = simulate.Zoo(seeds=1, epochs=(8.0,), architectures=("smallcnn", "resnet8"))
    table = publication.table_classification(simulate.simulate_frame(zoo))
    assert table.keys == ("architecture", "padding_mode", "operator_spec")
    assert len(table.rows) == 2 * 2 * 22
    assert table.rows["accuracy_low"].isna().all()
    assert not table.cells()["accuracy"].str.contains("±").any()
    grouped = publication.table_classification(simulate.simulate_frame(zoo), by=("operator_spec",))
    assert grouped.rows["n"].tolist() == [4] * 22


@pytest.mark.parametrize("by", [(), ("opertor",)])
def test_unknown_keys_are_refused(frame: pd.DataFrame, by: tuple[str, ...]) -> None:
    with pytest.raises(TableError, match=r"unknown factor 'opertor': did you mean 'operator'|no name given"):
        publication.table_classification(frame, by=by)


@pytest.mark.parametrize("name", [name for name in PAPER_TABLES if name not in ("table_ablation", "table_drawn")])
@pytest.mark.parametrize("case", ["no operator", "one row", "no layers", "no data"])
def test_unusual_tables_are_made_or_refused_in_one_line(
    tables: Tables, made: dict[str, PaperTable], name: str, case: str
) -> None:
    described, first = tables.checkpoints, tables.checkpoints["sha256"].iloc[0]
    if case == "no operator":
        lost = dict.fromkeys(["operator", "operator_spec", "architecture", "run", "epoch", "strength"])
        edited = dataclasses.replace(tables, checkpoints=described.assign(**lost, factors="{}"))
    elif case == "one row":
        names = [field.name for field in dataclasses.fields(Tables)]
        kept = {n: getattr(tables, n) for n in names}
        edited = Tables(**{n: rows[rows["sha256"] == first] if len(rows) else rows for n, rows in kept.items()})
    elif case == "no layers":
        edited = dataclasses.replace(tables, layers=tables.layers.iloc[:0])
    else:
        empty = {n: getattr(tables, n).iloc[:0] for n in ("invariance", "robustness", "segmentation", "cost")}
        edited = dataclasses.replace(tables, **empty)
    entry = PAPER_TABLES[name]
    frames = Frames(edited)
    if case == "no data":
        with pytest.raises(TableError, match="collect") as error:
            entry(*(frames[frame] for frame in entry.frames))
        assert "\n" not in str(error.value)
        return
    table = entry(*(frames[frame] for frame in entry.frames))
    assert len(table.rows) == (22 if case == "no layers" else 1)
    assert set(publication.files(table)) == {"csv", "md", "tex", "txt"}
    assert ("msb_corrected" in table.rows) == ("msb_corrected" in made[name].rows and case != "no layers")


def test_segmentation_robustness_and_cost_equal_plain_groupings(tables: Tables, made: dict) -> None:
    last = tables.checkpoints.loc[tables.checkpoints["epoch"] == 24, "sha256"]
    seg = segmentation_frame(tables)
    seg = seg[seg["sha256"].isin(last) & (seg["operator_spec"] == "tips")]
    row = one(made["table_segmentation"], operator_spec="tips")
    assert_mean(row, "consistency_pixel_zero", seg.loc[seg["shift_kind"] == "zero", "consistency_pixel"])
    assert_mean(row, "miou", seg.loc[seg["shift_kind"] == "zero", "miou"])
    rob = robustness_frame(tables)
    rob = rob[rob["sha256"].isin(last) & (rob["operator_spec"] == "tips")]
    row = one(made["table_robustness"], operator_spec="tips")
    assert_mean(row, "pgd_linf_2", rob.loc[(rob["norm"] == "linf") & (rob["severity"] == 2 / 255), "accuracy"])
    corrupted = rob[rob["condition_kind"] == "corruption"].groupby("checkpoint")["accuracy"].mean()
    assert_mean(row, "mean_of_3_corruptions", corrupted)
    assert_mean(row, "clean", rob.loc[rob["condition_kind"] == "clean", "accuracy"])
    spent = cost_frame(tables)
    spent = spent[spent["sha256"].isin(last) & (spent["operator_spec"] == "tips")]
    row = one(made["table_cost"], operator_spec="tips")
    latency = spent[spent["quantity"] == "latency"]
    assert row["latency_ratio"] == pytest.approx(latency["relative"].median())
    assert row["latency_ratio_high"] == pytest.approx(latency["relative_high"].median())
    assert row["parameters"] == 5500


def test_ablation_has_a_row_per_setting(frame: pd.DataFrame, made: dict) -> None:
    table = made["table_ablation"]
    assert table.keys == ("factor_alpha", "operator_spec")
    assert table.rows["factor_alpha"].tolist() == ["0", "0.35"]
    assert table.rows["runs"].tolist() == [1, 2]
    assert to_markdown(table).startswith("| α | operator | accuracy | MSB |")
    with pytest.raises(TableError, match=r"two settings of tips or more.*alpha, failure_weight, wake_up"):
        publication.table_ablation(frame)


def test_ablation_has_a_column_for_what_the_operator_does_not_say(frame: pd.DataFrame) -> None:
    tips = frame[frame["operator"] == "tips"]
    hard = tips.assign(operator_spec="tips(hard=true)", checkpoint=tips["checkpoint"] + "-as-tips-hard")
    both = pd.concat([tips.assign(factor_hard="false"), hard.assign(factor_hard="true")], ignore_index=True)
    table = publication.table_ablation(both)
    assert table.keys == ("operator_spec",)
    assert table.rows["operator_spec"].tolist() == ["tips", "tips(hard=true)"]
    for _, row in table.rows.iterrows():
        last = tips[(tips["shift_kind"] == "zero") & (tips["epoch"] == 24)]
        assert_mean(row, "consistency_zero", last["consistency"])
    unsaid = publication.table_ablation(both.assign(operator_spec="tips"))
    assert unsaid.keys == ("factor_hard", "operator_spec")
    assert unsaid.rows["factor_hard"].tolist() == ["false", "true"]
    trained = both.assign(factor_failure_weight=np.where(both["operator_spec"] == "tips", 1.0, 0.0))
    assert publication.table_ablation(trained).keys == ("factor_failure_weight", "operator_spec")


@pytest.mark.parametrize("name", PAPER_TABLES)
def test_the_three_formats_say_the_same(made: dict, name: str) -> None:
    table = made[name]
    read = pd.read_csv(io.StringIO(to_csv(table)), dtype=dict.fromkeys(table.keys, str))
    for column in table.columns:
        np.testing.assert_allclose(read[column.key], table.rows[column.key].astype(float), rtol=1e-12)
    lines = to_markdown(table).splitlines()
    pipes = {line.count("|") for line in lines if line.startswith("|")}
    width = len(table.keys) + len(table.columns) + 2
    assert pipes == {width + 1}
    latex = to_latex(table)
    assert_whole(latex, width)
    first = table.cells().iloc[0]
    shown = first[table.columns[0].key]
    assert shown in lines[2]
    assert shown.replace("±", r"$\pm$").replace("−", "$-$") in latex
    assert table.caption.splitlines()[0] in "\n".join(lines)
    assert "n checkpoints" in table.caption or "n networks" in table.caption
    if name == "table_drawn":  # of what was assigned; nothing is measured
        assert "(no confidence interval)" in table.caption
        return
    assert "95 %" in table.caption or "quartiles" in table.caption
    assert "operator × run clusters" in table.caption


def assert_whole(latex: str, width: int) -> None:
    """Balanced, one booktabs table, every row as wide as the column layout, nothing beyond ASCII."""
    assert latex.isascii()
    for left, right in (("table", "table"), ("tabular", "tabular")):
        assert latex.count(rf"\begin{{{left}}}") == latex.count(rf"\end{{{right}}}") == 1
    plain = latex.replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    for rule in ("toprule", "midrule", "bottomrule"):
        assert latex.count(f"\\{rule}") == 1
    (layout,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", latex)
    assert len(layout) == width
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    for row in rows:
        spanned = sum(int(count) - 1 for count in re.findall(r"\\multicolumn\{(\d+)\}", row))
        assert len(re.findall(r"(?<!\\)&", row)) + 1 + spanned == width


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX here")
@pytest.mark.parametrize("name", PAPER_TABLES)
def test_latex_compiles(made: dict, name: str, tmp_path: Path) -> None:
    text = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n%s\\end{document}\n"
    (tmp_path / "table.tex").write_text(text % to_latex(made[name]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def small_table(**changes: object) -> PaperTable:
    rows = pd.DataFrame(
        {
            **{"group": ["a", "a", "b"], "operator_spec": ["x_1 & 50%", "y|z", "~{w}\\"]},
            **{"s": [0.91234, 0.9, np.nan], "s_low": [0.9, np.nan, np.nan], "s_high": [0.93, np.nan, np.nan]},
            **{"t": [-0.5, 2.0, 3.0], "t_low": [-0.6, 1.0, np.nan], "t_high": [-0.4, 3.0, np.nan]},
            **{"n": [3, 2, 1], "runs": [3, 2, 1]},
        }
    )
    columns = (Column("s", "score", "both", "max"), Column("t", "time", "both", "min", 1, "[]"))
    table = PaperTable("table_small", rows, ("group", "operator_spec"), columns, "A caption with 5 %.\nSecond line.")
    return dataclasses.replace(table, **changes)


def test_cells_and_bold_of_a_small_table() -> None:
    table = small_table()
    assert table.cells()["s"].tolist() == ["0.912 ± 0.015", "0.900", "–"]
    assert table.cells()["t"].tolist() == ["−0.5 [−0.6, −0.4]", "2.0 [1.0, 3.0]", "3.0"]
    assert table.bold()["s"].tolist() == [True, False, False]
    assert table.bold()["t"].tolist() == [True, False, False]
    tie = table.rows.assign(s=[0.91234, 0.91236, 0.5])
    assert small_table(rows=tie).bold()["s"].tolist() == [False, False, False]


def test_special_characters_are_escaped() -> None:
    assert to_markdown(small_table()) == (
        "| group | operator | both: score | both: time | n | runs |\n"
        "| --- | --- | ---: | ---: | ---: | ---: |\n"
        "| a | x_1 & 50% | **0.912 ± 0.015** | **−0.5 [−0.6, −0.4]** | 3 | 3 |\n"
        "| a | y\\|z | 0.900 | 2.0 [1.0, 3.0] | 2 | 2 |\n"
        "| b | ~{w}\\\\ | – | 3.0 | 1 | 1 |\n"
        "\nA caption with 5 %.\nSecond line.\n"
    )
    assert to_latex(small_table()).splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{A caption with 5 \%. Second line.}",
        r"\label{tab:small}",
        r"\begin{tabular}{llrrrr}",
        r"\toprule",
        r" &  & \multicolumn{2}{c}{both} &  &  \\",
        r"\cmidrule(lr){3-4}",
        r"group & operator & score & time & $n$ & runs \\",
        r"\midrule",
        r"a & x\_1 \& 50\% & \textbf{0.912 $\pm$ 0.015} & \textbf{$-$0.5 [$-$0.6, $-$0.4]} & 3 & 3 \\",
        r" & y\textbar{}z & 0.900 & 2.0 [1.0, 3.0] & 2 & 2 \\",
        r"\addlinespace",
        r"b & \textasciitilde{}\{w\}\textbackslash{} & -- & 3.0 & 1 & 1 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_tables_are_written_by_name_beside_the_figures(tables: Tables, tmp_path: Path) -> None:
    written = save_figures(tables, tmp_path, only=["table_classification", "table_cost"])
    names = {f"table_{name}.{kind}" for name in ("classification", "cost") for kind in ("csv", "md", "tex", "txt")}
    assert {path.name for path in written} == names == {path.name for path in tmp_path.iterdir()}
    again = save_figures(tables, tmp_path / "again", only=["table_cost"])
    assert [path.read_bytes() for path in again] == [(tmp_path / path.name).read_bytes() for path in again]


def test_a_table_without_rows_says_what_to_collect(tables: Tables, tmp_path: Path) -> None:
    empty = dataclasses.replace(
        tables, **{name: getattr(tables, name).iloc[:0] for name in ("robustness", "segmentation", "cost")}
    )
    told: dict[str, str] = {}
    names = ["table_classification", "table_segmentation", "table_robustness", "table_cost", "table_ablation"]
    written = save_figures(empty, tmp_path, only=names, skipped=lambda name, reason: told.update({name: reason}))
    assert {path.stem for path in written} == {"table_classification"}
    assert told.keys() == set(names[1:])
    for name in ("segmentation", "robustness", "cost"):
        assert told[f"table_{name}"] == f"table `{name}` holds no rows: collect `{name}` first"


def test_the_command_writes_tables_and_groups_what_it_skips(
    tables: Tables, simulate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = simulate.write_tables(tables, tmp_path / "tables")
    names = "table_classification,robustness,table_robustness"
    code = cli.main(["figures", str(folder), "--out", str(tmp_path / "out"), "--only", names])
    assert code == cli.DONE
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"table: {tmp_path / 'out' / f'table_classification.{kind}'}" for kind in ("csv", "md", "tex", "txt")
    ]
    assert printed.err == (
        "skipped robustness, table_robustness: table `robustness` holds no rows: collect `robustness` first\n"
    )
    code = cli.main(["figures", str(folder), "--out", str(tmp_path / "out"), "--only", "table_csot"])
    assert code == cli.BAD_INPUT
    assert "unknown figure or table of the paper 'table_csot': did you mean 'table_cost'" in capsys.readouterr().err


def test_the_page_names_every_figure_and_table(repository: Path) -> None:
    page = (repository / "docs" / "figures.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.M)) == sorted([*FIGURES, *PAPER_TABLES])


def test_the_page_s_examples_run(
    repository: Path, simulate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """All figures in the full run; each is drawn elsewhere."""
    if not os.environ.get("INVARISCOPE_FULL"):
        monkeypatch.setattr(drawing, "FIGURES", {"msb_by_operator": FIGURES["msb_by_operator"]})
    tables = simulate.simulate_tables(simulate.Zoo(n_operators=5, seeds=2, epochs=(8.0,), padding_modes=("zeros",)))
    page = (repository / "docs" / "figures.md").read_text()
    notebook, frames, own, published = re.findall(r"```python\n(.*?)```", page, re.S)
    simulate.write_tables(tables, tmp_path / "out" / "tables")
    rows = [f"m{place},{40 + place},{30 + place}" for place in range(8)]
    (tmp_path / "imagenet_testbed_top1.csv").write_text("\n".join(["model,val,imagenet-vid-robust_pm10", *rows]))
    monkeypatch.chdir(tmp_path)
    session: dict[str, Any] = {}
    exec(notebook, session)
    assert capsys.readouterr().out.startswith(r"\begin{table}")
    exec(frames, session)
    assert session["drawn"].figures
    mine: dict[str, Any] = {}
    exec(own, mine)
    figure = mine["accuracy_bars"](join(tables))
    assert len(figure.axes[0].patches) == len(join(tables))
    exec(published, {})
    assert (tmp_path / "testbed.png").read_bytes().startswith(b"\x89PNG")
