from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from invariscope.base.errors import ManifestError, ModelError
from invariscope.collectors.schema import COLLECTORS
from invariscope.collectors.tables.checkpoints import COLUMNS
from invariscope.zoo.architectures import ARCHITECTURES
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.manifest import read_manifest, write_manifest
from invariscope.zoo.manifest_models import check_zoo_model
from invariscope.zoo.model_string import ModelString

INPUT = "input: {size: 32, mean: [0.5], std: [0.25]}"


def write(folder: Path, text: str, *weights: str) -> Path:
    for name in weights:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    path = folder / "zoo.yaml"
    path.write_text(text)
    return path


def test_reads_every_field(tmp_path: Path) -> None:
    text = """
checkpoints:
  - name: a
    model: zoo:resnet20?operator=soft(beta=4)&padding_mode=circular
    weights: a.pth
    prefix: module.
    input: {size: 32, mean: [0.1, 0.2, 0.3], std: 0.5}
    labels: cifar10
    factors: {operator: soft, strength: 4.0, seed: 3, odd: true, note: ~}
"""
    path = write(tmp_path, text, "a.pth")
    for given in (path, tmp_path, str(tmp_path)):
        (checkpoint,) = read_manifest(given, allow_code=True)
        assert checkpoint == Checkpoint(
            name="a",
            model="zoo:resnet20?operator=soft(beta=4)&padding_mode=circular",
            weights=tmp_path / "a.pth",
            input=InputSpec(32, (0.1, 0.2, 0.3), (0.5,)),
            labels="cifar10",
            factors={"operator": "soft", "strength": 4.0, "seed": 3, "odd": True, "note": None},
            prefix="module.",
            folder=tmp_path,
        )
        assert checkpoint.line == 3


