"""Robot × condition × agent × episode on paired seeds."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import signal
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from controllers.agent import Agent
from controllers.learned import LearnedModel
from controllers.several import Several
from mbmrl import conditions, registry
from mbmrl.compose import ON_THE_SIMULATOR, checkpoint_for, make_agent
from mbmrl.conditions import Condition
from mbmrl.episode import run_episodes
from mbmrl.measures import MODEL_ERRORS, from_onset, phase, recovery
from mbmrl.rows import Row
from mbmrl.spec import SpecError
from robots.sim import SimRobot

LANES = 32
"""Episodes that run side by side."""
LANES_TRUE = 4
"""The same for agents that plan on the simulator, which gain nothing by it."""
TIMED = 60
"""Ticks that the decision times come from."""
TIMED_TRUE = 10
"""The same for the true simulator as the model, which is slow and no real controller."""

Lane: TypeAlias = tuple[Condition, str]
"""What happens to a robot, and the path that it is to follow."""
Watch = Callable[[int], None]
"""Told how many more ticks of a robot are done."""


class Timing(NamedTuple):
    """How long one robot's decisions take."""

    tick_ms_p50: float
    tick_ms_p99: float
    missed_deadlines: int


@dataclass(frozen=True)
class Evaluation:
    """What is to be evaluated.

    Attributes:
        robot: a simulated robot's name, or ``package.module:Class``.
        conditions: each with its own onset; an empty one is the undamaged robot.
        agents: names of agents or adapters.
        paths: each condition is driven along every one of them.
        episodes: per condition, path and agent.
        seconds: per episode [s].
        seed: of episode 0; episode i of every condition, path and agent has ``seed + i``.
        checkpoint: its folder; None for the shipped one.
        planner: another than the robot's own.
    """

    robot: str
    conditions: tuple[Condition, ...]
    agents: tuple[str, ...]
    paths: tuple[str, ...]
    episodes: int
    seconds: float
    seed: int = 0
    checkpoint: Path | None = None
    planner: str | None = None

    @property
    def ticks(self) -> int:
        """Of one episode."""
        return round(self.seconds / float(registry.load("robots", self.robot).spec.dt))

    def robots(self, lanes: Sequence[Lane], seed: int) -> list[SimRobot]:
        """One robot a condition and path, in a start of its own.

        A robot that falls before anything happens to it would else fall so under every condition.

        Raises:
            UnknownName: there is no such robot.
            SpecError: it is not simulated.
            PerturbationError: a condition makes no sense on it.
        """
        cls = registry.load("robots", self.robot)
        if not issubclass(cls, SimRobot):
            raise SpecError(f"{self.robot} is not simulated: only `mbmrl run` can drive it")
        return [
            cls(condition, zlib.crc32(f"{seed} {_name(condition)} {path}".encode()))
            for condition, path in lanes
        ]

    def agent(
        self, name: str, robots: Sequence[SimRobot], paths: Sequence[str], seed: int
    ) -> Agent:
        """An agent for these robots, see :func:`make_agent`."""
        checkpoint = checkpoint_for(name, robots[0].spec, self.checkpoint)
        return make_agent(name, robots, checkpoint, paths, planner=self.planner, seed=seed)


class _Batch(NamedTuple):
    """Episodes of one agent and one seed, side by side."""

    agent: str
    episode: int
    lanes: list[Lane]


def evaluate(what: Evaluation, *, jobs: int = 1, watch: Watch = lambda ticks: None) -> list[Row]:
    """The rows of :func:`evaluated`, all of them."""
    return [row for rows in evaluated(what, jobs=jobs, watch=watch) for row in rows]


def evaluated(
    what: Evaluation,
    *,
    jobs: int = 1,
    watch: Watch = lambda ticks: None,
    done: Collection[Row] = (),
) -> Iterator[list[Row]]:
    """Drive every episode; what is done is yielded as it comes, so that nobody loses it.

    All planners of a seed draw the same random numbers, however many robots are side by side, so
    that a row does not depend on what else is evaluated.

    Args:
        what: to evaluate.
        jobs: processes to share the work.
        watch: told about progress.
        done: rows of an earlier call, which are not driven again.

    Yields:
        Rows by agent; all episodes of a few conditions, then of the next few.

    Raises:
        UnknownName, SpecError, PerturbationError, CheckpointError: before anything is driven.
        Diverged: a simulation blew up.
    """
    if not what.conditions:
        return
    probe = what.robots([(c, "") for c in what.conditions], what.seed)[:1]
    for agent in what.agents:
        what.agent(agent, probe, what.paths[:1], what.seed)
    batches = list(_batches(what, done))
    timing = {agent: time_alone(what, agent) for agent in {b.agent: () for b in batches}}
    if jobs == 1:
        for b in batches:
            yield _drive(what, b, timing[b.agent], watch)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start_worker) as pool:
        futures = {pool.submit(_drive, what, b, timing[b.agent]): b for b in batches}
        try:
            for future, batch in futures.items():
                yield future.result()
                watch(len(batch.lanes) * what.ticks)
        except BaseException:  # Ctrl-C above all: nobody waits for what is still being driven
            for process in list(pool._processes.values()):
                process.terminate()
            raise


