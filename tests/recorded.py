"""A few ticks of a real robot that babbles, recorded, without any learning."""

from __future__ import annotations

import numpy as np

from controllers.agent import Agent, TrueModel
from controllers.scripted import Babble
from mbmrl import conditions, registry, tasks
from mbmrl.compose import task_for
from mbmrl.episode import Recorder
from mbmrl.log import Run
from mbmrl.loop import Clock, Loop, run


def babble(
    robot: str, *perturbations: str, agent: str = "default", ticks: int = 8, path: str = ""
) -> Run:
    """Drive the robot, and make up what a model would have foreseen."""
    cls = registry.load("robots", robot)
    driven = cls([conditions.parse(p) for p in perturbations], seed=0)
    path = path or tasks.usual(cls.task)[0]
    task = task_for(cls, [path])
    recorder, qpos = Recorder(task), []

    def sink(*tick: object) -> None:
        recorder(*tick)
        qpos.append(driven.data.qpos.copy())

    babbling = Agent(TrueModel([]), Babble(cls.spec), task)
    run(Loop(driven, babbling, sink), ticks, Clock(cls.spec.dt, real_time=False))
    log = recorder.log()
    error = np.linspace(0.1, 1, ticks)[:, None]
    log.info.update(pred_error_prior=error, pred_error_adapted=error / 2, gate=np.round(error))
    return Run(
        spec=cls.spec,
        robot=robot,
        agent=agent,
        path=path,
        perturbations=tuple(perturbations),
        onsets=tuple(p.onset for p in driven.perturb),
        seed=0,
        log=log,
        qpos=np.array(qpos),
    )
