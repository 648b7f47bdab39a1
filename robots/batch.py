"""Several robots of one kind, read, written and simulated as one."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from jaxtyping import Float
from mujoco.rollout import Rollout

from robots.sim import STATE, SimRobot


class SimBatch:
    """Simulated robots side by side: the loop, the agent and the planner serve them all at once.

    Each keeps its own perturbations and does just what it would do alone.

    Args:
        robots: at least one, all of the same class.
        threads: to share the simulation.
    """

    def __init__(self, robots: Sequence[SimRobot], threads: int = 1) -> None:
        self.robots = list(robots)
        self.spec = self.robots[0].spec
        nominal = self.robots[0].nominal
        self._rollout = Rollout(nthread=threads if threads > 1 else 0).rollout
        self._data = [mujoco.MjData(nominal) for _ in range(threads)]
        self._states = np.empty((len(self.robots), mujoco.mj_stateSize(nominal, STATE)))

    def reset(self) -> None:
        """Reset every robot."""
        for robot in self.robots:
            robot.reset()

    def read(self) -> Float[np.ndarray, "r o"]:
        """Every robot's observation."""
        parts = ((r.data.qpos, r.data.qvel, r.carry) for r in self.robots)
        return self.robots[0].observe(*(np.array(part) for part in zip(*parts, strict=True)))

    def write(self, act: Float[np.ndarray, "r u"]) -> Float[np.ndarray, "r u"]:
        """Send each robot its action for one control period; returns what was really sent.

        Raises:
            ValueError: for actions of the wrong size or with a non-finite number.
            Diverged: when a simulation blows up.
        """
        first = self.robots[0]
        sent = first.within_limits(act, len(self.robots))
        ctrl, carry = first.controls(np.array([r.carry for r in self.robots]), sent[:, None])
        for robot, state in zip(self.robots, self._states, strict=True):
            mujoco.mj_getState(robot.model, robot.data, state, STATE)
        states, _ = self._rollout(
            [robot.model for robot in self.robots],
            self._data,
            self._states,
            np.repeat(ctrl, first.substeps // ctrl.shape[1], axis=1),
        )
        for robot, state, after in zip(self.robots, states[:, -1], carry[:, 0], strict=True):
            mujoco.mj_setState(robot.model, robot.data, state, STATE)
            robot.arrive(after)
        return sent
