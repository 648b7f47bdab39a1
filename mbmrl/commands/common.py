"""What commands share: their flags, and what is refused."""

from __future__ import annotations

import inspect
import math
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from mbmrl import registry

if TYPE_CHECKING:
    from mbmrl.conditions import Condition
    from mbmrl.evaluate import Evaluation
    from mbmrl.rows import Row
    from robots.base import Robot
    from robots.sim import SimRobot


RobotName = Annotated[
    str,
    arg(
        metavar="NAME",
        help="From `mbmrl list robots`, package.module:Class, or DRIVER=FILE.",
    ),
]
CheckpointDir = Annotated[
    Path | None,
    arg(metavar="DIR", help="The trained model; when left out, the one shipped for the robot."),
]
PlannerName = Annotated[
    str | None,
    arg(metavar="NAME", help="From `mbmrl list planners`; when left out, the robot's own."),
]
Seed = Annotated[int, arg(metavar="N", help="Of everything random.")]
Seconds = Annotated[float, arg(metavar="S", help="How long an episode is.")]

EXTRAS = {"rosbags": "bags", "ruamel": "bags,dynamixel", "dynamixel_sdk": "dynamixel"}
"""What brings a library that a command may lack."""
FILE_ERRORS = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
"""What comes of a wrong path; a full disk, say, is nothing that the user got wrong."""
ONSET = 0.3
"""When a perturbation begins that does not say when, as a share of the episode."""


class UsageError(ValueError):
    """A request that cannot be met."""


class Findings(RuntimeError):
    """What was looked at is not as it should be."""


class DriverError(RuntimeError):
    """A robot's driver that fails."""


@contextmanager
def loading(name: str) -> Iterator[None]:
    """What a driver's file raises as it is loaded is told in one line.

    Raises:
        DriverError: instead of what would be a traceback.
    """
    try:
        yield
    except (ValueError, ConnectionError, TimeoutError, *FILE_ERRORS):
        raise
    except Exception as error:  # it is somebody else's code: whatever it raises
        lacks = error.name if isinstance(error, ModuleNotFoundError) else None
        if lacks and lacks.partition(".")[0] in EXTRAS:
            raise
        raise _failed(name, error) from error


@contextmanager
def driving(name: str, cls: type[Robot]) -> Iterator[None]:
    """The same of what goes wrong as its robot is driven; its author's slips stay tracebacks.

    Raises:
        DriverError: instead of what would be a traceback.
    """
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise
    except (RuntimeError, OSError) as error:
        ours = type(error).__module__.partition(".")[0] in ("mbmrl", "robots")
        calls = traceback.extract_tb(error.__traceback__)
        if ours or inspect.getfile(cls) not in [call.filename for call in calls]:
            raise
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> DriverError:
    return DriverError(f"the driver {name} fails: {type(error).__name__}: {error}")


def condition(cls: type[SimRobot], texts: Sequence[str], seconds: float) -> Condition:
    """What ``--perturb`` asks for; the robot's usual damage where it was left out."""
    from mbmrl import conditions

    onset = ONSET * seconds
    if not texts:
        return conditions.starting(conditions.usual(cls()), onset)
    if "none" in texts:
        if len(texts) > 1:
            raise UsageError("--perturb none excludes every other --perturb")
        return ()
    condition = tuple(conditions.parse(text, onset) for text in texts)
    check_times(condition, seconds)
    return condition


def check_times(condition: Condition, seconds: float) -> None:
    """Refuse what would begin only after the end."""
    for p in condition:
        if p.onset >= seconds:
            raise UsageError(f"{p.name} begins at {p.onset:g} s: the end is at {seconds:g} s")


def courses(cls: type[Robot], wanted: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    """Names of what to follow, so many where nothing is wanted; an empty one for no choice."""
    from mbmrl import tasks
    from mbmrl.compose import task_for

    chosen = wanted or tasks.usual(cls.task, count)
    task_for(cls, chosen)  # refuses what it cannot follow
    return chosen


def load_robot(name: str, seconds: float) -> type[Robot]:
    """The class of a robot that is to be driven for so long.

    Raises:
        UnknownName: there is no such robot.
        DriverError: its driver cannot be used.
        UsageError: it would not be driven at all.
    """
    from mbmrl import tasks
    from mbmrl.spec import RobotSpec

    with loading(name):
        cls: type[Robot] = registry.load("robots", name)
    if not isinstance(spec := getattr(cls, "spec", None), RobotSpec):
        raise DriverError(f"the driver {name} has no spec: it is {spec!r}, not a RobotSpec")
    if cls.task not in tasks.COURSES:
        raise DriverError(
            f"the driver {name} has the task {cls.task!r}; there are: {', '.join(tasks.COURSES)}"
        )
    if seconds < cls.spec.dt:
        raise UsageError(
            f"--seconds {seconds:g} is less than one control period of {cls.spec.dt} s"
        )
    return cls


def load_simulated(name: str, seconds: float) -> type[SimRobot]:
    """The same of one that can be driven as fast as it goes."""
    from robots.sim import SimRobot

    cls = load_robot(name, seconds)
    if not issubclass(cls, SimRobot):
        raise UsageError(f"{name} is not simulated: only `mbmrl run` can drive it")
    return cls


def driven(what: Evaluation, jobs: int, rows: list[Row]) -> Iterator[None]:
    """Drive what ``rows`` does not hold yet, under a bar; stop each time there are more of them."""
    from rich.progress import Progress

    from mbmrl.evaluate import evaluated, left

    done = tuple(rows)
    with Progress(transient=True) as progress:
        bar = progress.add_task("driving", total=left(what, done))
        for some in evaluated(what, jobs=jobs, watch=lambda n: progress.advance(bar, n), done=done):
            rows += some
            yield


def split(text: str) -> tuple[str, ...]:
    """Names with commas between them, each once."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise UsageError(f"{text!r} names nothing")
    return found


def check_numbers(*, seed: int, **positive: float | None) -> None:
    """Refuse what no run can be made of."""
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed is between 0 and 2**32 - 1, not {seed}")
    for name, value in positive.items():
        if value is not None and not 0 < value < math.inf:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is a positive number, not {value}")


def check_file(file: Path | None, flag: str = "--json") -> None:
    """Refuse now what could not be written in the end."""
    if file is None:
        return
    folder = file.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{flag} {file}: there is no folder {folder}")
    if file.exists() and not file.is_file():
        raise UsageError(f"{flag} {file}: this is no file that could be replaced")
    check_folder(folder, flag)


def check_folder(folder: Path, flag: str = "--out") -> None:
    """Refuse now a folder that is there and that nothing could be written to in the end."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{flag} {folder}: this is no folder")
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{flag}: nobody may write to {folder}")


def write_whole(file: Path, text: str) -> None:
    """The whole file or none of it."""
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(text)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def show(table: object) -> None:
    """Print a table, as wide as the terminal; a file has room."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120).print(table)
