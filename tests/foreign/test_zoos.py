"""Zoos without a manifest: a table of runs, a pattern of a library's networks, the cache of the Hugging Face hub."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import invariscope as iv
from invariscope import cli
from invariscope.analysis import analyze_tables, draw_figures
from invariscope.analysis.tables.load import load
from invariscope.base.errors import ManifestError, ModelError, TableError, WeightsError
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.hub import processor_input
from invariscope.zoo.loading import build_model, default_input, load_checkpoint
from invariscope.zoo.manifest import read_manifest, write_manifest

NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.a, self.pool, self.head = nn.Conv2d(3, width, 3, padding=1), nn.MaxPool2d(2), nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.pool(self.a(x).relu()).mean((2, 3)))
"""
INPUT = {"size": 32, "mean": 0.5, "std": 0.25}
HOW: dict[str, Any] = {
    "model": "python:nets.py:Net?width={width}",
    "weights": "{name}.pth",
    "input": INPUT,
    "allow_code": True,
}
RUNS = {"name": [f"r{i}" for i in range(6)], "width": [4, 6] * 3, "seed": range(6), "lr": 0.1, "host": ["a", None] * 3}
TOP1, LOSS = [0.5, 0.52, 0.55, 0.51, 0.58, 0.53], [2.0, 1.9, np.nan, 1.7, 1.2, 1.5]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "nets.py").write_text(NETS)
    for seed, width in enumerate(RUNS["width"]):
        torch.manual_seed(seed)
        torch.save(build_model(f"python:nets.py:Net?width={width}", folder).state_dict(), folder / f"r{seed}.pth")
    pd.DataFrame({**RUNS, "top1": TOP1, "val_loss": LOSS}).to_csv(folder / "runs.csv")
    return folder


def test_columns_are_factors_or_metrics(runs: Path, tmp_path: Path) -> None:
    zoo = iv.zoo_from_csv(runs / "runs.csv", **HOW, metrics=("top1", "val_*"))
    assert [one.name for one in zoo] == RUNS["name"]
    assert [dict(one.metrics) for one in zoo[1:3]] == [{"top1": 0.52, "val_loss": 1.9}, {"top1": 0.55}]
    assert dict(zoo[0].factors) == {"width": 4, "seed": 0, "lr": 0.1, "host": "a"}
    assert "host" not in zoo[1].factors
    assert zoo[1].model == "python:nets.py:Net?width=6"
    assert all(
        torch.equal(value, torch.load(runs / "r1.pth")[k]) for k, value in load_checkpoint(zoo[1]).state_dict().items()
    )
    write_manifest(runs / "again.yaml", zoo)
    assert read_manifest(runs / "again.yaml", allow_code=True) == zoo


@pytest.fixture(scope="module")
def tables(runs: Path) -> Path:
    out = runs / "tables"
    more = ["--data", "shapes:32", "--limit", "40", "--max-shift", "3", "--shift", "circular", "--out", str(out)]
    flags = [part for key in ("model", "weights") for part in (f"--{key}", HOW[key])]
    command = ["collect", str(runs / "runs.csv"), "--allow-code", *flags, "--input", "{size: 32, mean: 0.5, std: 0.25}"]
    assert cli.main([*command, "--metrics", "top1,val_*", "--collect", "layers,invariance", *more]) == cli.DONE
    assert cli.main(["status", str(out), *command[1:], "--metrics", "top1,val_*"]) == cli.DONE
    return out


