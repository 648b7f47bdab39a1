"""What stands between a decision and a motor; no ROS, no robot, numpy alone.

Every command is checked for finite numbers BEFORE it is clamped (NaN passes a clamp), then kept
within its range and its rate of change.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


class Stale(RuntimeError):
    """The robot's state is older than a decision may be made from, or has never come."""


class Restarted(Stale):
    """The robot began anew: what it says now has nothing to do with what it said before."""


class Unsafe(RuntimeError):
    """A command or a reading that must go no further: not finite, or outside the envelope."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of commands, in their own units, one entry a joint.

    Attributes:
        low: smallest command.
        high: largest command.
        rate: largest change of a command a second; inf for none.
    """

    low: Float[np.ndarray, " u"]
    high: Float[np.ndarray, " u"]
    rate: Float[np.ndarray, " u"]

    def __post_init__(self) -> None:
        """Refuse limits that limit nothing; raises ValueError."""
        shapes = {x.shape for x in (self.low, self.high, self.rate)}
        if len(shapes) > 1:
            raise ValueError(f"low, high and rate have one entry a joint, not {shapes}")
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            raise ValueError("every command needs a finite lower and upper limit")
        if not (self.low < self.high).all():
            raise ValueError(f"lower limits {self.low} are not below the upper ones {self.high}")
        if not (self.rate > 0).all():
            raise ValueError(f"rates of change are positive, not {self.rate}")


class Guard:
    """Where every command passes on its way out.

    Args:
        limits: of commands.
        safe: the command that does no harm, within the limits.
        period: of commands [s].

    Attributes:
        sent: the command sent last; before the first, the safe one.
    """

    def __init__(self, limits: Limits, safe: Float[np.ndarray, " u"], period: float) -> None:
        if safe.shape != limits.low.shape:
            raise ValueError(f"the safe command has {safe.size} values, not {limits.low.size}")
        if not ((limits.low <= safe) & (safe <= limits.high)).all():
            raise ValueError(f"the safe command {safe} is outside {limits.low} and {limits.high}")
        self.limits, self.safe, self.period = limits, safe.copy(), period
        self.sent = safe.copy()

    def start(self, where: Float[np.ndarray, " u"]) -> None:
        """The rate of change counts from ``where``; entries that are not finite from safe."""
        near = np.where(np.isfinite(where), where, self.safe)
        self.sent = np.clip(near, self.limits.low, self.limits.high)

    def pass_on(self, command: Float[np.ndarray, " u"]) -> Float[np.ndarray, " u"]:
        """The command to send instead.

        Raises:
            Unsafe: it is not finite, or of the wrong size; nothing is to be sent then.
        """
        command = np.asarray(command, dtype=float)
        if command.shape != self.safe.shape:
            raise Unsafe(f"a command of {command.shape} values for {self.safe.size} joints")
        if not np.isfinite(command).all():
            raise Unsafe("a command that is not finite")
        step = self.limits.rate * self.period
        near = np.clip(command, self.sent - step, self.sent + step)
        self.sent = np.clip(near, self.limits.low, self.limits.high)
        return self.sent.copy()

    def at_rest(self) -> bool:
        """Whether the command sent last is the safe one."""
        return bool(np.allclose(self.sent, self.safe, rtol=0, atol=1e-9))


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What may be measured at the joints; outside it, the robot is not to be driven.

    Attributes:
        position: (2, u) smallest and largest position [rad or m].
        velocity: largest speed [rad/s or m/s].
        effort: largest effort [N·m or N].
    """

    position: Float[np.ndarray, "2 u"]
    velocity: Float[np.ndarray, " u"]
    effort: Float[np.ndarray, " u"]

    def __post_init__(self) -> None:
        """Refuse what no robot could keep to."""
        low, high = self.position
        if (low > high).any() or (self.velocity < 0).any() or (self.effort < 0).any():
            raise ValueError(
                f"nothing lies between positions {low} and {high} at speeds to {self.velocity} "
                f"and efforts to {self.effort}"
            )

    def check(
        self,
        names: Sequence[str],
        position: Float[np.ndarray, " u"],
        velocity: Float[np.ndarray, " u"],
        effort: Float[np.ndarray, " u"],
    ) -> None:
        """Raise :class:`Unsafe`, naming the joint; what is not measured (NaN) is not judged."""
        low, high = self.position
        outside = {
            "position": (position < low) | (position > high),
            "velocity": np.abs(velocity) > self.velocity,
            "effort": np.abs(effort) > self.effort,
        }
        values = {"position": position, "velocity": velocity, "effort": effort}
        for what, bad in outside.items():
            if bad.any():
                i = int(bad.argmax())
                raise Unsafe(f"the {what} of {names[i]} is {values[what][i]:.4g}, over its limit")


class Age:
    """How old the newest sample is, on a steady clock.

    Args:
        limit: from where on it is stale [s].
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.seen = -math.inf

    def fresh(self, now: float) -> None:
        """A sample came at ``now`` [s]."""
        self.seen = now

    def of(self, now: float) -> float:
        """[s]; infinite before the first sample."""
        return now - self.seen

    def check(self, now: float, what: str) -> None:
        """Raise :class:`Stale` where the newest sample is too old."""
        age = self.of(now)
        if age > self.limit:
            since = "has never come" if age == math.inf else f"is {age:.3f} s old"
            raise Stale(f"{what} {since}; {self.limit:.3f} s are allowed")


class InARow:
    """Counts what goes wrong, and says when it went wrong too often without a break.

    Args:
        most: so many in a row are too many.
    """

    def __init__(self, most: float) -> None:
        self.most, self.total, self.row = most, 0, 0

    def bad(self) -> bool:
        """Count one more; whether it is one too many."""
        self.total += 1
        self.row += 1
        return self.row >= self.most

    def good(self) -> None:
        """The row is broken."""
        self.row = 0


class Latch:
    """A stop that holds until somebody releases it; any thread may trip it."""

    def __init__(self) -> None:
        self._reason = ""
        self._lock = threading.Lock()

    @property
    def reason(self) -> str:
        """Why it was tripped first; empty while it is not."""
        return self._reason

    def trip(self, reason: str) -> None:
        """Stop; a stop that holds already keeps its reason."""
        with self._lock:
            self._reason = self._reason or reason

    def release(self) -> None:
        """Go on."""
        with self._lock:
            self._reason = ""
