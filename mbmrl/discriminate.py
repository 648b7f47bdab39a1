"""On which perturbations knowing what is wrong pays: the true-simulator planners, compared."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from mbmrl import conditions
from mbmrl.compose import ON_THE_SIMULATOR, faults
from mbmrl.conditions import Condition
from mbmrl.intervals import Interval, difference, mean, ratio
from mbmrl.rows import Row
from robots.perturbations.base import Perturbation
from robots.sim import SimRobot

COLUMNS = (
    "perturbation",
    *ON_THE_SIMULATOR,
    "oracle − nominal",
    "oracle − robust",
    "fell",
    "verdict",
)


UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Gap:
    """A robot under one perturbation; scores are means after the onset, 1 as wanted.

    Attributes:
        perturbation: as text; ``none`` for the undamaged robot.
        known: whether it is among the faults that ``robust`` reckons with.
        scores: of oracle, nominal and robust; unknown where robust was not driven.
        over_nominal: what knowing the damage adds to the score, paired by seed.
        over_robust: what it adds to planning for all of some damages.
        falls: in how many episodes of each of the three the robot fell; without robust where it
            was not driven.
        episodes: of each; the fewest.
    """

    perturbation: str
    known: bool
    scores: dict[str, Interval]
    over_nominal: Interval
    over_robust: Interval
    falls: dict[str, int]
    episodes: int

    @property
    def discriminates(self) -> bool:
        """Whether the oracle beats the planner that knows of no damage: disjoint intervals."""
        return self.scores["oracle"].low > self.scores["nominal"].high

    @property
    def defeats_robust(self) -> bool:
        """Whether the oracle beats the robust planner so."""
        return self.scores["oracle"].low > self.scores["robust"].high

    @property
    def verdict(self) -> str:
        """In words; empty where it belongs in no benchmark."""
        told = {"discriminates": self.discriminates, "defeats robust": self.defeats_robust}
        return ", ".join(words for words, so in told.items() if so)

    def cells(self) -> list[str]:
        """As shown under :data:`COLUMNS`."""
        return [
            self.perturbation + (" (known to robust)" if self.known else ""),
            *(self.scores[agent].text() for agent in ON_THE_SIMULATOR),
            self.over_nominal.text(),
            self.over_robust.text(),
            " / ".join(str(self.falls.get(agent, "–")) for agent in ON_THE_SIMULATOR)
            + f" of {self.episodes}",
            self.verdict,
        ]


@dataclass
class Results:
    """What was driven so far.

    Attributes:
        seconds: per episode [s].
        known: the faults that ``robust`` reckons with on each robot, as text.
        rows: an episode each, of any robots.
    """

    seconds: float
    known: dict[str, list[str]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def load(cls, file: Path | None, seconds: float) -> Results:
        """What an earlier call left in that file; nothing where there is no such file.

        Raises:
            ValueError: it is no record, or one of episodes of another length.
        """
        if not file or not file.exists():
            return cls(seconds)
        try:
            data = json.loads(file.read_text())
            rows = [Row.from_json(row) for row in data["rows"]]
            found = cls(data["seconds"], data["known"], rows)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            told = f"{file} is no record of `mbmrl discriminate`: {type(error).__name__}: {error}"
            raise ValueError(told) from error
        if found.seconds != seconds:
            raise ValueError(f"{file} holds episodes of {found.seconds:g} s, not {seconds:g}")
        return found

    def dump(self) -> str:
        """What :meth:`load` reads."""
        rows = [row.to_json() for row in self.rows]
        return json.dumps({"seconds": self.seconds, "known": self.known, "rows": rows}, indent=1)

    def of(self, robot: str) -> list[Row]:
        """The rows of one robot."""
        return [row for row in self.rows if row.robot == robot]


def suite(robot: SimRobot, per_kind: int | None = None) -> list[Condition]:
    """The sound robot, its single held-out perturbations, and the faults ``robust`` knows.

    Without those that mislead sensors alone: who plans on the true simulator looks at none.

    Args:
        robot: of which kind.
        per_kind: at most so many held-out ones of every kind, the first of the robot's test suite.
    """
    single = [c for c in conditions.test_suite(robot) if len(c) == 1 and _acts(c[0], robot)]
    kinds = [c[0].name for c in single]
    held_out = [c for i, c in enumerate(single) if kinds[:i].count(kinds[i]) < (per_kind or i + 1)]
    return [(), *held_out, *faults(robot)]


def _acts(perturbation: Perturbation, robot: SimRobot) -> bool:
    """Whether it touches the body, the world or the actuators."""
    grown = perturbation.at(math.inf)
    return type(grown).apply is not Perturbation.apply or grown.actuator_memory(robot) is not None


def gaps(record: Results, robot: str) -> list[Gap]:
    """Each perturbation of the robot that oracle and nominal were driven under."""
    rows, found = record.of(robot), []
    for name in dict.fromkeys(row.perturbation for row in rows):
        some = [row for row in rows if row.perturbation == name]
        own = {agent: [r for r in some if r.agent == agent] for agent in ON_THE_SIMULATOR}
        if not (own["oracle"] and own["nominal"]):
            continue
        robust = bool(own["robust"])
        gap = Gap(
            perturbation=name,
            known=name in record.known.get(robot, ()),
            scores={a: mean(some, "score", a) if of else UNKNOWN for a, of in own.items()},
            over_nominal=difference(some, "score", "oracle", "nominal"),
            over_robust=difference(some, "score", "oracle", "robust") if robust else UNKNOWN,
            falls={agent: sum(r.fell for r in of) for agent, of in own.items() if of},
            episodes=min(len(of) for of in own.values() if of),
        )
        found.append(gap)
    return found


def summary(record: Results, robot: str) -> str:
    """How many perturbations discriminate, and how far robust planning gets."""
    found = [gap for gap in gaps(record, robot) if gap.perturbation != "none"]
    held_out = [gap for gap in found if not gap.known]
    parts = [
        f"{robot}, {record.seconds:g} s an episode: {sum(g.discriminates for g in held_out)} of "
        f"{len(held_out)} held-out perturbations discriminate."
    ]
    if any("robust" in gap.falls for gap in held_out):
        parts.append(f"{sum(g.defeats_robust for g in held_out)} defeat robust planning.")
    for what, known in (("held out", False), ("that it knows", True)):
        driven = [gap for gap in found if gap.known == known and "robust" in gap.falls]
        names = {gap.perturbation for gap in driven if gap.discriminates}
        some = [row for row in record.of(robot) if row.perturbation in names]
        if some:
            share = ratio(some, "score", "robust", "oracle").text()
            parts.append(f"Of those {what}, robust gets {share} of the oracle's score.")
    return " ".join(parts)


def table(record: Results, robot: str) -> Table:
    """One line a perturbation."""
    shown = Table(title=summary(record, robot), title_justify="left", box=box.SIMPLE_HEAD)
    for k, column in enumerate(COLUMNS):
        shown.add_column(column, justify="right" if 0 < k < len(COLUMNS) - 1 else "left")
    for gap in gaps(record, robot):
        shown.add_row(*(escape(cell) for cell in gap.cells()))
    return shown


PREFACE = """\
# Where knowing the damage pays

