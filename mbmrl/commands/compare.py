"""Agents, robots and damages beside each other."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import UseAppendAction, arg

from mbmrl.commands.common import (
    ONSET,
    CheckpointDir,
    PlannerName,
    RobotName,
    Seconds,
    UsageError,
    check_file,
    check_numbers,
    condition,
    courses,
    driven,
    load_simulated,
    show,
    split,
    write_whole,
)

if TYPE_CHECKING:
    from mbmrl.discriminate import Results
    from mbmrl.evaluate import Evaluation
    from mbmrl.rows import Row


@dataclass(frozen=True)
class Eval:
    """Compare agents on the same robots, damages and seeds; a table with 95 % intervals.

    Several --perturb act at once, as one condition. Without any, the robot's whole test suite of
    held-out conditions is driven one by one, as with --suite test. Score (1 as wanted, 0
    worthless), distance from the path and model error are means after the onset; the intervals
    resample conditions first and episodes within them. The first agent is compared with each
    other one, paired by condition, path and seed.

    Episodes run side by side, so the times of a tick, and the deadlines missed, come from a short
    run of a single, undamaged robot, once for each agent.

    For example:

      mbmrl eval --robot hexapod --agents default,frozen,pooled,oracle
      mbmrl eval --robot hexapod --agents maml,rls --perturb damaged_leg:leg=L0,mode=locked
      mbmrl eval --robot cheetah --perturb none --agents default,frozen --json rows.json
    """

    robot: RobotName = "hexapod"
    checkpoint: CheckpointDir = None
    perturb: UseAppendAction[
        Annotated[
            tuple[str, ...],
            arg(
                metavar="KIND:key=value,…",
                help="From `mbmrl list perturbations`; repeat it for several at once; `none` for "
                "the undamaged robot. Without onset=SECONDS it begins 30 % into the episode.",
            ),
        ]
    ] = ()
    suite: Annotated[
        Literal["test", "validation"] | None,
        arg(
            help="Drive a list of conditions one by one: the robot's held-out ones, or draws of "
            "the training ranges, to choose settings on.",
        ),
    ] = None
    agents: Annotated[
        str, arg(metavar="A,B,…", help="From `mbmrl list agents`, and any adapter.")
    ] = "default,frozen,pooled"
    planner: PlannerName = None
    paths: Annotated[
        str | None,
        arg(
            metavar="P,Q,…",
            help="Each is driven, see `mbmrl run --help`; when left out, the last two.",
        ),
    ] = None
    episodes: Annotated[int, arg(metavar="N", help="Per condition, path and agent.")] = 1
    seconds: Seconds = 20.0
    seed: Annotated[int, arg(metavar="N", help="Of the first episode; the next one has N + 1.")] = 0
    jobs: Annotated[int, arg(metavar="N", help="Processes to share the work.")] = 1
    json: Annotated[Path | None, arg(metavar="FILE", help="Write one row an episode here.")] = None

    def __call__(self) -> None:
        """Evaluate."""
        check_numbers(seconds=self.seconds, seed=self.seed, episodes=self.episodes, jobs=self.jobs)
        if self.perturb and self.suite:
            raise UsageError("--perturb and --suite exclude each other")
        check_file(self.json)
        import torch

        from mbmrl import conditions, report
        from mbmrl.evaluate import Evaluation

        torch.set_num_threads(1)
        cls = load_simulated(self.robot, self.seconds)
        if self.perturb:
            suite = [condition(cls, self.perturb, self.seconds)]
        else:
            every = conditions.SUITES[self.suite or "test"](cls())
            suite = [conditions.starting(c, ONSET * self.seconds) for c in every]
        what = Evaluation(
            robot=self.robot,
            conditions=tuple(suite),
            agents=split(self.agents),
            paths=courses(cls, split(self.paths) if self.paths else None, 2),
            episodes=self.episodes,
            seconds=self.seconds,
            seed=self.seed,
            checkpoint=self.checkpoint,
            planner=self.planner,
        )
        rows: list[Row] = []
        for _ in driven(what, self.jobs, rows):
            if self.json:
                write_whole(self.json, json.dumps([row.to_json() for row in rows], indent=1))
        show(report.agents_table(rows))
        show(report.errors_table(rows))
        if len(what.agents) > 1:
            show(report.comparison_table(rows))


@dataclass(frozen=True)
class Discriminate:
    """Find the perturbations that tell controllers apart: those on which to know the damage pays.

    Three planners on the true simulator are compared: oracle, who knows what is wrong with the
    robot, nominal, who takes it for undamaged, and robust, who plans for the mean of the undamaged
    robot and four faults. None of them learns: they bound what adapting can buy. Each held-out
    perturbation of the robot's test suite is driven by itself, and the faults that robust knows. A
    perturbation discriminates where the 95 % intervals of oracle's and nominal's score are
    disjoint, and it defeats robust planning where oracle's and robust's are.

    This takes hours a robot, most of them for robust: with --robust-where-it-matters only the
    perturbations that discriminate are driven with it. With --json it goes on where an earlier
    call was cut off, be it with another robot or with more episodes; --markdown writes the tables
    of all robots in it into a page, where other robots' stay.

    For example:

      mbmrl discriminate --robot cheetah --jobs 2 --json runs/gaps.json
      mbmrl discriminate --robot hexapod --jobs 2 --json runs/gaps.json --markdown docs/gaps.md
      mbmrl discriminate --robot cheetah --seconds 3 --episodes 2 --robust-where-it-matters
    """

    robot: RobotName = "hexapod"
    robust_where_it_matters: Annotated[
        bool, arg(help="Drive robust only where oracle beats nominal.")
    ] = False
    per_kind: Annotated[
        int | None,
        arg(metavar="N", help="At most so many held-out perturbations of a kind; else all."),
    ] = None
    episodes: Annotated[int, arg(metavar="N", help="Per perturbation and planner.")] = 5
    seconds: Seconds = 10.0
    seed: Annotated[int, arg(metavar="N", help="Of the first episode; the next one has N + 1.")] = 0
    jobs: Annotated[int, arg(metavar="N", help="Processes to share the work.")] = 1
    json: Annotated[
        Path | None, arg(metavar="FILE", help="Keep the episodes here, and go on from them.")
    ] = None
    markdown: Annotated[Path | None, arg(metavar="FILE", help="Write the tables here.")] = None

    def __call__(self) -> None:
        """Compare."""
        check_numbers(
            seconds=self.seconds,
            seed=self.seed,
            episodes=self.episodes,
            jobs=self.jobs,
            per_kind=self.per_kind,
        )
        check_file(self.json)
        check_file(self.markdown, "--markdown")
        import torch

        from mbmrl import conditions, discriminate
        from mbmrl.compose import faults
        from mbmrl.evaluate import Evaluation

        torch.set_num_threads(1)
        cls = load_simulated(self.robot, self.seconds)
        record = discriminate.Results.load(self.json, self.seconds)
        record.known[cls.spec.name] = [conditions.text(fault) for fault in faults(cls())]
        page = ""
        if self.markdown and self.markdown.exists():
            page = self.markdown.read_text(errors="replace")
            discriminate.check_page(page, self.markdown)
        what = Evaluation(
            robot=self.robot,
            conditions=tuple(
                conditions.starting(c, ONSET * self.seconds)
                for c in discriminate.suite(cls(), self.per_kind)
            ),
            agents=("oracle", "nominal"),
            paths=courses(cls, None, 1),
            episodes=self.episodes,
            seconds=self.seconds,
            seed=self.seed,
        )
        self._drive(what, record)
        chosen = what.conditions
        if self.robust_where_it_matters:
            known = {g.perturbation: g for g in discriminate.gaps(record, cls.spec.name)}
            chosen = tuple(c for c in chosen if known[conditions.text(c) or "none"].discriminates)
        try:  # the page is there without the hours that are cut off
            self._drive(replace(what, agents=("robust",), conditions=chosen), record)
        finally:
            if self.markdown:
                write_whole(self.markdown, discriminate.markdown(record, page))
        show(discriminate.table(record, cls.spec.name))

    def _drive(self, what: Evaluation, record: Results) -> None:
        for _ in driven(what, self.jobs, record.rows):
            if self.json:
                write_whole(self.json, record.dump())