def test_metrics_join_the_correlations_as_score_and_as_covariate(tables: Path) -> None:
    found = load(tables)
    joined = iv.join(found).set_index("checkpoint")
    assert joined.loc["r4", ["metric_top1", "metric_val_loss"]].tolist() == [0.58, 1.2]
    results = analyze_tables(found, permutations=0)
    rows = results.metrics[results.metrics["interval"] == "over checkpoints"]
    plain = rows[(rows["x"] == "consistency") & (rows["y"] == "metric_top1") & (rows["method"] == "pearson")]
    assert plain["r"].item() == pytest.approx(np.corrcoef(joined["consistency"], joined["metric_top1"])[0, 1])
    short = rows[(rows["x"] == "consistency") & (rows["y"] == "metric_val_loss") & (rows["method"] == "pearson")]
    known = joined.dropna(subset="metric_val_loss")
    assert short[["n", "n_missing"]].to_numpy().tolist() == [[5, 1]]
    assert short["r"].item() == pytest.approx(np.corrcoef(known["consistency"], known["metric_val_loss"])[0, 1])
    assert {"accuracy + metric_top1", "accuracy + metric_val_loss"} <= set(rows["given"])
    scores = {"consistency", "consistency_to_clean", "fidelity", "kappa"}
    assert set(results.correlations["y"]) & {*scores, *rows["y"]} == scores
    assert "metric_top1" not in set(results.correlations["y"]), "what was fixed in advance is adjusted without them"
    assert "top1, shapes/test, circular shifts up to 3 px (6 checkpoints): with MSB" in results.summary


def test_metrics_are_drawn(tables: Path) -> None:
    found = load(tables)
    drawn = draw_figures(found, ["msb_invariance", "confounding"], reading="val_loss", score="top1")
    assert not drawn.reasons
    left, right = drawn.figures["confounding"].axes[:2]
    assert (left.get_ylabel(), right.get_xlabel()) == ("top1", "val_loss")
    points = np.concatenate([part.get_offsets() for part in left.collections if part.get_label() == "not given"])
    assert sorted(points[:, 1]) == sorted(value for value, loss in zip(TOP1, LOSS, strict=True) if loss == loss)
    with pytest.raises(TableError, match=r"val_loss goes from 1\.2 to 2, and a score is a share"):
        draw_figures(found, ["msb_invariance"], score="val_loss")
    with pytest.raises(TableError, match="unknown reading 'val_los': did you mean 'val_loss'"):
        draw_figures(found, ["msb_invariance"], reading="val_los")


