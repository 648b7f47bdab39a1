"""One control period after another: the loop where all is well, the safe command where not."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from mbmrl.loop import AgentLike, BadObservation, Loop, RobotLike, Sink
from mbmrl.safety import InARow, Latch, Restarted, Stale, Unsafe

KEPT = 2000
"""Ticks that statistics are made of."""

GIVE_UP = 2.0
"""See :func:`shielded` [s]."""


@runtime_checkable
class Guarded(RobotLike, Protocol):
    """A robot that can be told to do no harm."""

    def rest(self) -> None:
        """Send the safe command, or a step towards it."""

    def again(self) -> None:
        """Send the last command once more."""


class Control:
    """What is done once a period.

    State that is missing or stale gets the safe command at once; a robot that began anew is driven
    on from there. What is not finite, from the robot or from the planner, is never sent: the last
    command is repeated, and the safe one sent after too many in a row. Nothing is learned across
    any of it.

    Args:
        robot: connected.
        agent: for this robot.
        sink: told of every tick that decided something.
        warn: told what is wrong.
        max_bad: so many bad readings or plans in a row are too many.
        give_up: after so many periods in a row without a decision, what is wrong is raised.
    """

    def __init__(
        self,
        robot: Guarded,
        agent: AgentLike,
        sink: Sink,
        warn: Callable[[str], None],
        max_bad: int = 3,
        give_up: float = math.inf,
    ) -> None:
        self.robot, self.agent, self.warn = robot, agent, warn
        self.loop = Loop(robot, agent, sink)
        self.stop = Latch()
        self.bad, self.idle = InARow(max_bad), InARow(give_up)
        self.state = "waiting for the robot"
        self.gaps = 0
        self.took: deque[float] = deque(maxlen=KEPT)
        self._begun = False
        self._driving = False

    def reset(self) -> None:
        """The next period that can begin an episode does."""
        self._begun = False

    @property
    def driving(self) -> bool:
        """Whether the last period was an ordinary one."""
        return self._driving

    def tick(self) -> None:
        """One period; raises what nobody foresaw, and what does not end."""
        start = time.perf_counter()
        if self.stop.reason:
            self.rest(f"stopped: {self.stop.reason}")
            return
        try:
            if not self._begun:
                self.loop.reset()
                self._begun = True
            try:
                self.loop.tick()
            except Restarted as error:
                self._gap(str(error))
                self.loop.tick()
        except (Stale, BadObservation, Unsafe) as error:
            stale = isinstance(error, Stale)
            if stale or self.bad.bad() or not self._begun:
                self.rest(str(error))
            else:
                self._gap(str(error))
                self.robot.again()
            if self.idle.bad():
                raise
        else:
            self.bad.good()
            self.idle.good()
            self.state, self._driving = "driving", True
            self.took.append(time.perf_counter() - start)

    def rest(self, why: str) -> None:
        """The safe command instead of a period; the history is gone."""
        self._gap(why)
        self.robot.rest()

    def _gap(self, why: str) -> None:
        """Neither history nor plan survives; the task goes on."""
        if self._driving:
            self.gaps += 1
        if why != self.state:
            self.warn(why)
        self.state, self._driving = why, False
        self.loop.obs = self.loop.sent = None
        self.agent.forget()


def shielded(shield: Guarded, agent: AgentLike, sink: Sink, warn: Callable[[str], None]) -> Control:
    """For a run that somebody watches: what is wrong for :data:`GIVE_UP` seconds ends it."""
    return Control(shield, agent, sink, patiently(warn), give_up=GIVE_UP / shield.spec.dt)


def patiently(warn: Callable[[str], None], seconds: float = 1.0) -> Callable[[str], None]:
    """The same, told no more often than once in so long."""
    told = -math.inf

    def tell(why: str) -> None:
        nonlocal told
        if time.monotonic() - told > seconds:
            told = time.monotonic()
            warn(why)

    return tell


def percentiles(seconds: deque[float]) -> tuple[float, float]:
    """p50 and p99 [ms]; NaN of nothing."""
    if not seconds:
        return np.nan, np.nan
    p50, p99 = 1e3 * np.percentile(list(seconds), (50, 99))
    return float(p50), float(p99)
