"""Absolute deadlines on the time that a simulation publishes on ``/clock``."""

from __future__ import annotations

import threading
import time
from typing import Any

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration

STANDSTILL = 1.0
"""Simulated time that stands still for so long [s] is no reason to wait any longer."""


class SimClock:
    """What :class:`mbmrl.loop.Clock` is for real time; where time goes back, deadlines do too.

    Args:
        clock: of a node that uses simulated time.
        period: [s].
    """

    def __init__(self, clock: Any, period: float) -> None:  # noqa: ANN401
        self.period, self.clock = period, clock
        self.still = False
        """Whether the last wait ended because time stands still."""
        self._period = round(1e9 * period)
        self._moved = threading.Condition()
        nanosecond = Duration(nanoseconds=1)
        threshold = JumpThreshold(
            min_forward=nanosecond, min_backward=Duration(nanoseconds=-1), on_clock_change=True
        )
        self._handle = clock.create_jump_callback(threshold, post_callback=self._jumped)
        self.start()

    def start(self) -> None:
        """The first deadline is one period from now; nothing was missed so far."""
        self.missed = 0
        self.align()

    def align(self) -> None:
        """Deadlines count from now on."""
        self._deadline = self._now()

    def wait(self) -> None:
        """Until the next deadline, or until time has stood still for long, see :attr:`still`."""
        self.still = False
        end = time.monotonic() + STANDSTILL
        with self._moved:
            while self._now() < self._deadline + self._period:
                if self._now() < self._deadline:  # it went back: whatever is there is new
                    self.align()
                    return
                left = end - time.monotonic()
                if left <= 0:
                    self.still = True
                    return
                self._moved.wait(left)
            self._deadline += self._period
            skipped = (self._now() - self._deadline) // self._period
            self.missed += skipped
            self._deadline += skipped * self._period

    def _now(self) -> int:
        return int(self.clock.now().nanoseconds)

    def _jumped(self, jump: object) -> None:
        with self._moved:
            self._moved.notify_all()
