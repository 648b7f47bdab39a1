"""Episodes to train on: robots side by side under drawn conditions, babbling or driven."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controllers.agent import Agent, TrueModel
from controllers.base import SamplingPlanner
from controllers.scripted import Babble, Explore
from mbmrl import checkpoint as checkpoints
from mbmrl import conditions, registry, tasks
from mbmrl.branching import Branching
from mbmrl.compose import make_agent, make_planner, task_for
from mbmrl.data import Episodes, Store
from mbmrl.episode import run_episodes
from mbmrl.settings import Settings
from mbmrl.spec import RobotSpec
from mbmrl.workers import Follow
from robots.sim import SimRobot

PERTURBATIONS_AT_ONCE = (0.1, 0.45, 0.3, 0.15)
"""How often a training episode has 0, 1, 2 or 3 perturbations at once."""
MID_EPISODE = 0.35
"""Share of the training episodes in which they begin in mid-episode."""


@dataclass(frozen=True)
class Job:
    """What every worker needs to know."""

    robot: str
    out: Path
    seed: int
    settings: Settings
    spec: RobotSpec
    adapters: tuple[str, ...] = ()


def collect_round(
    job: Job, pool: Executor, follow: Follow, number: int, stage: Path | None
) -> None:
    """One round of episodes, in batches that are skipped when they are stored already."""
    settings = job.settings
    if stage is None:
        kinds = ["babble"] * settings.babble + ["expert"] * settings.expert
    else:
        # a third with the pooled model: data that adapting controllers alone would not visit
        third = settings.on_policy // 3
        kinds = ["default"] * (settings.on_policy - third) + ["pooled"] * third
    stored = set(Store(job.out / "data").names())
    futures = []
    for k in range(0, len(kinds), settings.lanes):
        name = f"{number}-{k:05d}"
        if name not in stored:
            lanes = kinds[k : k + settings.lanes]
            futures.append(pool.submit(_collect_batch, job, number, k, lanes, name, stage))
    follow.until_done(futures)


def _collect_batch(
    job: Job, number: int, first: int, kinds: list[str], name: str, stage: Path | None
) -> None:
    episodes = []
    for kind in sorted(set(kinds)):
        at = first + kinds.index(kind)
        episodes.append(collect(job, kind, kinds.count(kind), [job.seed, number, at], stage))
    Store(job.out / "data").save(name, Episodes.joined(episodes))


def collect(
    job: Job, kind: str, count: int, seed: Sequence[int], stage: Path | None = None
) -> Episodes:
    """Episodes side by side under drawn conditions.

    Args:
        job: the training run.
        kind: ``babble``, ``expert`` (the true simulator plans, with noise), or an agent's name.
        count: how many episodes.
        seed: of the conditions, the paths and the noise.
        stage: the checkpoint to drive with.
    """
    rng = np.random.default_rng(seed)
    cls = registry.load("robots", job.robot)
    probe, dt = cls(), cls.spec.dt
    steps = round(job.settings.episode_s / dt)
    robots, onsets, texts = [], [], []
    for _ in range(count):
        number = int(rng.choice(len(PERTURBATIONS_AT_ONCE), p=PERTURBATIONS_AT_ONCE))
        condition = conditions.sample(probe, rng, "train", number)
        mid = rng.random() < MID_EPISODE
        onset = int(rng.integers(steps // 6, steps // 2)) if mid else 0
        starting = conditions.starting(condition, onset * dt)
        robots.append(cls(starting, seed=int(rng.integers(2**31))))
        robots[-1].connect()
        onsets.append(onset)
        texts.append(conditions.text(condition))
    paths = [str(p) for p in rng.choice(tasks.COURSES[cls.task] or [""], count)]
    agent, branching = _collector(job, kind, robots, paths, int(rng.integers(2**31)), stage)
    log = run_episodes(robots, agent, (steps + 1) * dt)
    return Episodes(
        log.obs.transpose(1, 0, 2),
        log.act[:-1].transpose(1, 0, 2),
        np.array(onsets),
        texts,
        branching.branches(),
    )


def _collector(
    job: Job, kind: str, robots: list[SimRobot], paths: list[str], seed: int, stage: Path | None
) -> tuple[Agent, Branching]:
    spec, settings = robots[0].spec, job.settings
    if kind == "babble":
        agent = Agent(TrueModel([]), Babble(spec, seed), task_for(type(robots[0]), paths))
        source = make_planner(spec, settings, seed=seed)
    else:
        driving = checkpoints.load(stage) if stage else None
        who = "oracle" if kind == "expert" else kind
        agent = make_agent(who, robots, driving, paths, seed=seed)
        assert isinstance(agent.planner, SamplingPlanner)
        source = agent.planner
        if kind == "expert":
            # one iteration from the last plan is good enough to learn from, in a third of the time
            source.num_samples = source.num_samples[:1]
        agent.planner = Explore(source, spec, seed)
    agent.planner = branching = Branching(agent.planner, source, robots, settings.fit.query)
    return agent, branching
