"""How fast it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from mbmrl.commands.common import (
    UsageError,
    check_file,
    show,
    write_whole,
)

FLAGS = ("tick", "plan", "meta", "sim", "ros", "regression")


@dataclass(frozen=True)
class Bench:
    """Time this machine, on one thread; every ratio is of rivals timed in turn in one run.

    Without a flag, or with --tick, the whole tick of one robot's default controller against its
    control period; robots for which no checkpoint is shipped get random weights, which cost the
    same. --plan and --meta time planning, adapting and meta-training against the bare matrix
    products of the same sizes, and against other libraries where they are installed (pip install
    'mbmrl[bench]'); --sim times the simulation against dm_control's own loop; --ros times the
    control loop over ROS 2 topics, a minute a robot, the controller in a process of its own; `cart`
    is a robot for 100 Hz. --regression tests no speed but every learner, without a robot: curves
    from 5 and 10 points, half an hour in all.

    For example:

      mbmrl bench
      mbmrl bench --robot cheetah --json tick.json
      mbmrl bench --plan --json plan.json
      mbmrl bench --meta
      mbmrl bench --ros --robot cheetah
      mbmrl bench --regression --json curves.json
    """

    tick: Annotated[bool, arg(help="The control loop of each robot.")] = False
    plan: Annotated[bool, arg(help="Large plans, on every rollout engine.")] = False
    meta: Annotated[bool, arg(help="Adapting, and a step of meta-training.")] = False
    sim: Annotated[bool, arg(help="Simulating robots, beside dm_control's own loop.")] = False
    ros: Annotated[bool, arg(help="The control loop over ROS 2 topics, in real time.")] = False
    regression: Annotated[bool, arg(help="Every learner on curves from a few points.")] = False
    robot: Annotated[
        str | None,
        arg(metavar="NAME", help="From `mbmrl list robots`; when left out, all of them."),
    ] = None
    json: Annotated[Path | None, arg(metavar="FILE", help="Write the figures here, as rows.")] = (
        None
    )

    def __call__(self) -> None:
        """Time it."""
        check_file(self.json)
        flags = {name: getattr(self, name) for name in FLAGS}
        if sum(flags.values()) > 1:
            raise UsageError(f"one of {', '.join(f'--{f}' for f in flags)} at a time")
        if self.robot and (self.plan or self.meta or self.regression):
            raise UsageError("--plan, --meta and --regression need no robot: leave --robot out")
        import torch
        from rich.progress import track

        from mbmrl.bench import meta, plan, regression, ros, sim, tick, turns

        torch.set_num_threads(1)
        rows: Sequence[
            tick.Speed
            | plan.PlanSpeed
            | meta.MetaSpeed
            | sim.SimSpeed
            | ros.RosSpeed
            | regression.Fitted
        ]
        if self.plan:
            rows = plans = [row for case in plan.CASES for row in plan.bench(case)]
            table = plan.table(plans)
        elif self.meta:
            rows = learners = [row for case in meta.CASES for row in meta.bench(case)]
            table = meta.table(learners)
        elif self.regression:
            rows = curves = []
            for name in track(regression.learners(), "learners", transient=True):
                for family in regression.FAMILIES:
                    curves += regression.bench(name, family)
            table = regression.table(curves)
        elif self.ros:
            driven = [self.robot] if self.robot else ros.ROBOTS
            rows = loops = [ros.speed(name) for name in driven]
            table = ros.table(loops)
        else:
            names = [self.robot] if self.robot else tick.simulated()
            if self.sim:
                rows = simulations = [row for name in names for row in sim.bench(name)]
                table = sim.table(simulations)
            else:
                rows = robots = [tick.bench(name) for name in names]
                table = tick.table(robots)
        if self.json:
            machine = {"machine": turns.machine()}
            write_whole(self.json, json.dumps([row.to_json() | machine for row in rows], indent=1))
        show(table)
        print(turns.machine())