def test_round_trip(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x: y#.safetensors").write_bytes(b"")
    (tmp_path / "b.pt").write_bytes(b"")
    spec = InputSpec(28, (0.1,), (1 / 3,))
    factors = {"strength": float("inf"), "epoch": 7, "text": "yes", "number": "1e3", "flag": False, "none": None}
    checkpoints = [
        Checkpoint(
            "ä", "zoo:smallcnn?operator=lp(p=inf)", tmp_path / "sub" / "x: y#.safetensors", spec, folder=tmp_path
        ),
        Checkpoint("b", "timm:resnet18", tmp_path / "b.pt", spec, "digits", factors, "m.", tmp_path),
    ]
    write_manifest(tmp_path, checkpoints)
    assert read_manifest(tmp_path, allow_code=True) == checkpoints
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_size_may_be_height_and_width(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    entries = [
        Checkpoint(name, "zoo:unet", tmp_path / "w.pt", InputSpec(size, (0.5,), (0.25,)), folder=tmp_path)
        for name, size in (("wide", (12, 16)), ("square", (16, 16)), ("side", 16))
    ]
    write_manifest(tmp_path, entries)
    assert "size: [12, 16]" in (tmp_path / "zoo.yaml").read_text()
    assert [entry.input.size for entry in read_manifest(tmp_path, allow_code=True)] == [(12, 16), 16, 16]


def test_a_manifest_allows_itself_nothing(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "w.pt").write_bytes(b"")
    checkpoint = Checkpoint("a", "timm:x", tmp_path / "w.pt", InputSpec(8, (0.0,), (1.0,)), folder=tmp_path / "zoo")
    write_manifest(tmp_path / "zoo", [checkpoint])
    text = (tmp_path / "zoo" / "zoo.yaml").read_text()
    assert "allow_outside" not in text
    (tmp_path / "zoo" / "zoo.yaml").write_text(f"allow_outside: true\n{text}")  # as older ones have it
    with pytest.raises(ManifestError, match=r"give --allow-outside \(in Python allow_outside=True\)"):
        read_manifest(tmp_path / "zoo", allow_code=True)
    (found,) = read_manifest(tmp_path / "zoo", allow_outside=True, allow_code=True)
    assert found.weights.resolve() == (tmp_path / "w.pt").resolve()


@pytest.mark.parametrize("value", ["{seed: 3, epoch: 2.5, strength: .inf}", "{epoch: 1e3}", "{seed: ~, run: 17}"])
def test_factors_of_the_right_kind_pass(tmp_path: Path, value: str) -> None:
    write(tmp_path, entry(factors=value), "a.pt")
    assert len(read_manifest(tmp_path, allow_code=True)) == 1


def test_every_column_of_numbers_that_factors_fill_is_checked(tmp_path: Path) -> None:
    """A factor that passes here and does not fit its column makes the analysis refuse the whole folder."""
    for column in COLUMNS:
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            if column.name in COLLECTORS["checkpoints"].renewed:  # counted or measured, whatever the manifest says
                continue
            write(tmp_path, entry(factors=f"{{{column.name}: some}}"), "a.pt")
            with pytest.raises(ManifestError, match=rf"zoo.yaml:6: checkpoint 'a': factors.{column.name} is 'some'"):
                read_manifest(tmp_path, allow_code=True)


def test_arguments_of_every_architecture_are_known_without_building_it() -> None:
    for name in ARCHITECTURES:
        check_zoo_model(ModelString.parse(f"zoo:{name}?operator=avg&padding_mode=circular&in_channels=1&classes=3"))
        with pytest.raises(ModelError, match="unknown argument 'nothing'"):
            check_zoo_model(ModelString.parse(f"zoo:{name}?nothing=1"))


def test_write_refuses_two_of_one_name(tmp_path: Path) -> None:
    checkpoint = Checkpoint("a", "timm:x", tmp_path / "w.pt", InputSpec(8, (0.0,), (1.0,)))
    with pytest.raises(ManifestError, match="two checkpoints are named 'a'"):
        write_manifest(tmp_path, [checkpoint, checkpoint])
    assert not (tmp_path / "zoo.yaml").exists()


def test_a_pattern_gives_one_checkpoint_per_file_sorted_and_named_by_stem(tmp_path: Path) -> None:
    text = f"""
checkpoints:
  - {{model: "zoo:smallcnn", weights: "*.safetensors", {INPUT}}}
  - {{name: deep, model: "zoo:smallcnn", weights: "**/w[0-9].*", {INPUT}}}
"""
    write(
        tmp_path, text, "b.safetensors", "a.safetensors", "notes.txt", "deep/er/w1.pth.tar", "deep/w2.txt", "deep/w0.pt"
    )
    checkpoints = read_manifest(tmp_path, allow_code=True)
    assert [checkpoint.name for checkpoint in checkpoints] == ["a", "b", "deep-w1", "deep-w0"]
    assert checkpoints[2].weights == tmp_path / "deep" / "er" / "w1.pth.tar"


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    write(tmp_path, f"checkpoints:\n  - {{model: 'zoo:smallcnn', weights: 'a[1].pt', {INPUT}}}\n", "a[1].pt", "a1.pt")
    (checkpoint,) = read_manifest(tmp_path, allow_code=True)
    assert (checkpoint.name, checkpoint.weights.name) == ("a[1]", "a[1].pt")


def test_aliases_and_merge_keys_work(tmp_path: Path) -> None:
    text = """
checkpoints:
  - &first
    name: a
    model: zoo:smallcnn
    weights: a.pt
    input: &input {size: 8, mean: 0, std: 1}
  - {<<: *first, name: b, input: *input}
"""
    write(tmp_path, text, "a.pt")
    assert [checkpoint.name for checkpoint in read_manifest(tmp_path, allow_code=True)] == ["a", "b"]


GOOD = {"name": "a", "model": "zoo:smallcnn", "weights": "a.pt", "input": "{size: 8, mean: 0, std: 1}"}


def entry(**changes: str | None) -> str:
    """A manifest whose entry stands in lines 2 to 5 (name, model, weights, input), then further keys."""
    lines = [f"{key}: {value}" for key, value in {**GOOD, **changes}.items() if value is not None]
    return "checkpoints:\n  - " + "\n    ".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "the manifest is empty: fill it in"),
        ("- a\n", 1, "the manifest is ['a'], and must be a mapping"),
        ("other: 1\n", 1, "the manifest: unknown key 'other': known are allow_outside, checkpoints"),
        ("allow_outside: true\n", 1, "the manifest lacks 'checkpoints': add it"),
        ("checkpoints: []\n", 1, "checkpoints is [], and must be a list of at least one item"),
        ("checkpoints:\n  - just text\n", 2, "checkpoint 1 is 'just text', and must be a mapping"),
        ("allow_outside: 1\ncheckpoints: []\n", 1, "allow_outside is 1, and must be true or false"),
        ("checkpoints: [\n", 2, "not valid YAML"),
        ("checkpoints: !!python/object:os.system {}\n", 1, "and must be a list of at least one item"),
        ("a: &a [*a]\n", 1, "an alias that contains itself"),
        (entry(weights="!!python/name:os.system"), 4, "not valid YAML (could not determine a constructor"),
        (entry(name="a\n    name: b"), 3, "the key 'name' stands twice: remove one"),
        (entry(weigths="a.pt"), 6, "checkpoint 'a': unknown key 'weigths': did you mean 'weights'?"),
        (entry(weights=None), 2, "checkpoint 'a' lacks 'weights': add it"),
        (entry(name="7"), 2, "checkpoint 1: name is 7, and must be text"),
        (entry(model="resnet20"), 3, "checkpoint 'a': model 'resnet20' has no scheme"),
        (entry(model="zo:resnet20"), 3, "unknown scheme 'zo': did you mean 'zoo'? known are hf, onnx, python"),
        (entry(model="zoo:resnet21"), 3, "unknown architecture 'resnet21': did you mean 'resnet"),
        (entry(model="zoo:resnet20?operator=tip"), 3, "unknown operator 'tip': did you mean 'tips'?"),
        (entry(model="zoo:smallcnn?operator=strided"), 3, "unknown operator 'strided'"),
        (entry(model="python:nets.py:build"), 3, "there is no file"),
        (entry(model="python:../nets.py:build"), 3, "lies outside of the zoo's folder"),
        (entry(weights="b.pt"), 4, "checkpoint 'a': there is no weights file"),
        (entry(weights="a.onnx"), 4, "weights is 'a.onnx': weights must be a .safetensors, .pth.tar, .pt"),
        (entry(weights="'*.th'"), 4, "no weights file matches '*.th'"),
        (
            entry(weights="../outside.pt"),
            4,
            "lies outside of the zoo's folder: move it inside, or give --allow-outside",
        ),
        (entry(weights="'../*.pt'"), 4, "lies outside of the zoo's folder"),
        (entry(weights="link.pt"), 4, "lies outside of the zoo's folder"),
        (entry(input="32"), 5, "checkpoint 'a': input is 32, and must be a mapping"),
        (entry(input="{size: 8, mean: 0}"), 5, "checkpoint 'a': input lacks 'std': add it"),
        (entry(input="{size: 8.5, mean: 0, std: 1}"), 5, "input.size is 8.5, and must be an integer of at least 1"),
        (entry(input="{size: true, mean: 0, std: 1}"), 5, "input.size is True, and must be an integer"),
        (entry(input="{size: [8, 8, 3], mean: 0, std: 1}"), 5, "input.size has 3 numbers: give one for square images"),
        (entry(input="{size: [8, 0], mean: 0, std: 1}"), 5, "input.size is 0, and must be an integer of at least 1"),
        (entry(input="{size: 8, mean: [], std: 1}"), 5, "input.mean is [], and must be a list of at least one item"),
        (entry(input="{size: 8, mean: [0, x], std: 1}"), 5, "input.mean is 'x', and must be a number"),
        (entry(input="{size: 8, mean: .nan, std: 1}"), 5, "input.mean is nan, and must be a finite number"),
        (entry(input="{size: 8, mean: 0, std: 0}"), 5, "input.std is 0, and must be positive"),
        (entry(input="{size: 8, mean: 0, std: -1}"), 5, "input.std is -1, and must be a number of at least 0"),
        (entry(input="{size: 8, mean: [0, 1], std: [1, 1, 1]}"), 5, "mean has 2 numbers and std 3"),
        (entry(factors="{operator: [a, b]}"), 6, "factors.operator is ['a', 'b'], and must be text, a number"),
        (entry(factors="{1: a}"), 6, "factors has the key 1: keys must be text"),
        (
            entry(factors="{epoch: best}"),
            6,
            "checkpoint 'a': factors.epoch is 'best', and must be a number: correct it, leave it out, or give",
        ),
        (
            entry(factors="{note: x, seed: zero}"),
            6,
            "checkpoint 'a': factors.seed is 'zero', and must be a whole number",
        ),
        (entry(factors="{seed: 1.5}"), 6, "factors.seed is 1.5, and must be a whole number"),
        (entry(factors="{seed: true}"), 6, "factors.seed is True, and must be a whole number"),
        (entry(factors="{strength: high}"), 6, "factors.strength is 'high', and must be a number"),
        (entry(factors="{epoch: .nan}"), 6, "factors.epoch is nan, and must be a number"),
        (entry(factors="{epoch: true}"), 6, "factors.epoch is True, and must be a number"),
        (
            entry(model="zoo:smallcnn?wdith=4"),
            3,
            "checkpoint 'a': model 'zoo:smallcnn?wdith=4': unknown argument 'wdith'",
        ),
        (entry(model="zoo:resnet20?width=wide"), 3, "width is 'wide', and must be a whole number, as 16 is"),
        (entry(model="zoo:smallcnn?padding_mode=zero"), 3, "unknown padding mode 'zero': did you mean 'zeros'?"),
        (entry(labels="[]"), 6, "labels is [], and must be text"),
        (entry(prefix="''"), 6, "prefix is '', and must be text"),
    ],
)
def test_errors_name_file_line_and_entry(tmp_path: Path, text: str, line: int | None, message: str) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    for name in ("nets.py", "outside.pt"):
        (tmp_path / name).write_bytes(b"")
    (folder / "link.pt").symlink_to(tmp_path / "outside.pt")
    path = write(folder, text, "a.pt")
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, allow_code=True)
    place = f"{path}: " if line is None else f"{path}:{line}: "
    assert str(caught.value).startswith(place)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_problems_are_counted_and_names_must_differ(tmp_path: Path) -> None:
    good = f"{{name: a, model: 'zoo:smallcnn', weights: a.pt, {INPUT}}}"
    bad = good.replace("smallcnn", "bigcnn")
    write(tmp_path, f"checkpoints:\n  - {good}\n  - {good}\n  - {bad}\n", "a.pt")
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path, allow_code=True)
    assert str(caught.value) == (
        f"{tmp_path / 'zoo.yaml'}:3: checkpoint 'a': the name 'a' stands already in line 2: rename one "
        "(and 1 more entries with a problem)"
    )


