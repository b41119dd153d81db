"""The command line: the help of every command, and the table of sites."""

from __future__ import annotations

import json

import pytest

from invariscope import cli
from invariscope.analysis.exports import EXPORTERS
from invariscope.analysis.figures import FIGURES
from invariscope.analysis.publication import PAPER_TABLES
from invariscope.collectors.schema import COLLECTORS
from invariscope.zoo.architectures import ARCHITECTURES
from invariscope.zoo.datasets import DATASETS
from invariscope.zoo.operators import OPERATORS


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_sites_as_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sites", "zoo:smallcnn?operator=tips&width=4", "--size", 32) == cli.DONE
    assert capsys.readouterr().out.count(" tips ") == 3
    assert run("sites", "zoo:smallcnn?operator=tips&width=4", "--json") == cli.DONE
    sites = json.loads(capsys.readouterr().out)
    assert [site["kind"] for site in sites] == ["tips"] * 3
    assert run("sites", "zoo:nonet") == cli.BAD_INPUT
    assert "unknown architecture 'nonet'" in one_line(capsys)
    assert run("sites", "zoo:resnet8?operator=strided&in_channels=1") == cli.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "zoo:resnet8?operator=strided&in_channels=1: 4 downsampling sites (input 1 x 32 x 32)"
    columns = ["depth", "name", "kind", "kernel", "stride", "channels", "input_size", "output_size"]
    assert lines[1].split() == [*columns, "reason", "explained"]
    assert lines[2].split() == ["0", "layer2.0.conv1", "conv", "3x3", "2x2", "32", "32x32", "16x16", "reader"]
    for option in ("--size", "--channels"):
        assert run("sites", "zoo:resnet8", option, 0) == cli.BAD_INPUT
        assert capsys.readouterr().err.strip() == f"invariscope: {option} is 0: give a whole number of at least 1"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(command, "--help")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert f"Example: invariscope {command}" in printed
    assert "--quiet" in printed
    assert "--log-level" in printed


def test_help_lists_everything_that_is_registered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    printed = " ".join(capsys.readouterr().out.split())
    for registry in (OPERATORS, ARCHITECTURES, DATASETS, COLLECTORS, FIGURES, PAPER_TABLES, EXPORTERS):
        assert f"{', '.join(registry)}." in printed


def test_what_the_parser_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for given, word in (
        (("collect", "zoo", "--dta", "digits", "--out", "t"), "--dta"),
        (("collect", "zoo", "--data", "digits", "--out", "t", "--limit", "2.5"), "--limit: '2.5' is no whole number"),
        (("demo", "--task", "all"), "--task"),
        (("analyze", "tables"), "--out"),
    ):
        assert run(*given) == cli.BAD_INPUT
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("invariscope: ")
        assert word in line
        assert line.endswith(f": see `invariscope {given[0]} --help`")


def test_the_parser_prints_what_completes_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run("--tyro-print-completion", "bash")
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert "complete -" in printed
    assert "--keep-nondeterministic" in printed
