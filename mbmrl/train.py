"""Collect → fit → repeat: from nothing to a checkpoint."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mbmrl import checkpoint as checkpoints
from mbmrl import logs, recording, registry
from mbmrl.checkpoint import Checkpoint, member_name
from mbmrl.collect import Job, collect_round
from mbmrl.data import Store, Windows
from mbmrl.dynamics import Dynamics
from mbmrl.fit import Look, fit
from mbmrl.graph import NETWORKS
from mbmrl.precision import rank_correlation
from mbmrl.settings import settings_for
from mbmrl.spec import RobotSpec
from mbmrl.workers import Follow, tell, workers
from robots.sim import SimRobot

HELD_OUT = 8
"""One condition in so many is kept for validation."""


class TrainError(ValueError):
    """Training that cannot be started or resumed as asked."""


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
    with workers() as (pool, progress, events):
        follow = Follow(progress, events, out / "curves")
        collect_round(job, pool, follow, 0, None)
        stage = _fit_all(job, pool, follow, "base", (), None)
        for number in range(1, job.settings.rounds + 1):
            stage = _fit_all(job, pool, follow, f"round{number}", (job.settings.adapter,), stage)
            collect_round(job, pool, follow, number, stage)
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
    with workers() as (pool, progress, events):
        follow = Follow(progress, events, out / "curves")
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


def _fit_all(
    job: Job,
    pool: Executor,
    follow: Follow,
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
