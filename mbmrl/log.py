"""One run of one robot on disk: run.npz holds the numbers, run.json says what they are."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mbmrl.episode import Log
from mbmrl.spec import RobotSpec


class LogError(ValueError):
    """A recorded run that is missing or damaged."""


@dataclass(frozen=True)
class Run:
    """What was driven, how, and what happened.

    Attributes:
        spec: of the robot.
        robot: its name, or ``package.module:Class``.
        agent: name of the agent or adapter.
        path: that the robot was to follow; empty where it follows none.
        perturbations: what happened to it, as text with times.
        onsets: when each of them began [s].
        seed: of the initial state and the planner.
        log: of one robot.
        qpos: the simulator's generalised positions after each tick; none for a real robot.
        missed_deadlines: control periods that were skipped, where the run kept real time.
    """

    spec: RobotSpec
    robot: str
    agent: str
    path: str
    perturbations: tuple[str, ...]
    onsets: tuple[float, ...]
    seed: int
    log: Log
    qpos: Float[np.ndarray, "t q"]
    missed_deadlines: int = 0

    @property
    def time(self) -> Float[np.ndarray, " t"]:
        """Of each observation [s]."""
        return np.arange(len(self.log.gain)) * self.spec.dt

    @property
    def onset(self) -> float:
        """When the first perturbation began [s]; infinite without any."""
        return min(self.onsets, default=math.inf)

    def obs(self, field: str) -> Float[np.ndarray, " t"]:
        """One field of the observation."""
        return self.log.obs[:, 0, self.spec.index(field)[0]]

    def info(self, name: str) -> Float[np.ndarray, " t"]:
        """One of the agent's numbers; NaN where it had none."""
        return self.log.info.get(name, np.full((len(self.log.gain), 1), np.nan))[:, 0]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write to; the file gets its own when it is whole, and is removed otherwise."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def save(folder: Path, run: Run) -> None:
    """Write both files; a kill in the middle leaves no half file."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = [f.name for f in dataclasses.fields(Run) if f.name not in ("spec", "log", "qpos")]
    about = {"spec": run.spec.to_json()} | {name: getattr(run, name) for name in plain}
    columns = [f.name for f in dataclasses.fields(Log) if f.name != "info"]
    arrays: dict[str, Any] = {name: getattr(run.log, name) for name in columns}
    arrays |= {f"info/{name}": values for name, values in run.log.info.items()}
    with whole(folder / "run.npz") as npz, whole(folder / "run.json") as text:
        np.savez_compressed(npz, qpos=run.qpos, **arrays)
        text.write_text(json.dumps(about, indent=1))


def load(folder: Path) -> Run:
    """Read what :func:`save` wrote.

    Raises:
        LogError: when it is missing or damaged, saying where and what to do.
    """
    if not (folder / "run.json").is_file():
        raise LogError(f"no recorded run in {folder}: make one with `mbmrl run --out {folder}`")
    try:
        about = json.loads((folder / "run.json").read_text())
        with np.load(folder / "run.npz", allow_pickle=False) as file:
            arrays = dict(file)
        qpos = arrays.pop("qpos")
        info = {k.removeprefix("info/"): arrays.pop(k) for k in list(arrays) if "/" in k}
        about |= {k: tuple(about[k]) for k in ("perturbations", "onsets")}
        about["spec"] = RobotSpec.from_json(about["spec"])
        return Run(**about, log=Log(**arrays, info=info), qpos=qpos)
    except Exception as error:
        raise LogError(f"the run in {folder} cannot be read ({error}): run it again") from error