@pytest.mark.parametrize(
    ("text", "how", "message"),
    [
        ("", {}, "has no rows"),
        ("name,width\n", {}, "has no rows"),
        ("name,width\nr0,4,3\n", {}, ":2: the row has 3 cells and the header 2"),
        ("name,a,a\nr0,1,2\n", {}, ":1: two columns are called 'a'"),
        ("name,widht\nr0,4\n", {}, ":1: {width}: unknown column 'width': did you mean 'widht'"),
        ("name,width\nr0,\n", {}, ":2: width is empty"),
        ("name,width\nr0,4\nr0,4\n", {}, ":3: checkpoint 'r0': the name 'r0' stands already in line 2"),
        ("name,width\nr9,4\n", {}, ":2: checkpoint 'r9': there is no weights file"),
        ("name,width\n../r0,4\n", {}, "lies outside of the zoo's folder"),
        ("name,width,top1\nr0,4,high\n", {"metrics": ["top1"]}, "top1 is 'high', and must be a number"),
        (
            "name,width,top1\nr0,4,0.5\n",
            {"metrics": ["top5"]},
            ":1: metrics: unknown column 'top5': did you mean 'top1'",
        ),
        ("name,width,seed\nr0,4,first\n", {}, "factors.seed is 'first', and must be a whole number"),
        ("name,width\nr0,4\n", {"input": {"size": 0, "mean": 0, "std": 1}}, "input.size is 0"),
        ("name,width\nr0,4\n", {"input": None}, "add size, mean and std"),
        ("name,width\nr0,4\n", {"entry": {"prefx": "a"}}, "did you mean 'prefix'"),
        ("name,width\nr0,4\n", {"weights": None}, "there is no column 'weights', and weights is not given"),
        ("name,width\nr0,wide\n", {}, None),
    ],
)
def test_a_bad_table_is_one_line(text: str, how: dict[str, Any], message: str | None, runs: Path) -> None:
    (runs / "bad.csv").write_text(text)
    if message is None:  # what the network thinks of it is told where it is built
        assert len(iv.zoo_from_csv(runs / "bad.csv", **HOW)) == 1
        return
    with pytest.raises(ManifestError) as caught:
        iv.zoo_from_csv(runs / "bad.csv", **{**HOW, **how})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def lay(cache: Path, repository: str, config: dict[str, Any], **files: Any) -> Path:
    """Lay a repository where the hub's client would have put it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "abc"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(config))
    if "processor" in files:
        (snapshot / "preprocessor_config.json").write_text(json.dumps(files["processor"]))
    if "safetensors" in files:
        save_file(files["safetensors"], snapshot / "model.safetensors")
    if "bin" in files:
        torch.save(files["bin"], snapshot / "pytorch_model.bin")
    return snapshot


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone().contiguous() for name, value in network.state_dict().items()}


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_a_pattern_of_timm_is_a_zoo_of_what_is_here(
    timm: ModuleType, hub_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    torch.manual_seed(3)
    network = timm.create_model("test_resnet").eval()
    lay(hub_cache, "timm/test_resnet.r160_in1k", {}, safetensors=state_of(network))
    caplog.set_level(logging.WARNING)
    (found,) = iv.zoo_from_library("timm:test_*")
    assert (found.name, found.model) == ("test_resnet.r160_in1k", "timm:test_resnet.r160_in1k")
    assert dict(found.factors) == {"architecture": "test_resnet", "tag": "r160_in1k"}
    assert found.input == default_input("timm:test_resnet.r160_in1k")
    assert [
        record.message
        for record in caplog.records
        if "not on this machine" in record.message and "test_vit" in record.message
    ]
    out = ["--out", str(tmp_path / "tables"), "--data", "shapes:32", "--limit", "3", "--collect", "invariance"]
    assert cli.main(["collect", "timm:test_*", *out]) == cli.BAD_INPUT
    assert "give --pretrained" in capsys.readouterr().err
    assert cli.main(["collect", "timm:test_*", "--pretrained", *out, "--shift", ""]) == cli.DONE
    row = load(tmp_path / "tables").invariance
    images = PreparedImages(load_dataset("shapes:32", limit=3), found.input)
    with torch.inference_mode():
        hits = network(images[:]).argmax(1) == images.labels
    assert row["value"].tolist() == [pytest.approx(hits.float().mean().item())]
    for pattern, message in {
        "timm:nothing*": "no pretrained network has such a name",
        "timm:test_vit": "none of 1 net",
    }.items():
        with pytest.raises(ModelError, match=message):
            iv.zoo_from_library(pattern)


def test_a_pattern_of_torchvision(torchvision: ModuleType, hub_cache: Path) -> None:
    url = torchvision.models.get_model_weights("shufflenet_v2_x0_5").DEFAULT.url
    file = hub_cache.parent / "torch" / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), file)
    (found,) = iv.zoo_from_library("torchvision:shufflenet*")
    assert (found.name, found.weights) == ("shufflenet_v2_x0_5-IMAGENET1K_V1", file)
    assert isinstance(load_checkpoint(found), nn.Module)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_timms_networks_of_the_hub(kind: str, timm: ModuleType, hub_cache: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = timm.create_model("test_resnet", num_classes=5, in_chans=3).eval()
    known = {"input_size": [3, 40, 40], "crop_pct": 0.8, "interpolation": "bicubic", **IMAGENET}
    config = {"architecture": "test_resnet", "num_classes": 5, "pretrained_cfg": known}
    saved = state_of(network) if kind == "safetensors" else {"state_dict": state_of(network), "by": Path("x")}
    snapshot = lay(hub_cache, "someone/five-classes", config, **{kind: saved})
    (tmp_path / "zoo.yaml").write_text(
        "checkpoints: [{name: a, model: 'hf:someone/five-classes', weights: pretrained}]"
    )
    (entry,) = read_manifest(tmp_path)
    (found,) = iv.zoo_from_library("hf:someone/*")
    assert (
        entry.weights
        == found.weights
        == snapshot / ("model.safetensors" if kind == "safetensors" else "pytorch_model.bin")
    )
    spec = InputSpec(40, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 50, "bicubic")
    assert entry.input == found.input == spec
    images = torch.randn(2, 3, 40, 40)
    for made in (
        load_checkpoint(entry),
        load_checkpoint(found),
        build_model("hf:someone/five-classes?pretrained").eval(),
    ):
        with torch.inference_mode():
            assert torch.equal(made(images), network(images))
    assert build_model("hf:someone/five-classes@main")(images).shape == (2, 5)


@pytest.fixture
def transformers() -> ModuleType:
    from invariscope.zoo.optional import prepare_torchvision

    prepare_torchvision()
    return pytest.importorskip("transformers")


def test_transformers_networks_of_the_hub(transformers: ModuleType, hub_cache: Path, tmp_path: Path) -> None:
    torch.manual_seed(6)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic", "num_labels": 5}
    config = transformers.ResNetConfig(**sizes)
    network = transformers.ResNetForImageClassification(config).eval()
    settings = {**config.to_dict(), "architectures": ["ResNetForImageClassification"]}
    processor = {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": 32, "resample": 3}
    processor |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    lay(hub_cache, "someone/resnet", settings, safetensors=state_of(network), processor=processor)
    out = [
        "--out",
        str(tmp_path / "t"),
        "--data",
        "shapes:32",
        "--limit",
        "40",
        "--max-shift",
        "2",
        "--shift",
        "circular",
    ]
    command = ["collect", "hf:someone/*", "--pretrained", "--collect", "layers,invariance", *out]
    assert cli.main(command) == cli.DONE
    spec = InputSpec(32, (0.5,) * 3, (0.25,) * 3, 36, "bicubic")
    images = PreparedImages(load_dataset("shapes:32", limit=40), spec)
    with torch.inference_mode():
        hits = network(images[:]).logits.argmax(1) == images.labels
    rows = load(tmp_path / "t")
    accuracy = rows.invariance.query("score == 'accuracy'")["value"].item()
    assert accuracy == pytest.approx(hits.float().mean().item())
    assert rows.layers["site_kind"].tolist().count("max") == 1
    assert rows.layers["msb"].notna().all()


@pytest.mark.parametrize(
    ("settings", "spec"),
    [
        ({"size": 40}, InputSpec(40, (0.5,), (0.2,), (40, 40))),
        (
            {"size": {"height": 30, "width": 40}, "resample": 3},
            InputSpec((30, 40), (0.5,), (0.2,), (30, 40), "bicubic"),
        ),
        ({"size": {"shortest_edge": 35}, "crop_pct": 0.875}, InputSpec(35, (0.5,), (0.2,), 40)),
        ({"size": 384, "crop_pct": 0.875}, InputSpec(384, (0.5,), (0.2,), (384, 384))),
        ({"size": 40, "do_normalize": False}, InputSpec(40, (0.0,), (1.0,), (40, 40))),
        ({"size": 40, "do_rescale": False}, InputSpec(40, (0.5,), (0.2,), (40, 40), range=255)),
        ({"size": {"shortest_edge": 35}}, None),
        ({"size": 40, "rescale_factor": 1 / 127.5}, None),
        ({"size": 40, "do_resize": False}, None),
    ],
)
def test_what_a_processor_does_is_taken_over(settings: dict[str, Any], spec: InputSpec | None) -> None:
    assert processor_input({"image_mean": [0.5], "image_std": [0.2], **settings}) == spec


def test_what_the_hub_holds_and_is_no_network_here(hub_cache: Path, tmp_path: Path) -> None:
    lay(hub_cache, "a/text", {"architectures": ["BertModel"]})
    lay(hub_cache, "a/own", {"architectures": ["XForImageClassification"], "auto_map": {"AutoModel": "x.py"}})
    lay(hub_cache, "a/reads", {"architecture": "resnet18", "model_args": {"checkpoint_path": "/etc/passwd"}})
    lay(hub_cache, "a/pickle", {"architecture": "test_resnet"}, bin={"a": print, "b": exec})
    for name, message in {
        "a/text": "take one whose class ends in ForImageClassification",
        "a/own": "wants code of its own repository, which is never run",
        "a/reads": "checkpoint_path is refused",
        "a/absent": r"config\.json is not in the cache .* fetch it with `hf download a/absent`",
        "a/../b": "names no repository: write it like hf:ORG/NAME",
    }.items():
        with pytest.raises(ModelError, match=message) as caught:
            build_model(f"hf:{name}")
        assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match=r"its pickle calls for builtins\.exec"):
        build_model("hf:a/pickle?pretrained")
    with pytest.raises(ModelError, match="is not in the cache"):
        build_model("hf:a/reads@v1")
