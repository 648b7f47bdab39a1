"""What every driver is driven through: limits, rates, staleness, finite numbers."""

from __future__ import annotations

import time

import numpy as np
from jaxtyping import Float

from mbmrl.safety import Guard, Limits, Stale, Unsafe
from mbmrl.spec import RobotSpec
from robots.base import Robot
from robots.sim import SimRobot


class Shield(Robot):
    """A robot that neither passes on what it must not, nor believes what is too old.

    Args:
        robot: the driver; disconnected.
        share: how far actions may go from the safe action, as a share of the way to the limits.

    Attributes:
        measured: when the newest reading was, by the robot's own clock where it has one [s].
    """

    measured = 0.0

    def __init__(self, robot: Robot, share: float = 1.0) -> None:
        self.robot, self.spec = robot, robot.spec
        low, high = around_rest(self.spec, share)
        limits = Limits(low=low, high=high, rate=self.spec.act_rate)
        safe = np.clip(self.spec.rest, self.spec.act_low, self.spec.act_high)
        self.guard = Guard(limits, safe, self.spec.dt)

    def connect(self) -> None:
        """Connect; rates of change count from what the robot does now."""
        self.robot.connect()
        held = self.robot.held()
        self.guard.start(self.guard.safe if held is None else held)

    def reset(self) -> None:
        """Reset the robot."""
        self.robot.reset()

    def read(self) -> Float[np.ndarray, " o"]:
        """The robot's reading.

        Raises:
            Stale: it is older than ``spec.stale_after``, by the robot's own stamp.
        """
        obs, robot = self.robot.read(), self.robot
        self.stamp = robot.stamp
        own = robot.time if isinstance(robot, SimRobot) else robot.stamp
        self.measured = time.monotonic() if own is None else own
        if self.stamp is not None:
            age = time.monotonic() - self.stamp
            if age > self.spec.stale_after:
                raise Stale(
                    f"the reading is {age:.3f} s old; {self.spec.stale_after:g} s are allowed"
                )
        return obs

    def write(self, act: Float[np.ndarray, " u"]) -> Float[np.ndarray, " u"]:
        """Send what may be sent of an action.

        Raises:
            Unsafe: it is not finite, or of the wrong size, and nothing was sent; or the driver
                does not say what was.
        """
        told: object = self.robot.write(self.guard.pass_on(act))
        try:
            sent = np.array(told, dtype=float)
        except (TypeError, ValueError):
            sent = np.zeros(0)
        if sent.shape != self.guard.safe.shape or not np.isfinite(sent).all():
            raise Unsafe(
                f"{type(self.robot).__name__}.write() returned {told!r}: "
                f"it must be the {self.spec.num_act} numbers really sent"
            )
        return sent

    def rest(self) -> None:
        """One step at its rate towards the safe action."""
        self.robot.write(self.guard.pass_on(self.guard.safe))

    def again(self) -> None:
        """The last action once more."""
        self.robot.write(self.guard.sent)

    def stop(self) -> None:
        """Stop the robot."""
        self.robot.stop()


def around_rest(
    spec: RobotSpec, share: float
) -> tuple[Float[np.ndarray, " u"], Float[np.ndarray, " u"]]:
    """The lowest and highest actions within a share of the way from the safe one to the limits."""
    rest = np.clip(spec.rest, spec.act_low, spec.act_high)
    return rest + share * (spec.act_low - rest), rest + share * (spec.act_high - rest)
