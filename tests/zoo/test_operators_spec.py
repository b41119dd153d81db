"""Specification strings, the registry, and what operators refuse."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys

import pytest
import torch

import invariscope.zoo.operators
from invariscope.base.errors import OperatorError
from invariscope.zoo.operators import OPERATORS, OperatorSpec, build_operator, parse_operator
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.operators.values import spell


def test_names_cost_no_torch() -> None:
    code = "import invariscope.zoo.operators as o, sys; list(o.OPERATORS); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_operator_is_registered_under_its_name() -> None:
    assert {"max", "avg", "tips"} <= set(OPERATORS.own)
    for name, cls in OPERATORS.items():
        assert issubclass(cls, Downsample)
        assert cls.name == name
        if name in OPERATORS.own:
            assert getattr(invariscope.zoo.operators, cls.__name__) is cls
            assert cls.__name__ in dir(invariscope.zoo.operators)
        assert list(inspect.signature(cls).parameters)[:3] == ["channels", "stride", "padding_mode"]
        assert cls.strength_argument is None or cls.strength_argument in cls.arguments()
        operator = build_operator(name, 6, 3, "circular")
        assert type(operator) is cls
        assert (operator.channels, operator.stride, operator.padding_mode) == (6, 3, "circular")


def test_an_unknown_class_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="BlurPool"):
        _ = invariscope.zoo.operators.BlurPool


@pytest.mark.parametrize(
    ("text", "arguments", "canonical", "strength"),
    [
        ("soft", {}, "soft(beta=1)", 1.0),
        ("soft(4)", {"beta": 4.0}, "soft(beta=4)", 4.0),
        (" soft ( kernel = 3 , beta = 0.5 ) ", {"kernel": 3, "beta": 0.5}, "soft(beta=0.5, kernel=3)", 0.5),
        ("soft(4, none)", {"beta": 4.0, "kernel": None}, "soft(beta=4)", 4.0),
        ("lp(inf)", {"p": math.inf}, "lp(p=inf)", math.inf),
        ("max()", {}, "max", None),
        ("max(3)", {"kernel": 3}, "max(kernel=3)", None),
        ("blur(5)", {"m": 5}, "blur(m=5)", 5.0),
        ("maxblur(3)", {"m": 3}, "maxblur(m=3)", 3.0),
        ("ddac(5, 2)", {"kernel": 5, "groups": 2}, "ddac(kernel=5, groups=2)", None),
        ("aps(1,filter=3)", {"p": 1.0, "filter": 3}, "aps(p=1, filter=3)", None),
        ("lps(hidden=7)", {"hidden": 7}, "lps(hidden=7)", None),
        ("tips(quadrant)", {"pool": "quadrant"}, "tips", None),
        ("tips(phase, TRUE)", {"pool": "phase", "hard": True}, "tips(pool=phase, hard=true)", None),
    ],
)
def test_parse(text: str, arguments: dict, canonical: str, strength: float | None) -> None:
    spec = parse_operator(text)
    assert spec == OperatorSpec(text.split("(")[0].strip(), arguments)
    assert spec.canonical == canonical
    assert spec.strength == strength
    assert parse_operator(canonical).canonical == canonical
    assert parse_operator(spec) is spec
    assert repr(build_operator(spec, 4)) == repr(build_operator(canonical, 4))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sofft", f"did you mean 'soft'.*{', '.join(sorted(OPERATORS))}"),
        ("soft(4", "cannot be read at its end: the parenthesis of character 5 has no end: write it as"),
        ("soft(4))", "cannot be read at character 8: '\\)' stands after the end of the operator"),
        ("soft(4) 5", "cannot be read at character 9: '5' stands after the end"),
        ("soft(beta=)", "cannot be read at character 11: a value is missing"),
        ("soft(4,)", "cannot be read at character 8: a value is missing"),
        ("soft(=4)", "cannot be read at character 6: a value is missing"),
        ("soft(4 (5))", "cannot be read at character 8: '\\(' stands where ',' or '\\)' should"),
        ("3", "cannot be read at character 1: an operator begins with its name"),
        ("max and avg", "cannot be read at character 1: an operator begins with its name"),
        ("(" * 9 + "1", "cannot be read at character 10: parentheses stand 9 deep, more than the 8 allowed"),
        ("mix(0.5, " * 9 + "max", "parentheses stand 9 deep"),
        (f"rank(({'0.5, ' * 1000}0.5))", r"rank\(\(.*\.\.\.' has 5011 characters, more than the 4000 allowed: shorten"),
        ("soft((4))", r"character 6: beta is '\(4\)', and must be of type float"),
        ("rank(0.5)", r"character 6: w is '0.5', and must be of type tuple of float \| None"),
        ("rank((0.5, x, 0, 0))", r"character 6: w\[1\] is 'x', and must be of type float"),
        ("mix(0.5, sofft(4), avg)", "character 10: unknown operator 'sofft': did you mean 'soft'"),
        ("mix(0.5, (1, 2))", r"character 10: '\(1, 2\)' stands where an operator should"),
        ("mix(0.5, soft(gamma=1))", "character 21: soft has no argument 'gamma'"),
        ("", "cannot be read"),
        (None, "cannot be read"),
        ("soft(gamma=1)", "soft has no argument 'gamma', it takes beta=1, kernel=none"),
        ("soft(1, 2, 3)", "'3' stands where no argument of soft does"),
        ("soft(beta=1, 2)", "'2' stands where no argument"),
        ("subsample(3)", "subsample takes no arguments"),
        ("soft(1, beta=2)", "beta is given twice"),
        ("soft(a)", "beta is 'a', and must be of type float"),
        ("soft(true)", "beta is 'true', and must be of type float"),
        ("blur(2.5)", "m is '2.5', and must be of type int"),
        ("lps(x)", r"hidden is 'x', and must be of type int \| None"),
        ("tips(hard=3)", "hard is '3', and must be of type bool"),
    ],
)
def test_parse_refuses(text: str, said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        parse_operator(text)


@pytest.mark.parametrize(
    "text",
    [
        "max(0)", "avg(-1)", "soft(nan)", "lp(0.5)", "lp(nan)", "blur(0)", "maxblur(0)", "maxblur(3, 0)",
        "ddac(0)", "ddac(3, 0)", "aps(0.5)", "aps(2, 0)", "aps(rank=0)", "aps(rank=5)", "aps(choose=output)", "lps(0)",
        "lps(filter=0)", "tips(pool=x)", "tips(phase_order=x)", "tips(failure=x)", "tips(undo=x)",
        "tips(undo_shift=1)", "tips(undo_shift=-0.1)", "lme(nan)", "phase(-1)", "phase(2)", "quantile(0)",
    ],
)  # fmt: skip
def test_build_refuses_values(text: str) -> None:
    with pytest.raises(OperatorError):
        build_operator(text, 4)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_refuses_bad_sizes(name: str) -> None:
    for arguments in ((0,), (4, 0), (4, 1.5), (4, 2, "mirror")):
        with pytest.raises(OperatorError, match="must be"):
            build_operator(name, *arguments)
    operator = build_operator(name, 4)
    for shape in ((4, 8, 8), (2, 3, 8, 8), (2, 4, 0, 8)):
        with pytest.raises(OperatorError, match=r"must be \(N, 4, H, W\)"):
            operator(torch.zeros(shape))
        with pytest.raises(OperatorError, match=r"must be \(N, 4, H, W\)"):
            operator.sampling(torch.zeros(shape))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("rank((.7,0.1 , 1e-1, 0.1))", "rank(w=(0.7, 0.1, 0.1, 0.1))"),
        ("rank((1, 0, 0, 0), 2)", "rank(w=(1, 0, 0, 0), kernel=2)"),
        ("rank(none)", "rank"),
        ("topk", "topk(k=2)"),
        ("mix", "mix(a=0.5)"),
        ("mix(0.5, max(), avg)", "mix(a=0.5)"),
        ("mix(0.25,avg,soft(beta = 4))", "mix(a=0.25, first=avg, second=soft(beta=4))"),
        (
            "prefilter(0.971, mix(0.114, kernel((0.1, 0.2, 0.3, 0.4)), rank((0.7, 0.1, 0.1, 0.1))))",
            "prefilter(low_pass=0.971, then=mix(a=0.114, first=kernel(k=(0.1, 0.2, 0.3, 0.4)), "
            "second=rank(w=(0.7, 0.1, 0.1, 0.1))))",
        ),
    ],
)
def test_lists_and_operators_inside_of_operators(text: str, canonical: str) -> None:
    spec = parse_operator(text)
    assert spec.canonical == canonical
    again = parse_operator(canonical)
    assert again.canonical == canonical
    assert str(spec) == spec.short == text
    assert repr(build_operator(spec, 4)) == repr(build_operator(again, 4))
    assert build_operator(spec, 4).does_as(build_operator(again, 4))
    assert hash(parse_operator(text)) == hash(spec)
    assert spec.code_files == ()
    assert spec.code_sha256 is None


def test_every_operator_has_one_spelling_that_reads_back() -> None:
    for name, cls in OPERATORS.items():
        for arguments in ({}, *cls.examples):
            written = ", ".join(f"{key}={spell(value)}" for key, value in arguments.items())
            spec = parse_operator(f"{name}({written})")
            again = parse_operator(spec.canonical)
            assert again.canonical == spec.canonical
            assert build_operator(again, 4).does_as(cls(4, **arguments))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mix(1.5)", "mix: a is 1.5, and must be from 0 to 1"),
        ("mix(nan)", "mix: a is nan"),
        ("mix(0.5, aps, lps)", "mix: aps and lps choose a phase each"),
        ("mix(0.5, prefilter, max)", r"mix: prefilter filters its map .*: write prefilter\(..., mix\(...\)\)"),
        ("prefilter(-0.1)", "prefilter: low_pass is -0.1, and must be from 0 to 1"),
        ("mix(0.5, rank((0.5, 0.5)), max)", "w has 2 weights and the window 4 pixels"),
    ],
)
def test_compositions_that_are_refused(text: str, said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        build_operator(text, 4)
