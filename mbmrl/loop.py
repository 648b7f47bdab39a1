"""The control loop, shared by the command line and the ROS 2 node."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from mbmrl.spec import RobotSpec
from mbmrl.types import Plan


class BadObservation(RuntimeError):
    """A reading that nobody can plan from: a number missing, or one that is not finite."""


@runtime_checkable
class RobotLike(Protocol):
    """What the loop needs of a robot, or of several driven as one."""

    spec: RobotSpec

    def reset(self) -> None:
        """Go to the start of an episode."""

    def read(self) -> np.ndarray:
        """The newest observation."""

    def write(self, act: np.ndarray) -> np.ndarray:
        """Send an action; returns what was really sent."""


@runtime_checkable
class AgentLike(Protocol):
    """What the loop needs of a controller."""

    def reset(self, obs: np.ndarray) -> None:
        """Begin an episode."""

    def forget(self, num_robots: int = 1) -> None:
        """No history and no plan, in mid-episode."""

    def observe(self, obs: np.ndarray, act: np.ndarray, next_obs: np.ndarray) -> None:
        """Learn from one transition."""

    def act(self, obs: np.ndarray) -> Plan:
        """Decide."""


Sink = Callable[[np.ndarray, Plan, np.ndarray, float], None]
"""Told every tick: obs, plan, the action sent, and how long the decision took [s]."""


class Loop:
    """One robot, one agent, once a control period.

    Args:
        robot: connected.
        agent: decides.
        sink: told every tick.
    """

    def __init__(self, robot: RobotLike, agent: AgentLike, sink: Sink) -> None:
        self.robot, self.agent, self.sink = robot, agent, sink
        self.obs: np.ndarray | None = None
        self.sent: np.ndarray | None = None

    def reset(self) -> None:
        """Start an episode: robot, history and plan anew."""
        self.robot.reset()
        self.agent.reset(self._read())
        self.obs = self.sent = None

    def tick(self) -> None:
        """Read, learn, adapt, plan, act.

        Raises:
            BadObservation: before anything is planned from it.
        """
        start = time.perf_counter()
        obs = self._read()
        if self.obs is not None and self.sent is not None:
            self.agent.observe(self.obs, self.sent, obs)
        plan = self.agent.act(obs)
        action = plan.action.double().numpy().reshape(*obs.shape[:-1], -1)
        took = time.perf_counter() - start
        self.obs, self.sent = obs, np.array(self.robot.write(action))
        self.sink(obs, plan, self.sent, took)

    def _read(self) -> np.ndarray:
        """The observation, as a copy: a driver may fill the same array again and again."""
        obs, fields = np.array(self.robot.read(), dtype=float), self.robot.spec.obs
        if obs.shape[-1:] != (len(fields),):
            raise BadObservation(f"the robot reads {obs.shape} numbers, its spec has {len(fields)}")
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(obs.astype(np.float32))  # which is what is planned with
        if bad.any():
            names = [f.name for i, f in enumerate(fields) if bad[..., i].any()]
            raise BadObservation(f"the robot reads no finite {', '.join(names)}")
        return obs


class Clock:
    """Absolute deadlines a period apart, on a steady clock; whole periods are skipped on overrun.

    Args:
        period: [s].
        real_time: whether to wait at all; a simulation goes as fast as it can without.
    """

    def __init__(self, period: float, *, real_time: bool = True) -> None:
        self.period, self.real_time = period, real_time
        self.start()

    def start(self) -> None:
        """The first deadline is one period from now; nothing was missed so far."""
        self.missed = 0
        self.align()

    def align(self) -> None:
        """Deadlines count from now on."""
        self._deadline = time.monotonic()

    def wait(self) -> None:
        """Sleep until the next deadline, counting the periods that were missed."""
        if not self.real_time:
            return
        now = time.monotonic()
        self._deadline += self.period
        late = now - self._deadline
        if late > 0:
            skipped = int(late // self.period) + 1
            self.missed += skipped
            self._deadline += skipped * self.period
        time.sleep(max(0.0, self._deadline - now))


def settle() -> None:
    """Spare what exists from garbage collections to come: a full one stopped the loop for 0.1 s."""
    gc.collect()
    gc.freeze()


@runtime_checkable
class Ticking(Protocol):
    """A :class:`Loop`, or one with something around it."""

    def reset(self) -> None:
        """Start an episode."""

    def tick(self) -> None:
        """One control period."""


def run(loop: Ticking, ticks: int, clock: Clock) -> None:
    """Drive one episode."""
    loop.reset()
    clock.start()
    for _ in range(ticks):
        loop.tick()
        clock.wait()