def left(what: Evaluation, done: Collection[Row] = ()) -> int:
    """How many ticks of a robot there are to do."""
    return what.ticks * sum(len(batch.lanes) for batch in _batches(what, done))


def _batches(what: Evaluation, done: Collection[Row]) -> Iterator[_Batch]:
    """What is left to drive."""
    known = {(r.robot, r.agent, r.seed, r.perturbation, r.path) for r in done}
    robot = registry.load("robots", what.robot).spec.name
    every = list(itertools.product(what.conditions, what.paths))
    for agent in what.agents:
        lanes = LANES_TRUE if agent in ON_THE_SIMULATOR else LANES
        # all episodes of some conditions, then the next: so who is cut off has some whole
        for k, episode in itertools.product(range(0, len(every), lanes), range(what.episodes)):
            left = [
                (condition, path)
                for condition, path in every[k : k + lanes]
                if (robot, agent, what.seed + episode, _name(condition), path) not in known
            ]
            if left:
                yield _Batch(agent, episode, left)


def _name(condition: Condition) -> str:
    """As a row has it."""
    return conditions.text(condition) or "none"


def _start_worker() -> None:
    """Ctrl-C reaches every process of a terminal; the one that the user started deals with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def time_alone(what: Evaluation, agent: str) -> Timing:
    """Time an agent's decisions (adapt and plan) for a single, undamaged robot.

    Episodes run side by side, which says nothing about the latency of one robot; so this is a run
    of its own, once an agent, after a warm-up that fills the history.
    """
    (robot,) = what.robots([((), "")], what.seed)
    true = agent in ON_THE_SIMULATOR
    checkpoint = checkpoint_for(agent, robot.spec, what.checkpoint)
    warm_up, timed = checkpoint.window if checkpoint else 3, TIMED_TRUE if true else TIMED
    with robot:
        driven = what.agent(agent, [robot], what.paths[:1], what.seed)
        log = run_episodes([robot], driven, (warm_up + timed) * robot.spec.dt)
    took = log.took[warm_up:]
    p50, p99 = 1e3 * np.percentile(took, (50, 99))
    return Timing(float(p50), float(p99), int((took > robot.spec.dt).sum()))


def _drive(
    what: Evaluation, batch: _Batch, timing: Timing, watch: Watch = lambda ticks: None
) -> list[Row]:
    seed = what.seed + batch.episode
    robots = what.robots(batch.lanes, seed)
    paths = [path for _, path in batch.lanes]
    with ExitStack() as stack:
        for robot in robots:
            stack.enter_context(robot)
        agent = what.agent(batch.agent, robots, paths, seed)
        if isinstance(agent.model, LearnedModel | Several):
            agent.model.look_back()
        log = run_episodes(robots, agent, what.seconds, lambda tick: watch(len(robots)))
    dt = robots[0].spec.dt
    rows = []
    for lane, (robot, path) in enumerate(zip(robots, paths, strict=True)):
        whole = phase(log, lane, slice(None), dt)
        after = phase(log, lane, from_onset(robot.perturb, dt), dt)
        rows.append(
            Row(
                robot=robot.spec.name,
                perturbation=_name(robot.perturb),
                mirror_trained=conditions.mirror_trained(robot, robot.perturb),
                agent=batch.agent,
                path=path,
                episode=batch.episode,
                seed=seed,
                return_=whole.return_,
                return_after_onset=after.return_,
                score=after.score,
                cross_track_m=after.cross_track_m,
                fell=whole.fell,
                recovery_s=recovery(log.gain[from_onset(robot.perturb, dt), lane], dt)
                if robot.perturb
                else math.nan,
                **timing._asdict(),
                **{name: getattr(after, name) for name in MODEL_ERRORS},
            )
        )
    return rows
