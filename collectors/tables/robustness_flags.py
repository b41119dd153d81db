"""The command line's options of the collector ``robustness``, as texts, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from invariscope.base.errors import InputError

if TYPE_CHECKING:
    from invariscope.collectors.tables.robustness import RobustnessOptions


@dataclass(frozen=True)
class RobustnessFlags:
    """Robustness: attacks, corruptions and other data, of the collector robustness."""

    attacks: str = "pgd"
    """Attacks: pgd, and of the library torchattacks apgd-ce, apgd-t, fab-t, square, autoattack; '' for none."""
    norms: str = "linf,l2"
    """Norms of the attacks."""
    eps_linf: str = "1/255,2/255,4/255,8/255"
    """Budgets in linf, in units of [0, 1] pixels."""
    eps_l2: str = "0.25,0.5,1"
    """Budgets in l2, in units of [0, 1] pixels."""
    attack_steps: int = 20
    """Steps of an attack; AutoAttack's standard is 100."""
    attack_restarts: int = 1
    """Random starts of an attack; 0: pgd starts from the image itself."""
    attack_step: float | None = None
    """Step size of pgd as a share of the budget; by default 2.5 / steps."""
    corruptions: str = "all"
    """Corruptions of ImageNet-C by name, all of the 15, or '' for none."""
    severities: str = "1,2,3,4,5"
    """Severities of the corruptions."""
    robust_images: int = 256
    """First images that are attacked and corrupted."""
    second_data: str = ""
    """Other labelled data sets, NAME[:PATH], measured whole; their labels are the classes of the network."""

    def options(self) -> RobustnessOptions:
        """The options that the texts stand for.

        Raises:
            InputError: a budget or severity that is no number.
        """
        from invariscope.collectors.measure.corruptions import CORRUPTIONS
        from invariscope.collectors.tables.robustness import RobustnessOptions

        corruptions = CORRUPTIONS if self.corruptions == "all" else tuple(_names(self.corruptions))
        return RobustnessOptions(
            attacks=tuple(_names(self.attacks)),
            norms=tuple(_names(self.norms)),
            linf=_budgets("--eps-linf", self.eps_linf),
            l2=_budgets("--eps-l2", self.eps_l2),
            steps=self.attack_steps,
            restarts=self.attack_restarts,
            step=self.attack_step,
            corruptions=corruptions,
            severities=tuple(_severity(text) for text in _names(self.severities)),
            images=self.robust_images,
            second_data=tuple(_names(self.second_data)),
        )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _budgets(option: str, text: str) -> tuple[float, ...]:
    found = []
    for part in _names(text):
        try:
            found.append(float(Fraction(part)))
        except (ValueError, ZeroDivisionError) as error:
            raise InputError(f"{option}: {part!r} is no budget: give numbers such as 8/255 or 0.5") from error
    return tuple(found)


def _severity(text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"--severities: {text!r} is no severity: give whole numbers from 1 to 5")
    return int(text)