def test_missing_or_unreadable_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no such manifest: check the path"):
        read_manifest(tmp_path / "no.yaml", allow_code=True)
    with pytest.raises(ManifestError, match="there is no such manifest"):
        read_manifest(tmp_path, allow_code=True)
    (tmp_path / "zoo.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ManifestError, match="cannot be read as text"):
        read_manifest(tmp_path, allow_code=True)
    (tmp_path / "zoo.yaml").write_text("[" * 2000)
    with pytest.raises(ManifestError, match="not valid YAML"):
        read_manifest(tmp_path, allow_code=True)
    (tmp_path / "zoo.yaml").write_text("a: \x00")
    with pytest.raises(ManifestError, match="not valid YAML") as caught:
        read_manifest(tmp_path, allow_code=True)
    assert "\n" not in str(caught.value)


def test_aliases_do_not_multiply(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    write(tmp_path, "\n".join(lines))
    with pytest.raises(ManifestError, match="its aliases stand for more than 100000 values"):
        read_manifest(tmp_path, allow_code=True)


def test_importing_the_manifest_needs_no_torch() -> None:
    code = "import sys; from invariscope.zoo import architectures, manifest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_model_strings_are_taken_apart_and_put_together() -> None:
    text = "zoo:resnet20?operator=tips(pool=phase, hard=true)&width=4&lr=0.001&flag=true&p=inf&name=a=b"
    model = ModelString.parse(text)
    expected = {
        "operator": "tips(pool=phase, hard=true)",
        "width": 4,
        "lr": 1e-3,
        "flag": True,
        "p": float("inf"),
        "name": "a=b",
    }
    assert (model.scheme, model.target) == ("zoo", "resnet20")
    assert model.arguments == expected
    assert [type(value) for value in model.arguments.values()] == [type(value) for value in expected.values()]
    assert str(model) == text
    assert ModelString.parse("python:a/b.py:build?k=1").files("zoo") == (Path("zoo/a/b.py"),)
    assert ModelString.parse("timm:resnet18").files() == ()
    for bad in ("resnet20", "zoo:", "python:a.py", "python::build", "zoo:a?b", "zoo:a?b=", "zoo:a?=1", "zoo:a?b=1&b=2"):
        with pytest.raises(ModelError):
            ModelString.parse(bad)
