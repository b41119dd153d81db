"""``invariscope draw``: a design becomes a recipe of explicit entries, once; ``train`` reads it and never draws."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from invariscope import cli
from invariscope.base.errors import RecipeError
from invariscope.zoo.population import draw_population, draw_repeats, draw_rotations
from invariscope.zoo.recipe import DESIGNS, RUN_FACTORS, read_recipe
from invariscope.zoo.recipe_drawing import write_drawn
from invariscope.zoo.run import Run
from invariscope.zoo.training import factors
from invariscope.zoo.training.factors import run_factors

DESIGN = """\
# A study of mine.

defaults:
  data: digits  # ours
  model: {width: 8}
grid:
  # Rotations first.
  - rotations: {name: R, blocks: 2, seed: 1, augment_shift: 2}

  # Published ones.
  - {operator: [max, avg], factors: {population: H}}
  - population:
      count: 6
      seed: 2
      training_seed: 50
  # And some again.
  - repeats: {of: P, count: 2, seed: 3}
"""


def design(folder: Path, text: str = DESIGN) -> Path:
    path = folder / "study.design.yaml"
    path.write_text(text)
    return path


def test_what_is_written_is_what_was_drawn_in_the_order_of_the_design(tmp_path: Path) -> None:
    out = tmp_path / "study.yaml"
    runs = write_drawn(design(tmp_path), out, "invariscope draw study.design.yaml --out study.yaml")
    assert read_recipe(out) == runs
    population = draw_population(6, 2, training_seed=50)
    repeats = draw_repeats(population, 2, 3)
    drawn = [*draw_rotations(2, 1, augment_shift=2), *population, *repeats]
    assert [run.draw for run in runs] == [*(one.name for one in drawn[:8]), "", "", *(one.name for one in drawn[8:])]
    for run, one in zip([run for run in runs if run.draw], drawn, strict=True):
        assert (str(run.operator), run.padding_mode, run.seed) == (one.operator, one.padding_mode, one.seed)
        assert run.factors == one.factors
        assert (run.augment_shift, run.augment_flip) == (one.augment_shift or 0, bool(one.augment_shift))
        assert run.model == {"width": 8}
        assert run.id == f"smallcnn-{one.name}-{one.padding_mode}-s{one.seed}"
        assert run_factors(run, run.operator, ()).items() >= {**one.factors, "draw": one.name}.items()
    assert [run.factors for run in runs if not run.draw] == [{"population": "H"}] * 2
    assert {run.augment_shift for run in runs if run.factors["population"] == "R"} == {0, 2}


def test_everything_else_of_a_design_stays_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "study.yaml"
    write_drawn(design(tmp_path), out, "THE COMMAND")
    text = out.read_text()
    assert text.startswith("# Written by `THE COMMAND` (invariscope ")
    kept = [line for line in DESIGN.splitlines() if "rotations:" not in line and "repeats" not in line]
    kept = [*kept[: kept.index("  - population:")], "  # And some again."]
    lines = text.splitlines()
    places = [lines.index(line) for line in kept if line]
    assert places == sorted(places)
    for told in (
        "  # rotations: {name: R, blocks: 2, seed: 1, augment_shift: 2}",
        "  # population: {count: 6, seed: 2, training_seed: 50}",
        "  # repeats: {of: P, count: 2, seed: 3}",
    ):
        assert told in lines
    assert lines.index("  # And some again.") < lines.index("  # repeats: {of: P, count: 2, seed: 3}")


def test_what_follows_the_grid_stays(tmp_path: Path) -> None:
    text = "grid:\n  - population: {count: 2, seed: 1}\n\n# Of all.\ndefaults: {epochs: 3}\n"
    runs = write_drawn(design(tmp_path, text), tmp_path / "study.yaml", "x")
    assert [run.epochs for run in runs] == [3, 3]
    assert (tmp_path / "study.yaml").read_text().endswith("\n\n# Of all.\ndefaults: {epochs: 3}\n")


def test_nothing_is_drawn_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study.yaml"
    command = ["draw", str(design(tmp_path)), "--out", str(out)]
    assert cli.main(command) == cli.DONE
    assert capsys.readouterr().out == f"recipe: {out} (18 runs: R 8, H 2, P 8)\n"
    before = out.read_bytes()
    assert b"# Written by `invariscope draw study.design.yaml --out study.yaml`" in before
    assert cli.main(command) == cli.BAD_INPUT
    assert capsys.readouterr().err == (
        f"invariscope: {out} is there already, and what was drawn stays as it is: name another file\n"
    )
    assert out.read_bytes() == before


@pytest.mark.parametrize("kind", DESIGNS)
def test_training_draws_nothing(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = design(tmp_path, f"grid:\n  - {kind}: {{seed: 1}}\n")
    assert cli.main(["train", str(path), "--out", str(tmp_path / "zoo")]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert f"study.design.yaml:2: {kind} is a design, and training draws nothing: write it out first with" in error
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("grid:\n  - {operator: max}\n", 1, "draws nothing: give its grid an item population or rotations or repeats"),
        ("grid: {operator: max}\n", 1, "draws nothing"),
        ("grid:\n  - population: {count: 4}\n", 2, "population lacks 'seed'"),
        ("grid:\n  - population: {count: 4, seed: 1, sed: 1}\n", 2, "unknown key 'sed'"),
        ("grid:\n  - population: {count: 1, seed: 1}\n", 2, "1 operators: draw at least 2"),
        (
            "grid:\n  - population: {count: 4, seed: 1, zero_padded: 1}\n",
            2,
            "zero_padded is 1, and must be true or false",
        ),
        ("grid:\n  - population: {count: 4, seed: 1, name: a b}\n", 2, "population: name is 'a b', and must be a word"),
        ("grid:\n  - population: {count: 4, seed: 1}\n    epochs: 3\n", 2, "population stands beside epochs"),
        ("grid:\n  - rotations: {blocks: 4, seed: 1, pixels: 5}\n", 2, "windows of 5 pixels: take 4 or 9"),
        ("grid:\n  - repeats: {of: P, count: 1, seed: 1}\n", 2, "repeats of P, which is not drawn above"),
        ("grid: [{population: {count: 4, seed: 1}}]\n", 1, "population must begin a line of its own"),
        (
            "grid:\n  - population: {count: 4, seed: 1}\n  - population: {count: 4, seed: 2}\n",
            3,
            "P is drawn already: give it another name",
        ),
        ("grid:\n  - population: {count: 2, seed: 1}\n  - {operator: maxx}\n", None, "unknown operator 'maxx'"),
    ],
)
def test_errors_name_the_line_and_leave_nothing(tmp_path: Path, text: str, line: int | None, message: str) -> None:
    out = tmp_path / "study.yaml"
    path = design(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        write_drawn(path, out, "x")
    assert message in str(caught.value)
    if line is not None:
        assert str(caught.value).startswith(f"{path}:{line}: ")
    assert not out.exists()


def test_an_out_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    path = design(tmp_path)
    with pytest.raises(RecipeError, match=r"study.yaml: cannot be written \(.*\): name another file"):
        write_drawn(path, path / "study.yaml", "x")


def test_names_and_factors_of_a_draw_change_no_weights() -> None:
    run = Run(operator="soft(beta=2)")
    named = dataclasses.replace(run, draw="P001", factors={"population": "P"})
    assert named.settings == run.settings
    assert named.id == "smallcnn-P001-zeros-s0"
    assert named.snapshot_name(30) == "smallcnn-P001-zeros-s0-e030"


def test_factors_of_a_recipe_are_named_anew(tmp_path: Path) -> None:
    path = design(tmp_path, "grid:\n  operator: max\n  factors: {population: H, seed: 4}\n")
    with pytest.raises(RecipeError, match=r":3: factors.seed is what the recipe says of each run already"):
        read_recipe(path)
    path = design(tmp_path, "grid:\n  operator: max\n  factors: {population: [H]}\n")
    with pytest.raises(RecipeError, match=r"factors.population is \['H'\], and must be text, a number"):
        read_recipe(path)


def test_every_factor_that_a_run_has_of_itself_is_kept_for_it() -> None:
    runs = [Run(operator="tips", draw="P0"), Run(operator="soft(beta=2)")]
    told = [name for run in runs for name in run_factors(run, run.operator, (*factors._OF_RUN, *factors._OF_OPERATOR))]
    assert {*told, *factors._OF_RUN, *factors._OF_OPERATOR, "epoch"} <= set(RUN_FACTORS)


def test_the_same_training_under_two_draws_is_refused(tmp_path: Path) -> None:
    path = design(tmp_path, "grid:\n  - {operator: soft(2), draw: A}\n  - {operator: soft(beta=2), draw: B}\n")
    with pytest.raises(RecipeError, match="the run smallcnn-B-zeros-s0 stands already in the grid of line 2"):
        read_recipe(path)


def test_a_part_of_a_design_is_the_first_of_what_is_drawn(tmp_path: Path) -> None:
    text = DESIGN.replace("blocks: 2, seed: 1", "blocks: 3, first: 2, seed: 1").replace(
        "seed: 2\n", "seed: 2\n      first: 4\n"
    )
    text = text.partition("  # And some again.")[0] + "  - rotations: {name: S, part_of: R, blocks: 2, seed: 4}\n"
    runs = [run for run in write_drawn(design(tmp_path, text), tmp_path / "part.yaml", "invariscope draw") if run.draw]
    drawn = [*draw_rotations(3, 1, augment_shift=2)[:8], *draw_population(6, 2, training_seed=50)[:4]]
    more = draw_rotations(2, 4, name="S")
    assert [(run.draw, str(run.operator)) for run in runs] == [(one.name, one.operator) for one in (*drawn, *more)]
    assert [run.factors for run in runs[-8:]] == [{**one.factors, "population": "R"} for one in more]
    with pytest.raises(RecipeError, match="first is 9, of 6 that are drawn"):
        write_drawn(design(tmp_path, text.replace("first: 4", "first: 9")), tmp_path / "none.yaml", "invariscope draw")
