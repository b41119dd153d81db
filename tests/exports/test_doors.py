"""Croissant, model cards, experiment trackers and the command: read back by what they are for, or by what it would
be given."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import invariscope as iv
from invariscope import cli
from invariscope.analysis.exports import EXPORTERS
from invariscope.analysis.exports.mlflow_runs import accepted
from invariscope.analysis.exports.tracked import tracked_runs
from invariscope.base.errors import OutputError, TableError

NAME = "resnet8-avg-circular-s0-e018"


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "data" / "reference" / "published"


@pytest.fixture(scope="module")
def published(folder: Path) -> Any:
    return iv.load(folder)


@pytest.fixture
def described(folder: Path, tmp_path: Path) -> dict[str, Any]:
    """The metadata of a folder of copies of published tables, one of which has two parts."""
    for part in sorted(folder.glob("*/*.parquet")):
        (tmp_path / part.parent.name).mkdir()
        shutil.copy(part, tmp_path / part.parent.name / part.name)
    (part,) = (tmp_path / "swaps").iterdir()
    shutil.copy(part, part.with_name("compacted-other.parquet"))
    (path,) = iv.export(tmp_path, tmp_path / "croissant.json", license="https://spdx.org/licenses/MIT.html")
    made: dict[str, Any] = json.loads(path.read_text())
    return made


def test_croissant_names_every_file_and_column(described: dict[str, Any], tmp_path: Path) -> None:
    assert described["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    files = {one["@id"]: one for one in described["distribution"]}
    sets = {one["@id"]: one for one in described["recordSet"]}
    assert set(sets) == {"checkpoints", "layers", "invariance", "surface", "swaps"}
    for table, found in sets.items():
        (part, *more) = sorted((tmp_path / table).iterdir())
        file = files[f"{table}-parquet"]
        if more:
            assert (file["@type"], file["includes"]) == ("cr:FileSet", "swaps/*.parquet")
        else:
            assert (tmp_path / file["contentUrl"]) == part
            assert file["sha256"] == sha256(part.read_bytes()).hexdigest()
        columns = pq.read_schema(part).names
        fields = {one["source"]["extract"]["column"]: one for one in found["field"]}
        assert set(fields) <= set(columns)
        assert set(columns) - set(fields) == set(), "a column that is not described"
    (shift,) = (one for one in sets["invariance"]["field"] if one["name"] == "max_shift")
    assert shift["dataType"] == "sc:Integer"
    assert shift["description"] == "largest displacement along each axis; 0 without a shift [input pixels]"


def test_croissant_is_read_by_its_own_library(described: dict[str, Any], tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json"))
    assert dataset.metadata.ctx.issues.errors == set()
    first = next(iter(dataset.records("checkpoints")))
    assert first["checkpoints/n_params"] == 4934


def test_croissant_at_an_address_and_beside_the_folder(folder: Path, tmp_path: Path) -> None:
    (path,) = iv.export(folder, tmp_path / "c.json", url="https://example.org/tables/")
    one = json.loads(path.read_text())["distribution"][0]
    assert one["contentUrl"].startswith("https://example.org/tables/checkpoints/compacted-")
    with pytest.raises(TableError, match="write it into"):
        iv.export(folder, tmp_path / "d.json")


def test_a_model_card_has_the_scores(published: Any, tmp_path: Path) -> None:
    (path,) = iv.export(published, tmp_path / "card.yaml", only=NAME, name="me/net", url="https://example.org")
    (entry,) = yaml.safe_load(path.read_text())["model-index"]
    (result,) = entry["results"]
    rows = published.invariance[published.invariance["checkpoint"] == NAME]
    found = {(one["type"], one["args"].get("shift_kind", "none")): one for one in result["metrics"]}
    rows = rows[rows["value"].notna() & ~rows["score"].isin(["fidelity_product", "stability"])]
    assert set(found) == set(zip(rows["score"], rows["shift_kind"], strict=True))
    for row in rows.itertuples():
        one = found[row.score, row.shift_kind]
        assert one["value"] == pytest.approx(row.value, abs=1e-6)
        assert f"{row.low:.4f} to {row.high:.4f}" in one["name"]
    assert result["metrics"][0]["type"] == "accuracy"
    hub = pytest.importorskip("huggingface_hub.repocard_data")
    name, results = hub.model_index_to_eval_results([entry])
    assert (name, len(results)) == ("me/net", len(rows))
    assert {one.dataset_split for one in results} == {"test"}


def test_a_run_has_its_snapshots_in_order(published: Any) -> None:
    described = published.checkpoints.copy()
    old = described[described["checkpoint"] == NAME].iloc[0]
    described.loc[described["checkpoint"] == "resnet8-avg-circular-s1-e018", ["run", "epoch"]] = [old["run"], 3.0]
    tables = iv.Tables(**{**vars(published), "checkpoints": described})
    (run,) = tracked_runs(iv.wide_table(tables, "resnet8-avg-circular-s[01]-e018"))
    assert run.name == old["run"]
    assert [step for step, _ in run.steps] == [3, 18]
    assert run.settings["operator"] == "avg"
    assert "seed" not in run.settings, "they differ in it"
    scores = published.invariance.set_index(["checkpoint", "shift_kind", "score"])["value"]
    assert run.steps[1][1]["consistency_circular_4px"] == scores[NAME, "circular", "consistency"]
    assert run.steps[1][1]["epoch"] == 18


class FakeRun:
    """What the exporter does with a run of wandb."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given, self.logged, self.dir = given, list[Any](), "/runs/offline/files"

    def __enter__(self) -> FakeRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True

    def log(self, scores: dict[str, float], step: int) -> None:
        self.logged.append((step, scores))


