"""Names are text wherever they are shown, and code runs by leave alone: each at the place that sees to it."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest

from invariscope.analysis.say.opening import no_markup
from invariscope.base.errors import InputError, ManifestError, OutputError
from invariscope.base.paths import checked_path, file_to_write, folder_to_write
from invariscope.base.spreadsheet import csv_text
from invariscope.base.terminal import one_line_of, plain, say
from invariscope.cli.common import names
from invariscope.cli.flags import read_number, read_whole
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.recipe import read_recipe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("max", "max"),
        ("数 é μ ≤ \U0001f600 $x_1$", "数 é μ ≤ \U0001f600 $x_1$"),
        ("a\x1b[31mb\x07", "a\\x1b[31mb\\x07"),
        ("a\nb\rc\u2028d\x85", "a\\x0ab\\x0dc\\u2028d\\x85"),
        ("\u202egnp.exe\x00\x9b", "\\u202egnp.exe\\x00\\x9b"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_steers_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert plain(text) == shown
    out = io.StringIO()
    say(text, text, file=out)
    assert out.getvalue() == f"{shown}\n{shown}\n"
    assert one_line_of("a\n  b\x1b") == "a b\\x1b"


def test_a_cell_that_a_spreadsheet_would_run_is_text() -> None:
    table = pd.DataFrame({"name": ["=1+1", "+a", "-b", "@c", "-0.5", "plain", None], "msb": [-0.5, 1, 0, 1, 0, 1, 0]})
    rows = [line.rsplit(",", 1) for line in csv_text(table).splitlines()[1:]]
    assert [name for name, _ in rows] == ["'=1+1", "'+a", "'-b", "'@c", "-0.5", "plain", ""]
    assert [float(value) for _, value in rows] == table["msb"].tolist()
    assert table["name"].iloc[0] == "=1+1"


def test_markdown_holds_no_html_and_no_links_of_names() -> None:
    assert no_markup("<b>x</b> [a](b) a < b, 1 <2") == "&lt;b>x&lt;/b> [a]\\(b) a < b, 1 <2"


def test_a_list_of_operators_is_cut_between_brackets_only() -> None:
    assert names("max, mix(0.5, mix(0.5, max, avg), avg),,blur") == ("max", "mix(0.5, mix(0.5, max, avg), avg)", "blur")


@pytest.mark.parametrize("text", ["1e30", "nan", "2.5", "", "0x10", "9" * 25, "-" + "9" * 16, "٣"])
def test_no_whole_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"no whole number|larger than any"):
        read_whole(text)
    assert read_whole("-12") == -12


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "a"])
def test_no_finite_number(text: str) -> None:
    with pytest.raises(ValueError, match="no finite number"):
        read_number(text)
    assert read_number("1e-3") == 0.001


def test_paths_that_no_file_system_takes(tmp_path: Path) -> None:
    for text in ("", " ", "a\0b", "x" * 256, "/".join(["x" * 200] * 30)):
        with pytest.raises(InputError):
            checked_path(text)
    assert checked_path(tmp_path / ("x" * 255)).name == "x" * 255
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="is a file: name a folder"):
            folder_to_write(place)
    with pytest.raises(OutputError, match="is a folder and no file"):
        file_to_write(tmp_path)
    assert folder_to_write(tmp_path / "new" / "deep") == tmp_path / "new" / "deep"


def zoo(folder: Path, spec: str) -> Path:
    """A zoo with a network whose code leaves a trace, and one without code."""
    (folder / "net.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"
        "def build():\n    pass\nbuild.default_cfg = {'input_size': (3, 8, 8), 'mean': (0, 0, 0), 'std': (1, 1, 1)}\n"
    )
    for name in ("mine", "other"):
        (folder / f"{name}.pt").touch()
    known = "input: {size: 8, mean: 0, std: 1}"
    (folder / "zoo.yaml").write_text(
        f"checkpoints:\n- {{model: 'python:net.py:build', weights: mine.pt{spec}}}\n"
        f"- {{model: 'zoo:smallcnn?operator=max', weights: other.pt, {known}}}\n"
    )
    return folder


def test_nothing_of_a_manifest_runs_unless_it_is_asked_for(tmp_path: Path) -> None:
    folder, ran = zoo(tmp_path, ""), tmp_path / "ran"
    with pytest.raises(ManifestError, match=r"runs the code of .*net\.py: read it, then give --allow-code"):
        read_manifest(folder)
    assert [one.name for one in read_manifest(folder, only="oth*")] == ["other"]
    assert [one.name for one in read_manifest(folder, only="oth*", allow_code=True)] == ["other"]
    with pytest.raises(ManifestError, match=r"or add input"):
        read_manifest(folder, listed=True)
    with pytest.raises(ManifestError, match=r"--only x: no checkpoint of the zoo has such a name \(mine is one\)"):
        read_manifest(folder, only="x")
    zoo(tmp_path, ", input: {size: 8, mean: 0, std: 1}")
    assert [one.name for one in read_manifest(folder, listed=True)] == ["mine", "other"]
    assert not ran.exists()
    zoo(tmp_path, "")
    assert read_manifest(folder, allow_code=True)[0].input.size == 8
    assert ran.exists()


def test_a_grid_is_counted_before_it_is_expanded(tmp_path: Path) -> None:
    values = ", ".join(map(str, range(1, 11)))
    text = "\n".join(f"  {key}: [{values}]" for key in ("seed", "epochs", "batch_size", "wake_up", "limit"))
    (tmp_path / "recipe.yaml").write_text(f"grid:\n{text}\n")
    with pytest.raises(InputError, match="the grid stands for 100,000 runs, more than 10,000"):
        read_recipe(tmp_path / "recipe.yaml")
