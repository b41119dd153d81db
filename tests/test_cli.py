"""The command line: what it prints, its exit codes, and one clear line for every bad input."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from invariscope import cli
from invariscope.zoo.loading import build_model

ENTRY = """
  - name: {name}
    model: {model}
    weights: {weights}
    input: {{size: 32, mean: 0.5, std: 0.25}}
    labels: digits
    factors: {{operator: {name}, run: {name}}}
"""
MODEL = "zoo:smallcnn?operator={operator}&width=4&in_channels=1"


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    folder = tmp_path / "zoo"
    folder.mkdir()
    text = "checkpoints:"
    for operator in ("max", "avg"):
        model = MODEL.format(operator=operator)
        torch.manual_seed(0)
        save_file(build_model(model).state_dict(), folder / f"{operator}.safetensors")
        text += ENTRY.format(name=operator, model=model, weights=f"{operator}.safetensors")
    (folder / "zoo.yaml").write_text(text)
    return folder


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    return error


def test_collect_then_analyze_then_figures(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = tmp_path / "tables"
    command = ("collect", zoo, "--data", "digits", "--out", tables, "--limit", 40, "--msb-images", 8)
    assert run(*command) == cli.DONE
    assert "10 tasks measured, 0 were done, 0 failed" in capsys.readouterr().out
    assert run(*command) == cli.DONE
    assert "0 tasks measured, 10 were done, 0 failed" in capsys.readouterr().out
    assert run("analyze", tables, "--out", tmp_path / "results", "--power") == cli.DONE
    tables_of_results = ("correlations", "regressions", "influence", "comparisons", "sites", "designs", "power")
    assert {path.name for path in (tmp_path / "results").iterdir()} == {
        *(f"{name}.csv" for name in tables_of_results),
        "summary.md",
        "headline.png",
    }
    summary = (tmp_path / "results" / "summary.md").read_text(encoding="utf-8")
    assert "![Does maximum-sampling bias go with shift invariance?](headline.png)" in summary
    verdict = summary.splitlines()[2].strip("*")
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == verdict
    assert printed.count("between operators: ") == 2
    assert f"results: {tmp_path / 'results' / 'power.csv'}" in printed
    code = run("figures", tables, "--out", tmp_path / "figures", "--only", "msb_invariance", "--format", "png,svg")
    assert code == cli.DONE
    drawn = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert drawn == ["msb_invariance.png", "msb_invariance.svg", "msb_invariance.txt"]
    capsys.readouterr()
    assert run("report", tables, "--out", tmp_path / "pages" / "report.html") == cli.DONE
    assert capsys.readouterr().out == f"report: {tmp_path / 'pages' / 'report.html'}\n"
    page = (tmp_path / "pages" / "report.html").read_text(encoding="utf-8")
    summary = (tmp_path / "results" / "summary.md").read_text(encoding="utf-8")
    assert verdict in page
    assert run("report", tables, "--out", tmp_path / "pages") == cli.BAD_INPUT
    assert "is a folder and no file: name a file" in one_line(capsys)


def test_demo_loads_joins_analyses_and_draws_once_for_all_it_writes(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import invariscope.analysis.drawing
    import invariscope.analysis.study
    import invariscope.analysis.tables.joined
    import invariscope.analysis.tables.load

    calls = []

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            calls.append(function.__name__)
            return function(*arguments, **options)

        return call

    for module, name in (
        (invariscope.analysis.study, "analyze"),
        (invariscope.analysis.drawing, "draw_figures"),
        (invariscope.analysis.tables.joined, "join"),
        (invariscope.analysis.tables.load, "load"),
    ):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    monkeypatch.setattr("invariscope.data.ZOO", zoo)
    monkeypatch.setattr("invariscope.cli.demo.DEMO_IMAGES", 20)
    assert run("demo", "--out", tmp_path / "demo", "--jobs", 1) == cli.DONE
    assert sorted(calls) == ["analyze", "draw_figures", "join", "load"]
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"tables", "results", "figures", "report.html"}
    printed = capsys.readouterr().out
    for path in (tmp_path / "demo" / "figures" / "msb_invariance.png", tmp_path / "demo" / "report.html"):
        assert f": {path}\n" in printed
        assert path.stat().st_size > 10_000


def test_only_the_named_checkpoints_are_measured(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("collect", zoo, "--data", "digits", "--out", tmp_path / "t", "--limit", 10, "--collect", "checkpoints")
    assert run(*command, "--only", "m*") == cli.DONE
    assert pq.read_table(tmp_path / "t" / "checkpoints").to_pandas()["checkpoint"].tolist() == ["max"]
    assert run(*command, "--only", "resnet*") == cli.BAD_INPUT
    assert "has such a name (max is one)" in one_line(capsys)


def test_swaps_are_collected_analysed_and_drawn(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = tmp_path / "tables"
    command = ("collect", zoo, "--data", "digits", "--out", tables, "--limit", 20, "--msb-images", 8)
    command += ("--collect", "layers,invariance,swaps", "--shift", "zero", "--swap-images", 6)
    assert run(*command, "--swap-to", "max, soft(1, kernel=2)") == cli.DONE
    rows = pq.read_table(tables / "swaps").to_pandas()
    assert set(rows["replacement"]) == {"max", "soft(beta=1, kernel=2)"}
    assert set(rows.loc[rows["checkpoint"] == "max", "replacement"]) == {"soft(beta=1, kernel=2)"}
    assert set(rows["n_images"]) == {6}
    assert run("analyze", tables, "--out", tmp_path / "results") == cli.DONE
    assert not (tmp_path / "results" / "power.csv").exists()
    # Two untrained networks say one class of everything, before and after.
    summary = (tmp_path / "results" / "summary.md").read_text()
    assert "**Swaps, single sites** (zero shifts up to 4 px on digits/test): no number (" in summary
    assert run("figures", tables, "--out", tmp_path / "figures", "--only", "swap") == cli.DONE
    capsys.readouterr()
    assert run(*command, "--swap-to", "tips") == cli.BAD_INPUT
    assert "tips has parameters of its own" in one_line(capsys)


def test_a_failing_checkpoint_gives_exit_code_3(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"stray": torch.zeros(1)}, zoo / "avg.safetensors")
    command = ("collect", zoo, "--data", "digits", "--out", tmp_path / "t", "--limit", 20, "--collect", "checkpoints")
    assert run(*command) == cli.WITH_FAILURES
    printed = capsys.readouterr()
    assert "1 tasks measured, 0 were done, 1 failed" in printed.out
    assert "stray" in printed.err
    assert "Traceback" not in printed.err
    [row] = pq.read_table(tmp_path / "t" / "failures").to_pylist()
    assert (row["checkpoint"], row["stage"], row["error"]) == ("avg", "load", "WeightsError")


def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    (zoo / "max.pth").write_bytes(pickle.dumps({"state_dict": Hostile()}))
    text = (zoo / "zoo.yaml").read_text().replace("max.safetensors", "max.pth")
    (zoo / "zoo.yaml").write_text(text)
    command = ("collect", zoo, "--data", "digits", "--out", tmp_path / "t", "--limit", 20, "--collect", "checkpoints")
    assert run(*command) == cli.WITH_FAILURES
    assert "max: load: WeightsError" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (None, ["--data", "digit"], "unknown data set 'digit': did you mean 'digits'? known are"),
        (None, ["--data", "parquet:nowhere.parquet"], "nowhere.parquet"),
        (None, ["--data", "digits", "--shift", "circle"], "unknown shift kind 'circle': did you mean 'circular'?"),
        (None, ["--data", "digits", "--collect", "layer"], "unknown collector 'layer': did you mean 'layers'?"),
        (None, ["--data", "digits", "--jobs", "0"], "--jobs is 0"),
        (None, ["--data", "digits", "--batch-size", "0"], "--batch-size is 0"),
        (("operator=max", "operator=maxx"), ["--data", "digits"], "zoo.yaml"),
        (("operator=max", "operator=maxx"), ["--data", "digits"], "unknown operator 'maxx': did you mean 'max'?"),
        (("max.safetensors", "gone.safetensors"), ["--data", "digits"], "gone.safetensors"),
        (("checkpoints:", "checkpoint:"), ["--data", "digits"], "checkpoints"),
        (("size: 32", "size: small"), ["--data", "digits"], "size"),
        (("checkpoints:", "checkpoints: ["), ["--data", "digits"], "zoo.yaml"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    zoo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, str] | None,
    arguments: list[str],
    message: str,
) -> None:
    if change:
        (zoo / "zoo.yaml").write_text((zoo / "zoo.yaml").read_text().replace(*change))
    assert run("collect", zoo, "--out", tmp_path / "t", *arguments) == cli.BAD_INPUT
    assert message in one_line(capsys)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_missing_manifest_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("collect", tmp_path / "none", "--data", "digits", "--out", tmp_path / "t") == cli.BAD_INPUT
    assert str(tmp_path / "none") in one_line(capsys)


@pytest.mark.parametrize("command", ["analyze", "figures", "report"])
@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_tables_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, folder: str
) -> None:
    (tmp_path / "empty").mkdir()
    assert run(command, tmp_path / folder, "--out", tmp_path / "out") == cli.BAD_INPUT
    assert str(tmp_path / folder) in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_status_compact_and_dry_run(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = tmp_path / "t"
    command = ("collect", zoo, "--data", "digits", "--out", tables, "--limit", 20, "--msb-images", 4)
    assert run(*command, "--dry-run") == cli.DONE
    printed = capsys.readouterr().out
    assert printed.splitlines() == [
        "to do: checkpoints: 2 tasks",
        "to do: layers: 2 tasks",
        "to do: invariance: 6 tasks",
        "10 tasks to do, 0 are done; nothing was written",
    ]
    assert not tables.exists()
    assert run("status", tables) == cli.BAD_INPUT
    assert "holds no tables" in one_line(capsys)

    whole = (zoo / "avg.safetensors").read_bytes()
    (zoo / "avg.safetensors").write_bytes(whole[:-1])
    assert run(*command) == cli.WITH_FAILURES
    capsys.readouterr()
    assert run("status", tables, zoo) == cli.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"tables: {tables} (15 parts)"
    assert lines[1] == "checkpoints: 1 done, 1 to do (avg)"
    assert "layers: digits/test: 1 done, 1 to do (avg)" in lines
    assert "invariance: digits/test, none: 1 done, 1 to do (avg)" in lines
    zero = "invariance: digits/test, zero, background, max_shift 4, n_shifts 9, sampled: 1 done, 1 to do (avg)"
    assert zero in lines
    (failed,) = [line for line in lines if line.startswith("failed: avg: load: WeightsError: ")]
    assert failed.endswith(" (5 tasks)")
    assert "last run: 5 tasks measured, 0 were done, 5 failed (" in lines[-1]

    (zoo / "avg.safetensors").write_bytes(whole)
    assert run("compact", tables) == cli.DONE
    assert "invariance: 3 parts -> 1 (17 rows)" in capsys.readouterr().out
    assert run(*command, "--dry-run") == cli.DONE
    assert "5 tasks to do, 5 are done; nothing was written" in capsys.readouterr().out
    assert run(*command) == cli.DONE
    capsys.readouterr()
    assert run("status", tables) == cli.DONE
    assert capsys.readouterr().out.splitlines()[1:3] == ["checkpoints: 2 done", "layers: digits/test: 2 done"]


def test_a_finished_run_is_seen_to_be_finished_without_torch(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name in ("a", "b"):
        (data / name).mkdir(parents=True)
        Image.new("L", (32, 32), 40).save(data / name / "0.png")
    command = ["collect", str(zoo), "--data", f"imagefolder:{data}", "--out", str(tmp_path / "t"), "--shift", ""]
    arguments = [*command, "--collect", "checkpoints,invariance"]
    assert run(*arguments) == cli.DONE
    time.sleep(2.1)  # files that lay unchanged for a moment are known by their times
    assert run(*arguments) == cli.DONE
    code = "import sys; from invariscope import cli; code = cli.main(sys.argv[1:]);"
    code += " sys.exit(code or 50 * ('torch' in sys.modules))"

    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, "0 tasks measured, 4 were done, 0 failed" in done.stdout) == (0, True), done.stderr
    Image.new("L", (32, 32), 41).save(data / "b" / "0.png")
    capsys.readouterr()
    assert run(*arguments) == cli.DONE
    assert "2 tasks measured, 2 were done, 0 failed" in capsys.readouterr().out


def test_code_and_paths_outside_are_the_users_to_allow(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (zoo / "zoo.yaml").read_text()
    (zoo / "net.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()\nbuild = None\n")
    (zoo / "zoo.yaml").write_text(text.replace(MODEL.format(operator="max"), "python:net.py:build"))
    command = ("collect", zoo, "--data", "digits", "--out", tmp_path / "t", "--limit", 20)
    assert run(*command) == cli.BAD_INPUT
    assert "runs the code of" in (line := one_line(capsys))
    assert "give --allow-code" in line
    assert not (zoo / "ran").exists()

    (zoo / "max.safetensors").rename(tmp_path / "max.safetensors")
    (zoo / "link.safetensors").symlink_to(tmp_path / "max.safetensors")
    for weights in ("../max.safetensors", str(tmp_path / "max.safetensors"), "link.safetensors"):
        (zoo / "zoo.yaml").write_text("allow_outside: true\n" + text.replace("max.safetensors", weights))
        assert run(*command, "--dry-run") == cli.BAD_INPUT
        assert "lies outside of the zoo's folder: move it inside, or give --allow-outside" in one_line(capsys)
        assert run(*command, "--dry-run", "--allow-outside") == cli.DONE
        capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scheduler", "tcp://127.0.0.1:1"], "give --backend dask as well"),
        (["--backend", "dask"], "dask needs the address of its scheduler"),
        (["--backend", "nothing"], "joblib has no backend 'nothing' here"),
        (["--backend", "threading", "--time-limit", "5"], "the backend threading cannot stop a task"),
        (["--time-limit", "0"], "the time limit is 0 s: give a number above 0"),
    ],
)
def test_backends_that_cannot_be_had(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    command = ("collect", zoo, "--data", "digits", "--out", tmp_path / "t", "--limit", 20)
    assert run(*command, *arguments) == cli.BAD_INPUT
    assert message in one_line(capsys)


@pytest.mark.parametrize(
    "option",
    [
        ["--data", "python:mine.py:load"],
        ["--data", "digits", "--collect", "robustness", "--second-data", "python:mine.py:load"],
        ["--data", "digits", "--collect", "swaps", "--swap-to", "max,python:mine.py:Mine"],
    ],
)
def test_no_code_holds_for_whatever_may_name_a_file(
    zoo: Path, tmp_path: Path, option: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("import pathlib; pathlib.Path('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    assert run("collect", zoo, "--out", tmp_path / "t", *option) == cli.BAD_INPUT
    assert "runs the code of mine.py: read it, then give --allow-code" in one_line(capsys)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_figure_is_refused(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("collect", zoo, "--data", "digits", "--out", tmp_path / "t", "--limit", 20, "--msb-images", 4)
    capsys.readouterr()
    code = run("figures", tmp_path / "t", "--out", tmp_path / "f", "--only", "msb_invariant")
    assert code == cli.BAD_INPUT
    assert "msb_invariance" in one_line(capsys)


def test_ctrl_c_leaves_whole_parts_and_says_how_to_go_on(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("invariscope.collectors.measure.msb.measure_msb", stop)
    command = ("collect", zoo, "--data", "digits", "--out", tmp_path / "t", "--limit", 20)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # processes of a parallel run ignore it
    try:
        assert run(*command) == cli.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    error = capsys.readouterr().err
    assert "the same command goes on from there" in error
    assert "Traceback" not in error
    assert list((tmp_path / "t").rglob("checkpoints/*.parquet"))
    for path in (tmp_path / "t").rglob("*.parquet"):
        pq.read_table(path)
    assert not list((tmp_path / "t").rglob("*.tmp"))


def test_status_reaches_outside_of_the_zoo_as_little_as_collect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (tmp_path / "evil.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()\nbuild = None\n")
    (zoo / "w.safetensors").write_bytes(b"")
    entry = "- {name: n, model: 'python:../evil.py:build', weights: w.safetensors}"
    (zoo / "zoo.yaml").write_text(f"allow_outside: true\ncheckpoints:\n  {entry}\n")
    assert run("status", tmp_path / "tables", zoo) == cli.BAD_INPUT
    assert "--allow-outside" in one_line(capsys)
    assert not (tmp_path / "ran").exists()
