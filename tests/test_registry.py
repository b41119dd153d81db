"""The registry: ours, added at run time, and of other packages by entry points."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from invariscope.base import registry as module
from invariscope.base.errors import OperatorError
from invariscope.base.registry import Registry

OURS = {"root": "math:sqrt", "power": "math:pow"}


def outside(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    found: dict[str, list[EntryPoint]] = {}
    for name, value in points:
        found.setdefault(name, []).append(EntryPoint(name, value, "some.group"))
    monkeypatch.setattr(module, "_entry_points", lambda group: found)


@pytest.fixture
def names() -> Registry:
    return Registry("function", OURS, OperatorError, group="some.group")


def test_an_object_is_imported_when_it_is_asked_for(names: Registry) -> None:
    import math

    assert names["root"] is math.sqrt
    assert list(names) == list(names.own) == ["root", "power"]
    code = "import sys; from invariscope.base.registry import Registry; r = Registry('k', {'t': 'torch:nn'})"
    code += "; list(r), len(r); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_refused_with_the_nearest(names: Registry) -> None:
    with pytest.raises(OperatorError, match="unknown function 'rot': did you mean 'root'"):
        names["rot"]


def test_what_is_added_is_there_and_takes_no_name_that_is_taken(names: Registry) -> None:
    names.add("length", len)
    names.add("length", len)
    assert names["length"] is len
    assert "length" in names
    assert len(names) == 3
    for name in ("root", "length"):
        with pytest.raises(OperatorError, match=f"function '{name}' is there already"):
            names.add(name, abs)
    names.remove("length")
    assert "length" not in names


def test_a_cell_that_runs_again_takes_its_own_place(names: Registry) -> None:
    def cell(version: int) -> object:
        def mine() -> int:
            return version

        return mine

    names.add("mine", cell(1))
    names.add("mine", cell(2))
    assert names["mine"]() == 2
    with pytest.raises(OperatorError, match="function 'mine' is there already"):
        names.add("mine", len)


def test_what_comes_from_outside_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(name: str, found: object) -> None:
        if not callable(found):
            raise OperatorError(f"{name} cannot be called")

    names = Registry("function", OURS, OperatorError, group="some.group", check=check)
    with pytest.raises(OperatorError, match="pi cannot be called"):
        names.add("pi", "math:pi")
    assert "pi" not in names
    outside(monkeypatch, ("angle", "math:tau"))
    with pytest.raises(OperatorError, match="angle cannot be called"):
        names["angle"]


def test_entry_points_are_names_like_ours(names: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    import math

    outside(monkeypatch, ("sine", "math:sin"), ("broken", "no_such_module_anywhere:x"))
    assert list(names) == ["root", "power", "sine", "broken"]
    assert names["sine"] is math.sin
    with pytest.raises(OperatorError, match=r"'broken' of the package .* cannot be imported"):
        names["broken"]


@pytest.mark.parametrize("points", [[("root", "math:sin")], [("sine", "math:sin"), ("sine", "cmath:sin")]])
def test_an_entry_point_whose_name_is_taken_is_told_once_and_the_rest_works(
    names: Registry, monkeypatch: pytest.MonkeyPatch, points: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    import math

    module.tell.cache_clear()
    outside(monkeypatch, *points, ("cosine", "math:cos"))
    for _ in range(2):
        assert list(names) == ["root", "power", "cosine"]
    assert (names["root"], names["cosine"]) == (math.sqrt, math.cos)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "is given by " in told
    assert "uninstall one of the packages (left out)" in told
    if points[0][0] == "sine":
        with pytest.raises(OperatorError, match=r"'sine' is given by .*: uninstall one of the packages"):
            names["sine"]


def test_what_cannot_be_imported_is_told_once_and_left_out_of_what_works(
    names: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import math

    module.tell.cache_clear()
    outside(monkeypatch, ("broken", "no_such_module_anywhere:x"), ("cosine", "math:cos"))
    for _ in range(2):
        assert names.working() == {"root": math.sqrt, "power": math.pow, "cosine": math.cos}
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "function 'broken' of the package" in told


def test_what_was_added_goes_to_another_process(names: Registry) -> None:
    names.add("length", len)
    gone = module.added()["some.group"]
    assert gone == {"length": len}
    names.remove("length")
    module.add_all({"some.group": gone})
    assert names["length"] is len


def test_what_was_added_waits_for_a_registry_that_is_not_imported_yet() -> None:
    module.add_all({"later.group": {"length": len}})
    assert "later.group" not in module.added()
    later = Registry("function", OURS, OperatorError, group="later.group")
    assert later["length"] is len
    assert module.added()["later.group"] == {"length": len}
    later.remove("length")
