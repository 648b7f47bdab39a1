"""Collect → fit → repeat: from nothing to a checkpoint."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch.utils.tensorboard import SummaryWriter

from controllers.agent import Agent, TrueModel
from controllers.base import SamplingPlanner
from controllers.scripted import Babble, Explore
from mbmrl import checkpoint as checkpoints
from mbmrl import conditions, logs, recording, registry, tasks
from mbmrl.branching import Branching
from mbmrl.checkpoint import Checkpoint, member_name
from mbmrl.compose import make_agent, make_planner, task_for
from mbmrl.data import Episodes, Store, Windows
from mbmrl.dynamics import Dynamics
from mbmrl.episode import run_episodes
from mbmrl.fit import Look, fit
from mbmrl.graph import NETWORKS
from mbmrl.precision import rank_correlation
from mbmrl.settings import Settings, settings_for
from mbmrl.spec import RobotSpec
from robots.sim import SimRobot

PROCESSES = 2
PERTURBATIONS_AT_ONCE = (0.1, 0.45, 0.3, 0.15)
"""How often a training episode has 0, 1, 2 or 3 perturbations at once."""
MID_EPISODE = 0.35
"""Share of the training episodes in which they begin in mid-episode."""
HELD_OUT = 8
"""One condition in so many is kept for validation."""

Tell = Callable[[str, float, dict[str, float]], None]
"""Told (what is being done, how much of it is done, figures for the curves)."""


class TrainError(ValueError):
    """Training that cannot be started or resumed as asked."""


@dataclass(frozen=True)
class Job:
    """What every worker needs to know."""

    robot: str
    out: Path
    seed: int
    settings: Settings
    spec: RobotSpec
    adapters: tuple[str, ...] = ()


def train(
    robot: str,
    out: Path,
    minutes: float | None = None,
    seed: int = 0,
    adapters: Sequence[str] = (),
    members: int | None = None,
    network: str | None = None,
) -> Path:
    """Make a checkpoint from nothing, or go on where an earlier call was cut off.

    Args:
        robot: a simulated robot's name, or ``package.module:Class``.
        out: the checkpoint's folder; ``data/``, ``stages/`` and ``curves/`` are kept beside it.
        minutes: scales data and updates so that it takes about this long on two cores; None takes
            the robot's full settings.
        seed: of everything.
        adapters: learners to train beside the pooled model; none for the robot's default.
        members: of each learner, trained together as an ensemble; None for the robot's default.
        network: its kind, ``mlp`` or ``graph``; None for the robot's default.

    Returns:
        ``out``.

    Raises:
        TrainError: for a robot that is not simulated, or a folder of another training run.
    """
    cls = registry.load("robots", robot)
    if not issubclass(cls, SimRobot):
        raise TrainError(f"{robot} is not simulated: record it, and train with --data")
    job = _job(robot, cls.spec, out, minutes, seed, adapters, members, network)
    began = _claim(job)
    with _workers() as (pool, progress, events):
        follow = _Follow(progress, events, out / "curves")
        _collect(job, pool, follow, 0, None)
        stage = _fit_all(job, pool, follow, "base", (), None)
        for number in range(1, job.settings.rounds + 1):
            stage = _fit_all(job, pool, follow, f"round{number}", (job.settings.adapter,), stage)
            _collect(job, pool, follow, number, stage)
        last = _fit_all(job, pool, follow, "final", job.adapters, stage)
        follow.close()
    result = checkpoints.load(last)
    episodes = Store(out / "data").load(result.spec)
    windows = Windows(episodes, result.spec, mirror=False)
    result.bfloat16_rank = round(rank_correlation(result, windows, cls), 5)
    counts = {
        "transitions": episodes.num_transitions,
        "conditions": len(set(episodes.condition)),
    }
    return _finish(job, result, counts, f"--robot {robot}", minutes, began)


def train_from(
    data: Path,
    out: Path,
    robot: str | None = None,
    minutes: float | None = None,
    seed: int = 0,
    adapters: Sequence[str] = (),
    members: int | None = None,
    network: str | None = None,
) -> Path:
    """Make a checkpoint from recordings alone, or go on where an earlier call was cut off.

    Args:
        data: recordings of one robot, simulated or not.
        out: as for :func:`train`.
        robot: whose spec counts, where it is not the one stored in the recordings.
        minutes: as for :func:`train`.
        seed: of everything.
        adapters: as for :func:`train`.
        members: as for :func:`train`.
        network: as for :func:`train`.

    Returns:
        ``out``.

    Raises:
        RecordingError: for recordings that are missing, damaged or too short.
        SpecError: where the recordings are not of this robot.
        TrainError: for a folder of another training run.
    """
    recordings = recording.load_all(data)
    recorded = recordings[0].spec
    spec = registry.load("robots", robot).spec if robot else recorded
    spec.check_fits(recorded)
    job = _job(robot or recordings[0].robot, spec, out, minutes, seed, adapters, members, network)
    job = replace(job, settings=replace(job.settings, rounds=0))  # there is no robot to ask
    cut = logs.episodes(recordings, job.settings.window + job.settings.fit.query, HELD_OUT)
    began = _claim(job, {r.name: len(r) for r in recordings})
    store = Store(out / "data")
    if not store.names():
        store.save("logs", cut)
    with _workers() as (pool, progress, events):
        follow = _Follow(progress, events, out / "curves")
        stage = _fit_all(job, pool, follow, "base", (), None)
        last = _fit_all(job, pool, follow, "final", job.adapters, stage)
        follow.close()
    counts = {
        "transitions": sum(s.stop - 1 - s.start for r in recordings for s in r.stretches()),
        "conditions": len({r.condition for r in recordings}),
    }
    flags = f"--data {data}" + (f" --robot {robot}" if robot else "")
    return _finish(job, checkpoints.load(last), counts, flags, minutes, began)


def _job(
    robot: str,
    spec: RobotSpec,
    out: Path,
    minutes: float | None,
    seed: int,
    adapters: Sequence[str],
    members: int | None,
    network: str | None,
) -> Job:
    """What to do, as asked and as the robot's settings say; refuses adapters that learn nothing."""
    settings = settings_for(spec.name)
    if minutes is not None:
        settings = settings.scaled(minutes)
    if members is not None:
        settings = replace(settings, members=members)
    if network is not None:
        settings = replace(settings, network=network)
    NETWORKS[settings.network](spec, settings.hidden)  # refuses a robot that it does not suit
    adapters = tuple(adapters) or (settings.adapter,)
    for name in adapters:
        if registry.load("adapters", name).trained_as:
            raise TrainError(f"adapter {name!r} has no learner of its own: it uses another's")
    if settings.adapter not in adapters:
        settings = replace(settings, adapter=adapters[0])
    return Job(robot, out, seed, settings, spec, adapters)


