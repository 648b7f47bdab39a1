"""Several robots of one kind, read and written as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from robots.sim import SimRobot


class Fleet:
    """Simulated robots side by side: the loop, the agent and the planner serve them all at once.

    Args:
        robots: at least one, all of the same class.
    """

    def __init__(self, robots: Sequence[SimRobot]) -> None:
        self.robots = list(robots)
        self.spec = self.robots[0].spec

    def reset(self) -> None:
        """Reset every robot."""
        for robot in self.robots:
            robot.reset()

    def read(self) -> Float[np.ndarray, "r o"]:
        """Every robot's observation."""
        return np.stack([robot.read() for robot in self.robots])

    def write(self, act: Float[np.ndarray, "r u"]) -> Float[np.ndarray, "r u"]:
        """Send each robot its action; returns what was really sent."""
        return np.stack([robot.write(a) for robot, a in zip(self.robots, act, strict=True)])
