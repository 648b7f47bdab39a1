"""The contract of a robot, simulated or real: the one class that a driver's author implements."""

from __future__ import annotations

import contextlib
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from mbmrl.spec import RobotSpec

if TYPE_CHECKING:
    from typing_extensions import Self

ENDING = [signal.Signals[n] for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
"""Signals that end a program: Ctrl-C, a kill, a closed terminal or a lost ssh."""


def interruptible() -> contextlib.AbstractContextManager[None]:
    """Each of :data:`ENDING` raises KeyboardInterrupt in here, once: the others are ignored then.

    A closed terminal often sends more than one, and stopping a robot may take a second.
    """
    return _handled(_interrupt)


def undisturbed() -> contextlib.AbstractContextManager[None]:
    """None of :data:`ENDING` does anything in here; what hangs is ended by SIGQUIT or SIGKILL."""
    return _handled(signal.SIG_IGN)


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> Iterator[None]:
    """Handle them so; only the main thread can, elsewhere nothing changes."""
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # as nohup has it
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


class Robot(ABC):
    """A robot that is read and written once a control period.

    A context manager: entering connects, leaving calls :meth:`stop`, which no signal cuts short.
    ``spec`` is readable while disconnected.
    """

    spec: RobotSpec
    task: ClassVar[str] = "speed"
    """Name of the task in :mod:`mbmrl.tasks` that the robot is driven by unless told otherwise."""
    speed: ClassVar[float | None] = None
    """The speed that its task asks for [m/s]; the task's own where there is none."""
    size: ClassVar[float] = 1.0
    """Of the paths it is given, in that of a hexapod's."""

    stamp: float | None = None
    """When the newest reading was measured, on :func:`time.monotonic` [s]; None where the driver
    cannot say."""

    @abstractmethod
    def connect(self) -> None:
        """Open the connection; may be called again after :meth:`stop`."""

    @abstractmethod
    def reset(self) -> None:
        """Bring the robot to where an episode starts."""

    @abstractmethod
    def read(self) -> Float[np.ndarray, " o"]:
        """The newest observation, in the order and the units of ``spec.obs``.

        Never waits longer than a control period; raises where the robot is gone.
        """

    @abstractmethod
    def write(self, act: Float[np.ndarray, " u"]) -> Float[np.ndarray, " u"]:
        """Send an action; returns the action really sent, after limits."""

    def held(self) -> Float[np.ndarray, " u"] | None:
        """The action that would leave the robot as it is, from where rates of change count.

        None: the safe action. For a robot that takes positions: where it is.
        """
        return None

    @abstractmethod
    def stop(self) -> None:
        """Go to the safe state: again and again, from any thread, connected or not."""

    def __enter__(self) -> Self:
        """Connect, or stop what is half connected."""
        try:
            self.connect()
        except BaseException:
            with undisturbed(), contextlib.suppress(Exception):  # what connect() raised says more
                self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, whatever happened."""
        with undisturbed():
            self.stop()
