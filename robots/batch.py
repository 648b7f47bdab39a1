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
        """What every robot's sensors tell."""
        obs = self.truth()
        for robot, told in zip(self.robots, obs, strict=True):
            if robot.misled:
                told[:] = robot.read()
        return obs

    def truth(self) -> Float[np.ndarray, "r o"]:
        """Every robot's observation, through sensors without a fault."""
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
        together = [i for i, robot in enumerate(self.robots) if not robot.alone]
        self._move([self.robots[i] for i in together], ctrl[together])
        for i, robot in enumerate(self.robots):
            if i not in together:
                robot.move(robot.hear(ctrl[i : i + 1])[0])
            robot.arrive(carry[i, 0])
        return sent

    def _move(self, robots: Sequence[SimRobot], ctrl: Float[np.ndarray, "n s a"]) -> None:
        """Simulate one control period of robots that need no looking after."""
        if not robots:
            return
        states = self._states[: len(robots)]
        for robot, state in zip(robots, states, strict=True):
            mujoco.mj_getState(robot.model, robot.data, state, STATE)
        ctrl = np.repeat(ctrl, robots[0].substeps // ctrl.shape[1], axis=1)
        ends, _ = self._rollout([robot.model for robot in robots], self._data, states, ctrl)
        for robot, state, last in zip(robots, ends[:, -1], ctrl[:, -1], strict=True):
            mujoco.mj_setState(robot.model, robot.data, state, STATE)
            robot.data.ctrl[:] = last
