"""Recorded episodes on disk, an append-only file each, that open whatever became of the writer.

A file is one line of JSON that says what it is, then a row of little-endian float64 for every tick:
the stamp of the reading [s], the observation, the action really sent after it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mbmrl.spec import RobotSpec, SpecError

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT = 1
SUFFIX = ".episode"
JITTER = 0.5
"""Readings further than this share of a period from where the last one puts them leave a gap."""


class RecordingError(ValueError):
    """A recording that is missing, damaged, or of another robot."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One episode of one robot, in SI units.

    Attributes:
        spec: of the robot.
        robot: its name, or ``package.module:Class``.
        condition: what was done to the robot, e.g. ``"ice"``; ``""`` where nobody said.
        epoch: what to add to a stamp for the time of day [s since 1970].
        name: of the file.
        stamps: when each observation was read, on a steady clock [s].
        obs: the observations.
        act: the action really sent after each observation; the last one led nowhere.
    """

    spec: RobotSpec
    robot: str
    stamps: Float[np.ndarray, " t"]
    obs: Float[np.ndarray, "t o"]
    act: Float[np.ndarray, "t u"]
    condition: str = ""
    epoch: float = 0.0
    name: str = ""

    def __len__(self) -> int:
        """Number of readings."""
        return len(self.stamps)

    def stretches(self) -> list[slice]:
        """Rows without a gap in time or a number that is none between them, two rows at least."""
        step = np.diff(self.stamps) / self.spec.dt
        good = np.isfinite(self.obs).all(1) & np.isfinite(self.act).all(1)
        joined = (np.abs(step - 1) <= JITTER) & good[1:] & good[:-1]
        edges = np.flatnonzero(np.diff(np.r_[False, joined, False]))
        return [slice(a, b + 1) for a, b in edges.reshape(-1, 2).tolist()]


class Writer:
    """Appends to a new file, so that a kill loses at most the tick in hand.

    Args:
        path: of the file; its folder is made when absent.
        spec: of the robot.
        robot: its name.
        condition: see :class:`Recording`.
        epoch: see :class:`Recording`.
    """

    def __init__(
        self, path: Path, spec: RobotSpec, robot: str, condition: str = "", epoch: float = 0.0
    ) -> None:
        about = {
            "format": FORMAT,
            "robot": robot,
            "spec": spec.to_json(),
            "condition": condition,
            "epoch": epoch,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(json.dumps(about).encode() + b"\n")
        os.replace(part, path)
        # unbuffered: what was written is the system's to keep, even when this process is killed
        self._file = path.open("ab", buffering=0)

    def append(
        self, stamp: float, obs: Float[np.ndarray, " o"], act: Float[np.ndarray, " u"]
    ) -> None:
        """One tick."""
        self._file.write(np.concatenate([[stamp], obs, act]).astype("<f8").tobytes())

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()


def save(path: Path, recording: Recording) -> None:
    """Write a whole recording."""
    r = recording
    with Writer(path, r.spec, r.robot, r.condition, r.epoch) as writer:
        for row in zip(r.stamps, r.obs, r.act, strict=True):
            writer.append(*row)


def load(path: Path) -> Recording:
    """Read a file; the half row that a kill may have left at its end is left out.

    Raises:
        RecordingError: where it is no recording.
    """
    try:
        line, _, rest = path.read_bytes().partition(b"\n")
        about = json.loads(line)
        if about["format"] != FORMAT:
            raise ValueError(f"it has format {about['format']}, this version reads {FORMAT}")
        spec = RobotSpec.from_json(about["spec"])
        width = 1 + spec.num_obs + spec.num_act
        whole = len(rest) // (8 * width) * width
        rows = np.frombuffer(rest, "<f8", whole).reshape(-1, width).astype(np.float64)
        return Recording(
            spec=spec,
            robot=str(about["robot"]),
            condition=str(about["condition"]),
            epoch=float(about["epoch"]),
            name=path.stem,
            stamps=rows[:, 0],
            obs=rows[:, 1 : 1 + spec.num_obs],
            act=rows[:, 1 + spec.num_obs :],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordingError(f"{path} is no recording: {error}") from error


def files(folder: Path) -> list[Path]:
    """The recordings in a folder, oldest name first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def numbered(folder: Path) -> Iterator[Path]:
    """Names for the next recordings in a folder."""
    taken = [int(p.stem) for p in files(folder) if p.stem.isdecimal()]
    number = max(taken, default=-1) + 1
    while True:
        yield folder / f"{number:04d}{SUFFIX}"
        number += 1


def load_all(where: Path) -> list[Recording]:
    """A recording, or every one in a folder, all of one robot.

    Raises:
        RecordingError: where there is none, or one is damaged or of another robot.
    """
    paths = files(where) if where.is_dir() else [where]
    if not paths:
        raise RecordingError(f"no recordings in {where}: make some with `mbmrl record`")
    found = [load(path) for path in paths]
    for path, recording in zip(paths, found, strict=True):
        try:
            recording.spec.check_fits(found[0].spec)
        except SpecError as error:
            raise RecordingError(
                f"{path} is not of the same robot as {paths[0]}: {error}"
            ) from error
    return found


def beside(folder: Path, spec: RobotSpec) -> list[Recording]:
    """What a folder holds already that recordings of this robot are to be put into.

    Raises:
        RecordingError: one is damaged, or of another robot.
    """
    found = load_all(folder) if files(folder) else []
    try:
        for recording in found[:1]:
            spec.check_fits(recording.spec)
    except SpecError as error:
        raise RecordingError(f"{folder} is of another robot: {error}") from error
    return found
