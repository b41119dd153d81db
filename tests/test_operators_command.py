"""``invariscope operators``: the registry with formula, knobs and readings; specifications; wrong names."""

from __future__ import annotations

import json

import pytest

from invariscope.cli import BAD_INPUT, DONE, main
from invariscope.collectors.measure.operator_error import operator_equivariance_error
from invariscope.zoo.operators import OPERATORS


def test_it_lists_every_operator(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators", "--json"]) == DONE
    rows = {row["operator"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(OPERATORS)
    for name, row in rows.items():
        first = (OPERATORS[name].__doc__ or "").partition("\n")[0].replace("`", "")
        assert row["formula"]
        assert first.startswith(row["formula"])
        assert [knob.partition("=")[0] for knob in row["knobs"].split(", ") if knob] == list(
            OPERATORS[name].arguments()
        )
        assert row["operator_equivariance_error"] >= 0
    assert rows["max"]["msb"] == rows["max"]["selectivity"] == 1.0
    assert rows["avg"]["msb"] == rows["avg"]["selectivity"] == 0.0
    assert rows["aps"]["operator_equivariance_error"] == 0.0
    assert rows["quantile"]["msb"] == pytest.approx(-1 / 3)
    assert rows["soft"]["knobs"].startswith("beta=1")


def test_some_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators", "--only", "soft(beta=8),a*,soft(8, 2),avg"]) == DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["soft(beta=8)", "avg", "aps", "soft(8,"]
    assert f"{operator_equivariance_error('soft(beta=8)'):.3f}" in lines[1]


@pytest.mark.parametrize(("only", "line"), [("z*", "no operator has such a name"), ("softt", "did you mean")])
def test_unknown_names_are_one_line(only: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators", "--only", only]) == BAD_INPUT
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