def test_wandb_is_given_runs_and_stays_offline(published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FakeRun] = []
    client = ModuleType("wandb")
    client.Settings = lambda **given: SimpleNamespace(**given)  # type: ignore[attr-defined]
    client.init = lambda **given: made.append(FakeRun(given)) or made[-1]  # type: ignore[attr-defined, func-returns-value]
    monkeypatch.setitem(sys.modules, "wandb", client)
    iv.export(published, tmp_path / "runs", to="wandb", only="resnet8-avg-circular-s*", name="mine")
    assert [run.given["name"] for run in made] == [f"resnet8-avg-circular-s{seed}" for seed in range(3)]
    assert {run.given["mode"] for run in made} == {"offline"}
    assert {run.given["project"] for run in made} == {"mine"}
    assert made[0].given["config"]["architecture"] == "resnet8"
    assert made[0].ended
    ((step, scores),) = made[0].logged
    assert step == 18
    assert scores["accuracy"] == 0.94


class FakeClient:
    """What the exporter does with MLflow's client, which refuses the value ``bad``."""

    def __init__(self, tracking_uri: str) -> None:
        self.calls = CALLS

    def get_experiment_by_name(self, name: str) -> None: ...

    def create_experiment(self, name: str, place: str) -> str:
        return name

    def create_run(self, experiment: str, run_name: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(start_time=7, run_id=run_name))

    def log_batch(self, run: str, metrics: list[Any], params: list[Any]) -> None:
        if ("bad",) in [one[1:] for one in params]:
            raise ValueError("two\nlines")
        self.calls.append((run, metrics, params))

    def set_terminated(self, run: str, status: str | None = None) -> None:
        self.calls.append((run, status))


CALLS: list[Any] = []


