r"""Which learner drives best? The learners of one training, as a table in Markdown and a picture.

Those of one training have had the same data and equally many updates, and rows of one evaluation
are paired by damage, path and start:

    mbmrl train --robot hexapod --adapter latent_bayes,bayes,maml --out runs/all
    mbmrl eval --robot hexapod --checkpoint runs/all --agents default,bayes,maml,frozen,pooled \
               --json runs/all.json
    python benchmarks/adapter_table.py runs/all runs/all.json --picture runs/all.png

More rows, the oracle's above all, may lie in files of their own. The loss is the meta-objective
after adapting, on windows under conditions that training did not see.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mbmrl import checkpoint, registry
from mbmrl.checkpoint import Checkpoint
from mbmrl.intervals import difference, gap_closed, mean, ratio
from mbmrl.plot import COLOURS, INK, STYLE
from mbmrl.rows import Row, read_rows


def loss(made: Checkpoint, agent: str) -> float | None:
    """What the learner behind an agent's name left of the objective; None where there is none."""
    if agent in registry.names("adapters"):
        agent = registry.load("adapters", agent).trained_as or agent
    losses: dict[str, float] = made.training["validation_loss"]
    return losses.get({"pooled": "none"}.get(agent, agent))


def ranked(rows: Sequence[Row]) -> list[str]:
    """Agents, the best first."""
    agents = dict.fromkeys(row.agent for row in rows)
    return sorted(agents, key=lambda agent: -mean(rows, "score", agent).estimate)


def table(made: Checkpoint, rows: Sequence[Row]) -> str:
    """One line an agent, in Markdown."""
    agents = ranked(rows)

    def error(name: str) -> Callable[[str], str]:
        def cell(agent: str) -> str:
            found = (mean(rows, f"{name}_{w}", agent) for w in ("prior", "adapted"))
            texts = dict.fromkeys(each.text(interval=False) for each in found)
            return " → ".join(texts)  # one, where nothing adapts

        return cell

    def loss_of(agent: str) -> str:
        left = loss(made, agent)
        return "–" if left is None else f"{left:.3f}"

    columns: dict[str, Callable[[str], str]] = {
        "after the onset": lambda agent: agent,
        "loss": loss_of,
        "one step: θ* → θ′": error("pred_error"),
        "open loop: θ* → θ′": error("open_loop_error"),
        "score": lambda agent: mean(rows, "score", agent).text(),
    }
    if "oracle" in agents:
        columns["of the oracle's"] = lambda agent: ratio(rows, "score", agent, "oracle").text()
        if "frozen" in agents:
            columns["gap closed"] = lambda agent: gap_closed(rows, agent).text()
    if any(math.isfinite(row.cross_track_m) for row in rows):
        columns["off the path [cm]"] = lambda agent: mean(rows, "cross_track_m", agent).text(
            scale=100, digits=1
        )
    columns |= {
        "recovery [s]": lambda agent: mean(rows, "recovery_s", agent).text(digits=1),
        "falls": lambda agent: str(sum(row.fell for row in rows if row.agent == agent)),
        f"score − {made.default}": lambda agent: difference(
            rows, "score", agent, made.default
        ).text(),
        "n": lambda agent: str(sum(row.agent == agent for row in rows)),
    }
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[cell(agent) for cell in columns.values()] for agent in agents]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(made: Checkpoint, rows: Sequence[Row], path: Path) -> None:
    """Score above the default's, and the loss beside it, one line an agent."""
    agents = ranked(rows)[::-1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 1 + 0.28 * len(agents)), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
        for y, agent in enumerate(agents):
            colour = COLOURS.get("default" if agent == made.default else agent, INK)
            found = difference(rows, "score", agent, made.default)
            left.plot((found.low, found.high), (y, y), color=colour)
            left.plot(found.estimate, y, "o", color=colour)
            if (rest := loss(made, agent)) is not None:
                right.plot(rest, y, "o", color=colour)
        left.axvline(0, color=COLOURS["default"], linewidth=0.8)
        left.set_yticks(range(len(agents)), agents)
        count = len({row.perturbation for row in rows})
        left.set_title(f"score − {made.default}'s, {count} damages of the {rows[0].robot}")
        right.set_title("loss after adapting")
        figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table; draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a folder of `mbmrl train`")
    parser.add_argument("rows", type=Path, nargs="+", help="of `mbmrl eval --json`")
    parser.add_argument("--picture", type=Path, help="a PNG to draw")
    args = parser.parse_args()
    try:
        made = checkpoint.load(args.checkpoint)
        found = read_rows(args.rows)
    except ValueError as error:
        parser.error(str(error))
    rows = [replace(r, agent=made.default) if r.agent == "default" else r for r in found]
    if made.default not in {row.agent for row in rows}:
        parser.error(f"no row is of {made.default!r}, with which the others are compared")
    print(table(made, rows))
    if args.picture:
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        draw(made, rows, args.picture)


if __name__ == "__main__":
    main()
