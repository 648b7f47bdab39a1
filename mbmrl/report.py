"""Rows of one or several evaluations as tables: ``python -m mbmrl.report ROWS.json …``.

Rows of several checkpoints (training seeds) are pooled, paired by condition, path and seed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mbmrl.intervals import difference, gap_closed, mean, ratio
from mbmrl.rows import Row, groups, read_rows
from mbmrl.tasks import COURSES


def agents_table(rows: Sequence[Row]) -> Table:
    """One line an agent: how well it did after the onset, and how fast it was.

    The gap is between frozen and oracle.
    """
    agents = _agents(rows)
    with_oracle = "oracle" in agents
    with_gap = with_oracle and "frozen" in agents
    columns = ["agent", "score", *(["of oracle"] * with_oracle), *(["gap closed"] * with_gap)]
    columns += ["off the path [cm]", "recovery [s]", "falls", "tick p50 / p99 [ms]", "n"]
    table = _table(f"{rows[0].robot}: after the onset, mean [95 % interval]", columns)
    for agent in agents:
        own = [r for r in rows if r.agent == agent]
        fraction = [ratio(rows, "score", agent, "oracle").text()] if with_oracle else []
        fraction += [gap_closed(rows, agent).text()] if with_gap else []
        table.add_row(
            agent,
            mean(rows, "score", agent).text(),
            *fraction,
            mean(rows, "cross_track_m", agent).text(scale=100, digits=1),
            mean(rows, "recovery_s", agent).text(digits=1),
            str(sum(r.fell for r in own)),
            f"{own[0].tick_ms_p50:.1f} / {own[0].tick_ms_p99:.1f}",
            str(len(own)),
        )
    return table


def errors_table(rows: Sequence[Row]) -> Table:
    """One line a learned agent: how well it foresaw, one step ahead and ten steps open loop."""
    steps = {"one step": "pred_error", "open loop": "open_loop_error"}
    columns = ["agent", *(f"{s}: {w}" for s in steps for w in ("θ*", "θ′"))]
    first, *others = _agents(rows)
    columns += [f"{s}: {first}'s / its own" for s in steps]
    table = _table("model error after the onset (variances), mean [95 % interval]", columns)
    for agent in (first, *others):
        means = [
            mean(rows, f"{name}_{which}", agent)
            for name in steps.values()
            for which in ("prior", "adapted")
        ]
        if not any(math.isfinite(m.estimate) for m in means):
            continue
        ratios = [ratio(rows, f"{name}_adapted", first, agent) for name in steps.values()]
        compared = ["" if agent == first else r.text() for r in ratios]
        table.add_row(agent, *(m.text() for m in means), *compared)
    return table


def comparison_table(rows: Sequence[Row]) -> Table:
    """The first agent against each other one, paired, over the suite and over its parts."""
    first, *others = _agents(rows)
    columns = ["conditions", "", "against", "score: difference", "ratio", "off the path: ratio"]
    table = _table(f"{first} against the others, paired [95 % interval]", columns)
    for title, some in groups(rows).items():
        count = len({r.perturbation for r in some})
        for k, other in enumerate(others):
            table.add_row(
                *((title, str(count)) if k == 0 else ("", "")),
                other,
                difference(some, "score", first, other).text(),
                ratio(some, "score", first, other).text(),
                ratio(some, "cross_track_m", first, other).text(),
                end_section=k == len(others) - 1,
            )
    return table


def _agents(rows: Sequence[Row]) -> list[str]:
    """In the order they were asked for."""
    return list(dict.fromkeys(row.agent for row in rows))


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for k, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if k == 0 else "right")
    return table


def check_alike(rows: Sequence[Row]) -> None:
    """Refuse rows whose scores mean different things: of several robots, or of several tasks.

    Raises:
        ValueError: says which.
    """
    robots, paths = sorted({r.robot for r in rows}), {r.path for r in rows}
    if len(robots) > 1:
        raise ValueError(f"rows of several robots: {', '.join(robots)}")
    if not any(paths <= set(courses or [""]) for courses in COURSES.values()):
        raise ValueError(f"rows of several tasks: {', '.join(sorted(paths))}")


def main(args: Sequence[str]) -> None:
    """Print the tables of the rows in the files; the first agent is compared with the others."""
    parser = argparse.ArgumentParser(
        prog="python -m mbmrl.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "rows",
        nargs="+",
        type=Path,
        help="files of `mbmrl eval --json` or `discriminate --json`",
    )
    try:
        rows = read_rows(parser.parse_args(args).rows)
        check_alike(rows)
    except ValueError as error:
        sys.exit(f"report: {error}")
    console = Console(width=160)
    console.print(agents_table(rows))
    console.print(errors_table(rows))
    console.print(comparison_table(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