def _finish(
    job: Job,
    result: Checkpoint,
    counts: dict[str, int],
    source: str,
    minutes: float | None,
    began: float | None,
) -> Path:
    """Write down how it was made, and save it."""
    flags = f"{source} --seed {job.seed} --adapter {','.join(job.adapters)}"
    if job.settings.members > 1:
        flags += f" --members {job.settings.members}"
    if job.settings.network != Dynamics.kind:
        flags += f" --network {job.settings.network}"
    result.training |= {
        "command": f"mbmrl train {flags}" + (f" --minutes {minutes:g}" if minutes else ""),
        "seed": job.seed,
        **counts,
    }
    if began is not None:
        result.training["wall_minutes"] = round((time.perf_counter() - began) / 60, 1)
    result.save(job.out)
    return job.out


def _claim(job: Job, recordings: dict[str, int] | None = None) -> float | None:
    """Write down what this folder is for, or refuse to mix two trainings in it.

    Returns:
        When it began [s]; None where it goes on, and nobody knows how long it took so far.
    """
    mine: dict[str, Any] = {"robot": job.robot, "seed": job.seed, "settings": repr(job.settings)}
    if recordings is not None:
        mine["recordings"] = recordings
    path = job.out / "training.json"
    if not path.exists():
        job.out.mkdir(parents=True, exist_ok=True)
        part = job.out / ".training.part"
        part.write_text(json.dumps(mine, indent=1))
        os.replace(part, path)
        return time.perf_counter()
    try:
        theirs = json.loads(path.read_text())
    except ValueError as error:
        raise TrainError(f"{path} is damaged: {error}; delete {job.out} to begin anew") from error
    if theirs != mine:
        raise TrainError(
            f"{job.out} holds a training run with another robot, seed, settings or data: "
            "choose another --out, or delete it to begin anew"
        )
    return None


# --- collecting -----------------------------------------------------------------------------


def _collect(job: Job, pool: Executor, follow: _Follow, number: int, stage: Path | None) -> None:
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


# --- fitting ----------------------------------------------------------------------------------


def _fit_all(
    job: Job,
    pool: Executor,
    follow: _Follow,
    stage: str,
    adapters: Sequence[str],
    before: Path | None,
) -> Path:
    """The pooled model and the learners, all from the pooled model of the stage before.

    Hence they have all had equally many updates.
    """
    folder, learners = job.out / "stages" / stage, ["none", *adapters]
    missing = [a for a in learners if not (folder / a / "config.json").exists()]
    follow.until_done([pool.submit(_fit_one, job, stage, a, before, folder / a) for a in missing])
    parts = {a: checkpoints.load(folder / a) for a in learners}
    joined = parts["none"]
    joined.default = adapters[0] if adapters else "none"
    if job.settings.adapter in adapters:
        joined.default = job.settings.adapter
    for part in parts.values():
        joined.learners |= part.learners
        joined.training["validation_loss"] |= part.training["validation_loss"]
        joined.training["curve"] |= part.training["curve"]
    joined.save(folder)
    return folder


