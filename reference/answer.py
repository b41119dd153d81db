"""Write RESULTS.md of the population study from its tables: every number and every verdict in it is computed here.

Run `python -m reference.answer TABLES OUT RESULTS.md [FIRST]`: OUT takes statements, summary and figures, FIRST
is the folder of the first study's tables, beside which the answer is put. `make figures` does this for the published
tables. The study may be partial: what is there is analysed as the plan says, and how much that is stands beside it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from invariscope.analysis import save_figures
from invariscope.analysis.say.opening import FIGURE_FILE, summary_text
from invariscope.base.files import write_together, write_whole
from reference.answer_findings import findings
from reference.answer_leg import Leg, second_leg
from reference.answer_power import pairs_needed, simulated_power
from reference.answer_prediction import predicted
from reference.answer_sections import (
    again,
    beside_the_first,
    claims,
    explained,
    failed,
    in_one_cell,
    limits,
    linked,
    paired,
    progress,
    reliability,
    robust,
)
from reference.answer_statements import key, qualified, two_tests
from reference.answer_study import FIGURES, HEADLINE, PUBLISHED, Answer, planned
from reference.answer_tables import (
    material,
    power_table,
    statement_table,
)


def text(answer: Answer, figures: str = "docs/population") -> str:
    """The whole of RESULTS.md; ``figures``: the folder that it links to."""
    found = answer.found
    table, leg = statement_table(found), Leg.of(answer.folder, found)
    parts = [
        "# Results",
        "<!-- Written by reference/answer.py (`make figures`); a test compares it with the tables. -->",
        answer.results.opening.markdown(f"{figures}/{HEADLINE}.png"),
        leg.verdict() if leg else "",
        progress(answer),
        "## Statement by statement",
        "The statements were fixed before any network of this study was trained, with dated addenda since "
        "([docs/analysis-plan.md](docs/analysis-plan.md), version 2); (1) and (2) under both kinds of shift are the "
        "four that Holm's correction is over. Consistency is that of two shifts of an image by up to an eighth of its "
        "size; a unit of MSB is the way from averaging a window to sampling its maximum. All numbers, also those at a "
        f"quarter of the size, are in [statements.csv]({figures}/statements.csv).",
        key(),
        table,
        *qualified(answer, table),
        f"![Slopes within blocks of rotations]({figures}/rotations.png)",
        *second_leg(answer.folder, found),
        "## If not MSB, what is it?",
        *explained(answer, figures),
        "## How well published operators are predicted",
        *predicted(answer, figures),
        *linked(answer),
        *paired(found),
        *robust(answer),
        "## The figure that a reader of the paper looks for",
        *in_one_cell(answer, figures),
        "## The paper's claims, one by one",
        claims(answer),
        *beside_the_first(answer),
        "## How sure this is",
        power_table(found),
        two_tests(found),
        "Seen four times in five by the interval: 1.96 and 0.84 standard errors, without Holm's correction. "
        + reliability(answer),
        *simulated_power(answer.folder),
        pairs_needed(found),
        "Before any training the power was simulated with the residuals of a pilot, which were larger: "
        "docs/analysis-plan.md, *Power*.",
        "## What was trained and measured",
        material(answer.rows, planned()),
        *failed(answer),
        "## What this does not say",
        "\n".join(f"* {line}" for line in limits(answer)),
        "## Again",
        again(),
        "## Appendix: the first study",
        "118 networks of 12 published operators, with its errata: "
        "[docs/reference/first-study.md](docs/reference/first-study.md). Eleven operators cannot answer the question, "
        "and most of its statements say so.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def main(folder: str, out: Path, page: Path, first: str | None = None) -> None:
    """Write RESULTS.md, and into ``out`` its figures, the statements, the summary and what the README shows."""
    answer = Answer.of(folder, first)
    shutil.rmtree(out, ignore_errors=True)
    for path in save_figures(answer.frames, out, list(FIGURES)):
        print(path)
    written = {
        "statements.csv": answer.results.statements.to_csv(index=False, lineterminator="\n").encode(),
        "summary.md": summary_text(answer.results.opening, answer.results.folds, FIGURE_FILE).encode(),
        FIGURE_FILE: (out / f"{HEADLINE}.png").read_bytes(),
        "findings.md": findings(answer).encode(),
    }
    write_together({out / name: content for name, content in written.items()})
    for data in answer.compared:
        for path in save_figures(answer.frames, out / data.partition("/")[0], [PUBLISHED], data=data):
            print(path)
    write_whole(page, text(answer, out.as_posix()).encode())


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
