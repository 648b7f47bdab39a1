"""A recorded log as a robot: what it did then, it does again, whatever it is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from mbmrl import recording
from mbmrl.recording import Recording, RecordingError
from robots.base import Robot

if TYPE_CHECKING:
    from typing_extensions import Self


class Replay(Robot):
    """Plays the stretches of recordings, one after each reset, over and over.

    Actions move nothing: :meth:`write` returns the action that was sent in the recording, so that
    what is learned from a replay is what happened. Hence an agent's plans, its adaptation and its
    prediction errors on the same log can be compared from one version to the next.
    """

    driver: ClassVar[str] = "replay"
    recordings: ClassVar[tuple[Recording, ...]]

    @classmethod
    def from_file(cls, file: Path) -> type[Self]:
        """The robot of a recording, or of all those in a folder.

        Raises:
            RecordingError: where there is none, or none without a gap in it.
        """
        found = tuple(recording.load_all(file))
        if not any(r.stretches() for r in found):
            raise RecordingError(f"{file} holds no two readings that follow each other")
        return type(cls.__name__, (cls,), {"recordings": found, "spec": found[0].spec})

    def __init__(self) -> None:
        self._parts = [(r.obs[s], r.act[s]) for r in self.recordings for s in r.stretches()]
        self._next, self._row = 0, 0
        self._obs, self._act = self._parts[0]

    def connect(self) -> None:
        """Begin with the first stretch."""
        self._next = 0
        self.reset()

    def reset(self) -> None:
        """Go to the start of the next stretch."""
        self._obs, self._act = self._parts[self._next % len(self._parts)]
        self._next, self._row = self._next + 1, 0

    def read(self) -> Float[np.ndarray, " o"]:
        """What was read then.

        Raises:
            RecordingError: when the stretch is over.
        """
        self._left()
        return self._obs[self._row].copy()

    def write(self, act: Float[np.ndarray, " u"]) -> Float[np.ndarray, " u"]:
        """Go on by a row; returns the action that was sent then.

        Raises:
            RecordingError: when the stretch is over.
        """
        self._left()
        self._row += 1
        return self._act[self._row - 1].copy()

    def stop(self) -> None:
        """Nothing moves."""

    def _left(self) -> None:
        if self._row >= len(self._obs):
            raise RecordingError(f"the recording ends after {self._row * self.spec.dt:.2f} s")