`mbmrl discriminate` drives each robot under one perturbation at a time with three planners on the
true simulator: **oracle** knows what is wrong, **nominal** takes the robot for undamaged,
**robust** plans for the mean of the undamaged robot and the faults marked as known to it, and never
learns which it is. None of them has a learned model: they bound what adapting can buy. None looks
at sensors, so that what misleads these alone is not driven; and where a perturbation changes with
time or place (gusts, patches, ramps) they plan with it as it is now, so that the oracle is no upper
bound there.

Scores are means after the onset, 1 as wanted, with 95 % intervals over the episodes; differences
are paired by seed; "fell" counts episodes in that order. A perturbation **discriminates** where
the intervals of oracle and nominal are disjoint, and **defeats robust** planning where those of
oracle and robust are. A dash: not driven.
"""


def check_page(page: str, file: Path) -> None:
    """Refuse a page that :func:`markdown` did not write; raises ValueError."""
    if not page.startswith(PREFACE):
        raise ValueError(f"{file} is no page of `mbmrl discriminate`")


def markdown(record: Results, page: str = "") -> str:
    """The same as a page, of all robots.

    Args:
        record: whose tables to write.
        page: written earlier; its tables of robots that the record does not have stay.
    """
    sections = {part.splitlines()[0]: part.rstrip() for part in page.split("\n## ")[1:]}
    for robot in dict.fromkeys(row.robot for row in record.rows):
        cells = [list(COLUMNS), ["---"] * len(COLUMNS), *(g.cells() for g in gaps(record, robot))]
        rows = [f"| {' | '.join(row)} |" for row in cells]
        sections[robot] = "\n".join([robot, "", summary(record, robot), "", *rows])
    return PREFACE + "".join(f"\n## {section}\n" for section in sections.values())