def _fit_one(job: Job, stage: str, adapter_name: str, before: Path | None, out: Path) -> None:
    """Fit one learner, or an ensemble of them, on everything stored so far."""
    spec, settings = job.spec, job.settings
    episodes = Store(job.out / "data").load(spec)
    # by its text alone: a later stage must not judge by what an earlier one was trained on
    order = {c: zlib.crc32(c.encode()) for c in episodes.condition if c}
    lowest = min(order.values(), default=0)
    kept = [c for c, at in order.items() if at % HELD_OUT == 0 or at == lowest]
    held = np.isin(episodes.condition, kept)
    if held.all():  # of few conditions
        held = np.isin(episodes.condition, [c for c, at in order.items() if at == lowest])
    torch.manual_seed(job.seed)
    if before is None:
        kind = NETWORKS[settings.network]
        sizes = spec, settings.hidden, settings.activation
        priors = [kind(*sizes) for _ in range(settings.members)]
    else:
        priors = [prior for prior, _ in checkpoints.load(before).members("none")]
    for prior in priors:
        prior.fit_normaliser(episodes.transitions())
    pairs = [(prior, registry.load("adapters", adapter_name)(prior)) for prior in priors]
    config, label = settings.fit, f"{stage}: {adapter_name}"
    if stage == "final":
        config = replace(config, updates=config.updates * settings.final)
    elif stage.startswith("round"):
        config = replace(config, updates=config.updates // 2)
    curve: list[tuple[float, ...]] = []

    def report(look: Look) -> None:
        update, *losses = astuple(look)
        curve.append((update, *(round(loss, 5) for loss in losses)))
        figures = asdict(look)
        tell(label, figures.pop("update") / config.updates, figures)

    best = fit(
        pairs,
        Windows(episodes.pick(~held), spec),
        Windows(episodes.pick(held), spec, mirror=False),
        replace(config, window=settings.window),
        job.seed,
        report,
    )
    names = [member_name(adapter_name, i) for i in range(len(pairs))]
    training: dict[str, Any] = {
        "updates": int(settings.fit.updates * (1 + settings.rounds / 2 + settings.final)),
        "validation_loss": {n: round(loss, 5) for n, loss in zip(names, best, strict=True)},
        "curve": {adapter_name: curve},
    }
    learners = dict(zip(names, pairs, strict=True))
    made = Checkpoint(spec, adapter_name, settings.window, learners, training)
    made.save(out)


# --- workers, progress, curves ------------------------------------------------------------------

Events: TypeAlias = "queue.Queue[tuple[str, float, dict[str, float]]]"

_EVENTS: Events | None = None


def _start_worker(events: Events) -> None:
    global _EVENTS
    _EVENTS = events
    torch.set_num_threads(1)


def tell(label: str, done: float, figures: dict[str, float]) -> None:
    """Report progress to whoever waits for this worker."""
    if _EVENTS is not None:
        _EVENTS.put((label, done, figures))


@contextmanager
def _workers() -> Iterator[tuple[Executor, Progress, Events]]:
    """A pool that ends with the block, at once where it ends by an exception or Ctrl-C."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        events = manager.Queue()
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        pool = ProcessPoolExecutor(
            PROCESSES, mp_context=context, initializer=_start_worker, initargs=(events,)
        )
        with Progress(*columns, TextColumn("{task.fields[figures]}")) as progress:
            try:
                yield pool, progress, events
            except BaseException:
                for process in list(pool._processes.values()):
                    process.terminate()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


class _Follow:
    """Shows what the workers tell, as bars here and as curves in TensorBoard."""

    def __init__(self, progress: Progress, events: Events, curves: Path) -> None:
        self.progress, self.events = progress, events
        self.writer = SummaryWriter(str(curves))
        self.bars: dict[str, TaskID] = {}

    def until_done(self, futures: list[Future[None]]) -> None:
        """Wait for the workers; raises what they raised."""
        if not futures:
            return
        waiting = self.progress.add_task("batches", total=len(futures), figures="")
        while not all(f.done() for f in futures):
            self.progress.update(waiting, completed=sum(f.done() for f in futures))
            self._drain(0.5)
        self._drain(0.0)
        self.progress.remove_task(waiting)
        for future in futures:
            future.result()
        self._note(f"{len(futures)} batches done")

    def close(self) -> None:
        """Flush the curves."""
        self.writer.close()

    def _note(self, line: str) -> None:
        """Bars move on a terminal only; a log gets a line at a time."""
        if not self.progress.console.is_terminal:
            self.progress.console.print(f"{time.strftime('%H:%M:%S')}  {line}")

    def _drain(self, wait_s: float) -> None:
        try:
            while True:
                self._show(*self.events.get(timeout=wait_s) if wait_s else self.events.get_nowait())
        except queue.Empty:
            return

    def _show(self, label: str, done: float, figures: dict[str, float]) -> None:
        shown = "  ".join(f"{k} {v:.4f}" for k, v in figures.items())
        if label not in self.bars:
            self.bars[label] = self.progress.add_task(label, total=1.0, figures=shown)
        self.progress.update(self.bars[label], completed=done, figures=shown)
        if figures:
            self._note(f"{label}  {done:4.0%}  {shown}")
        for name, value in figures.items():
            self.writer.add_scalar(f"{label}/{name}", value, round(1000 * done))
