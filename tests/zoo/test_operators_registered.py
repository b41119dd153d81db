"""Operators from outside: a class, a name of a package, or a Python file stands wherever a name of ours does."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from invariscope.base import registry
from invariscope.base.errors import ManifestError, OperatorError
from invariscope.collectors.measure.swap import measure_swaps, read_replacements
from invariscope.zoo.loading import build_model
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.operators import (
    OPERATORS,
    OperatorSpec,
    build_operator,
    checking,
    operator_code_files,
    parse_operator,
    register_operator,
)
from invariscope.zoo.operators.base import Downsample, output_size, pad_to_multiple, phases
from invariscope.zoo.operators.checking import check_operator
from invariscope.zoo.operators.polyphase import phase_taps
from invariscope.zoo.sampling import Taps, take, tap_index
from invariscope.zoo.sites import find_sites
from invariscope.zoo.surgery import replace_downsampling

FILE = (Path(__file__).parents[1] / "third_party" / "ops.py").read_text()


class Mean(Downsample):
    """The mean of the stride cell: a class as a user writes it, as registered ones are."""

    name = "mean_of_cell"
    factor = 1.0

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        return self.factor * phases(pad_to_multiple(x, self.stride, self.padding_mode), self.stride).mean(2)

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        weights = x.new_full((1, 1, self.stride**2), 1 / self.stride**2)
        return phase_taps((x.shape[-2], x.shape[-1]), self.stride, self.padding_mode, weights, outputs)


class Doubling(Mean):
    factor = 2.0


class NoSampling(Downsample):
    name = "no_sampling"

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        return x[..., :: self.stride, :: self.stride]


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    for name in OPERATORS.added:
        OPERATORS.remove(name)
    for name in [name for name in sys.modules if name.startswith("invariscope_user_")]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ops.py").write_text(FILE)
    return tmp_path


def test_the_check_leaves_the_random_numbers_and_runs_without_gradients() -> None:
    class Fresh(Mean):
        name = "fresh"

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.inference_mode():
        check_operator(Fresh)
    assert torch.equal(torch.rand(3), expected)


def test_a_registered_class_stands_for_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    real = checking.check_behaviour
    monkeypatch.setattr(checking, "check_behaviour", lambda *args: tried.append(args) or real(*args))

    @register_operator
    class Own(Mean):
        name = "own"

    assert OPERATORS["own"] is Own
    assert len(tried) == 1
    assert register_operator(Own) is Own
    assert parse_operator("own").canonical == "own"
    assert parse_operator(Own) == OperatorSpec("own")
    assert type(build_model("zoo:smallcnn?operator=own").stage1.down) is Own
    assert len(tried) == 1
    with pytest.raises(OperatorError, match="did you mean 'own'"):
        parse_operator("ovn")


def test_a_class_of_the_same_place_replaces_the_former_and_another_is_refused() -> None:
    def cell() -> type[Downsample]:
        class Own(Mean):
            name = "own"

        return Own

    first, second = cell(), cell()
    register_operator(first)
    register_operator(second)
    assert OPERATORS["own"] is second

    class Other(Mean):
        name = "own"

    with pytest.raises(OperatorError, match="operator 'own' is there already"):
        register_operator(Other)

    class Max(Mean):
        name = "max"

    with pytest.raises(OperatorError, match="operator 'max' is there already"):
        register_operator(Max)


@pytest.mark.parametrize(
    ("name", "operator", "said"),
    [
        ("mean_of_cell", Mean, ""),
        ("other", Mean, "register it under its own"),
        ("mean_of_cell", Doubling, "is off its"),
    ],
)
def test_operators_of_installed_packages_are_checked(
    monkeypatch: pytest.MonkeyPatch, name: str, operator: type, said: str
) -> None:
    point = EntryPoint(name, f"{__name__}:{operator.__name__}", "invariscope.operators")
    monkeypatch.setattr(EntryPoint, "load", lambda self: operator)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "invariscope.operators" else [])
    registry._entry_points.cache_clear()
    monkeypatch.setattr(OPERATORS, "_checked", set())
    try:
        assert name in list(OPERATORS)
        if said:
            with pytest.raises(OperatorError, match=said):
                parse_operator(name)
        else:
            assert parse_operator(name).operator_class is operator
    finally:
        registry._entry_points.cache_clear()


# Python files.


def test_a_file_stands_for_a_name(folder: Path) -> None:
    spec = parse_operator(" python:ops.py:Mine( strength = 1 )", folder)
    assert spec.canonical == "python:ops.py:Mine(strength=1)"
    assert parse_operator(spec.canonical, folder) == spec
    assert (spec.strength, spec.operator_class.name, spec.code_file) == (1.0, "mine", folder / "ops.py")
    assert parse_operator("python:ops.py:Mine", folder).canonical == "python:ops.py:Mine(strength=0.5)"
    operator = build_operator(spec, 3)
    assert repr(operator) == "Mine(3, stride=2, padding_mode='zeros', strength=1.0)"
    torch.testing.assert_close(operator(torch.ones(1, 3, 4, 4)), torch.ones(1, 3, 2, 2))
    model = build_model("zoo:smallcnn?operator=python:ops.py:Mine(strength=0.25)&width=2", folder)
    assert [module.strength for module in model.modules() if isinstance(module, Downsample)] == [0.25] * 3


def test_a_file_is_checked_once_and_anew_after_a_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    real = checking.check_behaviour
    monkeypatch.setattr(checking, "check_behaviour", lambda *args: tried.append(args) or real(*args))
    first = parse_operator("python:ops.py:Mine", folder).operator_class
    assert parse_operator("python:ops.py:Mine(1)", folder).operator_class is first
    assert len(tried) == 1
    (folder / "ops.py").write_text(FILE.replace("1 - self.strength", "2 - self.strength"))
    with pytest.raises(OperatorError, match=r"operator 'python:ops.py:Mine': operator 'mine' at .* sum to 2 over"):
        parse_operator("python:ops.py:Mine", folder)
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("python:gone.py:Mine", "operator 'python:gone.py:Mine': there is no file .*gone.py"),
        ("python:ops.py:Yours", "operator 'python:ops.py:Yours': .*ops.py.*Yours"),
        ("python:ops.py:phases", "is no operator"),
        ("python:ops.py:Mine(k=1)", r"python:ops.py:Mine has no argument 'k', it takes strength=0.5"),
        ("python:ops.py", "cannot be read"),
    ],
)
def test_what_a_file_does_not_give(folder: Path, text: str, said: str) -> None:
    with pytest.raises(OperatorError, match=said) as caught:
        parse_operator(text, folder)
    assert "\n" not in str(caught.value)


def test_the_file_that_a_specification_runs(folder: Path) -> None:
    assert operator_code_files("python:a/ops.py:Mine(strength=2)", "zoo") == (Path("zoo/a/ops.py"),)
    assert operator_code_files(parse_operator("python:ops.py:Mine", folder)) == (folder / "ops.py",)
    for none in ("max", "soft(4)", "strided", "python:ops.py", None, 3):
        assert operator_code_files(none, folder) == ()
    assert ModelString.parse("zoo:unet?operator=python:ops.py:Mine").files(folder) == (folder / "ops.py",)
    assert ModelString.parse("zoo:unet?operator=max").files(folder) == ()


def test_a_specification_of_a_file_goes_to_other_folders_and_processes(folder: Path) -> None:
    spec = parse_operator("python:ops.py:Mine(strength=1)", folder)
    (folder / "zoo").mkdir()
    moved = spec.seen_from(folder / "zoo")
    assert str(moved) == "python:../ops.py:Mine(strength=1)"
    assert (moved.operator_class.name, moved.strength) == ("mine", 1.0)
    for copied in (pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec)):
        assert copied == spec
        assert str(copied) == str(spec)
        assert copied.operator_class is spec.operator_class


def test_no_code_of_a_manifest_runs_unasked(folder: Path) -> None:
    ran = folder / "ran"
    (folder / "ops.py").write_text(f"open({str(ran)!r}, 'w')\n{FILE}")
    model = "zoo:smallcnn?operator=python:ops.py:Mine&in_channels=1"
    entry = f"{{name: a, model: '{model}', weights: a.pt, input: {{size: 8, mean: [0], std: [1]}}}}"
    (folder / "zoo.yaml").write_text(f"checkpoints:\n  - {entry}\n")
    for operators in (True, False):
        with pytest.raises(ManifestError, match=r"zoo.yaml:2: .*runs the code of .*ops.py"):
            read_manifest(folder, missing_weights=True, operators=operators)
    assert not ran.exists()
    (checkpoint,) = read_manifest(folder, missing_weights=True, allow_code=True)
    assert ran.exists()
    assert checkpoint.model == model
    (folder / "zoo.yaml").write_text(f"checkpoints:\n  - {entry.replace('ops.py', '../ops.py')}\n")
    with pytest.raises(ManifestError, match="lies outside of the zoo's folder"):
        read_manifest(folder, missing_weights=True, allow_code=True)


# Classes in surgery and swaps.


class Foreign(Downsample):
    """A binomial 5x5 blur, as its author names things, and not registered."""

    name = "foreign"

    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros", size: int = 5) -> None:
        super().__init__(channels, stride, padding_mode)
        self.size = size

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        taps = self.sampling(x)
        y = (taps.weights * take(x, taps.index)).sum(-1)
        return y.unflatten(2, output_size((x.shape[-2], x.shape[-1]), self.stride))

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        size, square = (x.shape[-2], x.shape[-1]), (self.size, self.size)
        index = tap_index(
            size,
            output_size(size, self.stride),
            square,
            (self.stride, self.stride),
            (self.size // 2, self.size // 2),
            padding_mode=self.padding_mode,
            outputs=outputs,
        )
        return Taps(index, x.new_full((1, 1, 1, self.size**2), self.size**-2.0))


@pytest.mark.parametrize("size", [3, 5, 21])
def test_the_kernel_of_a_site_is_the_support_whatever_its_attribute_is_called(size: int) -> None:
    (site,) = find_sites(nn.Sequential(nn.ReLU(), Foreign(3, size=size)), torch.zeros(1, 3, 16, 16))
    assert (site.kernel, site.stride, site.kind) == ((size, size), (2, 2), "foreign")
    assert Foreign(3, 3, "circular", size).support() == (size, size)
    assert NoSampling(3, 3).support() == (3, 3)


@pytest.mark.parametrize(
    ("operator", "canonical", "size"),
    [
        (Foreign, "foreign", 5),
        (partial(Foreign, size=3), "foreign(size=3)", 3),
        (parse_operator(Foreign), "foreign", 5),
    ],
)
def test_surgery_takes_a_class(operator: Any, canonical: str, size: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    changed, table = replace_downsampling(model, operator, torch.zeros(1, 3, 8, 8))
    assert list(table["operator"]) == [canonical]
    assert [module.size for module in changed.modules() if isinstance(module, Foreign)] == [size]
    _, table = replace_downsampling(changed, operator, torch.zeros(1, 3, 8, 8))
    assert list(table["reason"]) == [f"it is {canonical} already"]
    _, table = replace_downsampling(changed, partial(Foreign, size=7), torch.zeros(1, 3, 8, 8))
    assert list(table["replaced"]) == [True]


def test_surgery_refuses_what_is_no_operator() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2))
    for operator, said in (
        (nn.AvgPool2d, "is no operator"),
        (Doubling, "is off its output"),
        (partial(Foreign, stride=3), "has no argument 'stride': bind by name, it takes size=5"),
        (partial(Foreign, 3), "arguments without a name"),
    ):
        with pytest.raises(OperatorError, match=said):
            replace_downsampling(model, operator, torch.zeros(1, 3, 8, 8))


def test_surgery_and_swaps_take_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    images, labels = torch.randn(6, 3, 8, 8), torch.arange(6) % 3
    changed, _ = replace_downsampling(model, "python:ops.py:Mine(strength=1)", images[:1])
    assert [type(module).__name__ for module in changed.modules() if isinstance(module, Downsample)] == ["Mine"]
    rows = measure_swaps(model, images, labels, replacements=["python:ops.py:Mine(1)", "avg", Foreign])
    msb = rows[(rows["measure"] == "msb") & (rows["scope"] == "site")].set_index("replacement")["after"]
    assert list(msb.index) == ["python:ops.py:Mine(strength=1)", "avg", "foreign"]
    # At strength 1 it is the average, of the same windows.
    assert msb.iloc[0] == pytest.approx(msb["avg"], abs=1e-6)
    assert [spec.canonical for spec in read_replacements(["python:ops.py:Mine", "python:ops.py:Mine(0.5)"])] == [
        "python:ops.py:Mine(strength=0.5)"
    ]


# Python files inside of operators.


def test_a_file_inside_of_an_operator_runs_counts_and_moves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "ops.py").write_text(FILE)
    text = "mix(0.25, python:ops.py:Mine(1), python:more/ops.py:Mine(strength=0))"
    files = (folder / "ops.py", folder / "more" / "ops.py")
    assert operator_code_files(text, folder) == files
    spec = parse_operator(text, folder)
    assert spec.code_file is None
    assert spec.code_files == files
    assert spec.short == "mix(0.25, Mine(1), Mine(strength=0))"
    assert spec.canonical == (
        "mix(a=0.25, first=python:ops.py:Mine(strength=1), second=python:more/ops.py:Mine(strength=0))"
    )
    before = {spec.code_sha256}
    for file in files:
        file.write_text(f"{FILE}\n# {file}\n")
        assert spec.code_sha256 not in before
        before.add(spec.code_sha256)
    x = torch.randn(2, 3, 6, 6)
    for used in (spec, parse_operator(spec.canonical, folder), pickle.loads(pickle.dumps(spec))):
        expected = 0.25 * x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)) + 0.75 * x[..., ::2, ::2]
        torch.testing.assert_close(build_operator(used, 3)(x), expected)
    moved = spec.seen_from(folder / "more")
    assert str(moved) == "mix(0.25, python:../ops.py:Mine(1), python:ops.py:Mine(strength=0))"
    assert [file.resolve() for file in moved.code_files] == list(files)
    torch.testing.assert_close(build_operator(moved, 3)(x), build_operator(spec, 3)(x))
    one = parse_operator("prefilter(0.5, python:ops.py:Mine)", folder)
    assert one.code_sha256 == parse_operator("python:ops.py:Mine", folder).code_sha256


def test_no_code_inside_of_an_operator_runs_unasked(folder: Path) -> None:
    from invariscope.base.errors import InputError
    from invariscope.zoo.code_leave import refuse_code

    ran = folder / "ran"
    (folder / "ops.py").write_text(f"open({str(ran)!r}, 'w')\n{FILE}")
    inside = "prefilter(0.5, mix(0.5, max, python:ops.py:Mine))"
    entry = f"{{name: a, model: 'zoo:smallcnn?operator={inside}&in_channels=1', weights: a.pt, "
    (folder / "zoo.yaml").write_text(f"checkpoints:\n  - {entry}input: {{size: 8, mean: [0], std: [1]}}}}\n")
    with pytest.raises(ManifestError, match=r"zoo.yaml:2: .*runs the code of .*ops.py"):
        read_manifest(folder, missing_weights=True)
    with pytest.raises(InputError, match=r"ops.py"):
        refuse_code([("max", inside)], False)
    refuse_code([("max", "mix(0.5, max, avg)"), 3, "zero"], False)
    assert not ran.exists()
    read_manifest(folder, missing_weights=True, allow_code=True)
    assert ran.exists()


def test_an_operator_from_outside_is_checked_inside_of_another(folder: Path) -> None:
    (folder / "ops.py").write_text(FILE.replace("1 - self.strength", "2 - self.strength"))
    with pytest.raises(OperatorError, match=r"operator 'mine' at .* sum to 2 over"):
        parse_operator("mix(0.5, python:ops.py:Mine, max)", folder)
    mixed = build_operator(partial(OPERATORS["mix"], a=0.5, first=Mean, second="max"), 3)
    assert type(mixed.first_part) is Mean
    with pytest.raises(OperatorError, match="is off its output"):
        build_operator(partial(OPERATORS["mix"], first=Doubling), 3)