def test_mlflow_is_given_keys_that_it_takes_and_no_run_stays_open(
    published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("alembic", "sqlalchemy", "mlflow", "mlflow.entities"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    client: Any = sys.modules["mlflow"]
    client.MlflowClient = FakeClient
    entities: Any = sys.modules["mlflow.entities"]
    entities.Metric = entities.Param = lambda *values: values
    CALLS.clear()
    described = published.checkpoints.copy()
    described["factors"] = '{"lr (max)": 0.1, "lr [max]": 0.2, "..": 1, "a/b": 2}'
    iv.export(replace(published, checkpoints=described), tmp_path / "a.db", only=NAME)
    run, metrics, params = CALLS[0]
    given = dict(params)
    assert {given["factor_lr _max_"], given["factor_lr _max__2"]} == {"0.1", "0.2"}
    assert given["factor_a_b"] == "2"
    assert {one[0]: one[1] for one in metrics}["accuracy"] == 0.94
    assert CALLS[-1] == (run, None)
    CALLS.clear()
    described["factors"] = '{"lr": "bad"}'
    with pytest.raises(TableError, match=f"MLflow refused run {run}, which ended as failed: .*two"):
        iv.export(replace(published, checkpoints=described), tmp_path / "a.db", only=NAME)
    assert [(run, "FAILED")] == CALLS


def test_keys_are_such_as_mlflow_takes() -> None:
    keys = accepted(["lr (max)", "lr [max]", ".", "..x", "", "a:b/c", "größe 1.0-b", "x" * 300])
    expected = ["lr _max_", "lr _max__2", "_", "_x", "__2", "a_b_c", "größe 1.0-b", "x" * 240]
    assert list(keys.values()) == expected


@pytest.mark.parametrize(("to", "package"), [("wandb", "wandb"), ("mlflow", "mlflow")])
def test_a_client_that_is_not_there_is_named(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    to: str,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("alembic", "sqlalchemy"):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    assert cli.main(["export", str(folder), "--to", to, "--out", str(tmp_path / "out")]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert f"needs {package}, which is not installed: pip install 'invariscope[{to}]'" in error
    assert error.count("\n") == 1


@pytest.mark.full
@pytest.mark.slow
def test_the_clients_themselves(published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's store is read back by its client; of W&B the files of an offline run are there."""
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    described = published.checkpoints.assign(factors='{"lr (max)": 0.1, "..": 1, "a//b": 2}')
    iv.export(replace(published, checkpoints=described), tmp_path / "store.db", only=NAME)
    client = mlflow.MlflowClient(f"sqlite:///{(tmp_path / 'store.db').as_posix()}")
    (run,) = client.search_runs([client.get_experiment_by_name("invariscope").experiment_id])
    assert run.data.params["operator"] == "avg"
    assert run.data.params["factor_lr _max_"] == "0.1"
    assert run.data.metrics["accuracy"] == 0.94
    for key in accepted(["lr (max)", ".", "..x", "", "a:b/c", "größe", "x" * 300]).values():
        client.log_param(run.info.run_id, key, 1)
    (place,) = iv.export(published, tmp_path / "runs", to="wandb", only=NAME)
    (file,) = place.glob("run-*.wandb")
    assert b"consistency_circular_4px" in file.read_bytes()


def test_the_command_knows_the_file_by_its_ending(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "one.csv"
    assert cli.main(["export", str(folder), "--out", str(out), "--only", NAME]) == cli.DONE
    assert capsys.readouterr().out.splitlines() == [f"csv: {out}", f"csv: {tmp_path / 'one.columns.csv'}"]
    assert len(out.read_text().splitlines()) == 2
    for given, words in (
        (["--out", str(tmp_path / "a.xlsx")], "its ending names no exporter"),
        (["--out", str(out), "--to", "parket"], "unknown exporter 'parket'"),
        (["--out", str(out), "--license", "MIT"], "--license is no option of the exporter csv"),
        (["--out", str(out), "--only", "nets-*"], "no checkpoint has such a name"),
    ):
        assert cli.main(["export", str(folder), *given]) == cli.BAD_INPUT
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("out", "to", "words"),
    [
        (".", "csv", "is a folder and no file: name a file"),
        ("/", "csv", "is a folder and no file: name a file"),
        ("missing/..", "csv", "is a folder and no file: name a file"),
        ("TABLES/invariance/wide.parquet", None, "lies in table invariance of"),
        ("TABLES/cost/more/scores.csv", None, "lies in table cost of"),
        ("TABLES/surface", "wandb", "lies in table surface of"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], out: str, to: str | None, words: str
) -> None:
    out = out.replace("TABLES", str(folder))
    before = sorted(folder.glob("*/*"))
    named = ["--to", to] if to else []
    for tables in (str(folder), folder.as_uri()):
        assert cli.main(["export", tables, "--out", out, *named]) == cli.BAD_INPUT
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
        with pytest.raises(OutputError, match=words):
            iv.export(tables, out, to=to)
    assert sorted(folder.glob("*/*")) == before


def test_a_columns_file_of_somebody_is_left_alone(published: Any, tmp_path: Path) -> None:
    out, about = tmp_path / "b.csv", tmp_path / "b.columns.csv"
    about.write_text("name,role,unit,meanings\nmine,,,\n")
    with pytest.raises(TableError, match=r"b\.columns\.csv is there and describes no columns"):
        iv.export(published, out, only=NAME)
    assert about.read_text().endswith("mine,,,\n")
    assert not out.exists()
    about.write_bytes(b"name,role,unit,meaning\r\nold,,,\r\n")
    assert iv.export(published, out, only=NAME) == [out, about]
    assert about.read_text().startswith("name,role,unit,meaning\ncheckpoint,identity,")


def test_every_exporter_is_documented(repository: Path) -> None:
    text = (repository / "docs" / "export.md").read_text()
    every: dict[str, Callable[..., Any]] = dict(EXPORTERS)
    assert all(f"`{name}`" in text for name in every)
