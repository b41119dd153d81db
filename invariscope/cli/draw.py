"""``draw``: operators drawn at random, written out as a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from invariscope.base.paths import file_to_write
from invariscope.base.terminal import say
from invariscope.cli.common import DONE
from invariscope.cli.flags import CodeFlag


@dataclass(frozen=True)
class Draw(CodeFlag):
    """Draw the operators of a population study once, and write them out as a recipe for `train`.

    Example: invariscope draw data/recipes/population_digits.design.yaml --out my_population.yaml
    """

    design: Positional[Path]
    """Design: a recipe whose grid holds `population`, `rotations` or `repeats`."""
    out: Path
    """Recipe to write; one that is there is refused."""

    def run(self) -> int:
        """Draw, write, and say how many."""
        from invariscope.zoo.recipe_drawing import write_drawn

        file_to_write(self.out)
        command = f"invariscope draw {self.design.name} --out {self.out.name}"
        runs = write_drawn(self.design, self.out, command, allow_code=self.allow_code)
        counts: dict[str, int] = {}
        for run in runs:
            name = str(run.factors.get("population", "others"))
            counts[name] = counts.get(name, 0) + 1
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        say(f"recipe: {self.out} ({len(runs)} runs: {told})")
        return DONE
