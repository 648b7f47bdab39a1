"""What a robot should do: batched costs by field name, and the measures that reports use."""

from __future__ import annotations

from collections.abc import Sequence

from mbmrl.spec import RobotSpec, SpecError
from mbmrl.tasks.base import Task
from mbmrl.tasks.direction import DIRECTIONS, DirectionTask
from mbmrl.tasks.path import PATHS, PathTask
from mbmrl.tasks.reach import ReachTask
from mbmrl.tasks.speed import SpeedTask
from mbmrl.tasks.velocity import COMMAND_S, COMMANDS, VelocityTask

__all__ = [
    "COMMANDS",
    "COMMAND_S",
    "COURSES",
    "DIRECTIONS",
    "PATHS",
    "DirectionTask",
    "PathTask",
    "ReachTask",
    "SpeedTask",
    "Task",
    "VelocityTask",
    "make",
    "offered",
    "usual",
]

COURSES: dict[str, list[str]] = {
    "path": list(PATHS),
    "reach": list(PATHS),
    "velocity": list(COMMANDS),
    "direction": list(DIRECTIONS),
    "speed": [],
}
"""Every task, and what it can be told by name to do."""


def usual(task: str, count: int = 1) -> tuple[str, ...]:
    """What is to be done where nobody says, the last courses first; one empty name for none."""
    return tuple(COURSES.get(task, [])[::-1][:count]) or ("",)


def offered(own: str, spec: RobotSpec) -> dict[str, str]:
    """Every course that a robot can be given, with its task: first those of the task of its own.

    Args:
        own: its task, one of :data:`COURSES`.
        spec: tells what it measures; a model of how it moves serves every task.
    """
    found = dict.fromkeys(COURSES[own] or [""], own)
    for task in COURSES:
        if task != own and _fits(task, spec):
            found |= {course: task for course in COURSES[task] if course not in found}
    return found


def _fits(task: str, spec: RobotSpec) -> bool:
    """Whether the robot measures what the task is about."""
    try:
        make(task, spec, usual(task))
    except SpecError:
        return False
    return True


def make(
    name: str,
    spec: RobotSpec,
    courses: Sequence[str],
    speed: float | None = None,
    size: float = 1.0,
) -> Task:
    """The task of that name for as many robots as there are courses.

    Args:
        name: one of :data:`COURSES`.
        spec: of the robots.
        courses: names from :data:`COURSES`, one a robot; empty ones for a task that has none.
        speed: target [m/s]; the task's own where there is none.
        size: of paths, in that of a hexapod's.
    """
    target = {} if speed is None else {"speed": speed}
    if name == "path":
        return PathTask(spec, courses, size=size, **target)
    if name == "reach":
        return ReachTask(spec, courses, size=size, **target)
    if name == "velocity":
        return VelocityTask(spec, courses, **target)
    if name == "direction":
        return DirectionTask(spec, courses, **target)
    if name == "speed":
        return SpeedTask(spec, **target)
    raise ValueError(f"unknown task {name!r}: choose from {', '.join(COURSES)}")
