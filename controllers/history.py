"""What each robot did lately, as far back as its dynamics are what they are now."""

from __future__ import annotations

from collections import deque

import torch
from jaxtyping import Int
from torch import Tensor

from mbmrl.adapters.base import Adapter
from mbmrl.dynamics import Dynamics, Params
from mbmrl.params import together
from mbmrl.types import Transitions


class History:
    """The last m transitions of r robots; of some robots fewer, where the older ones were cut.

    Args:
        length: m, the most that is kept.
    """

    def __init__(self, length: int) -> None:
        self._ticks: deque[Transitions] = deque(maxlen=length)
        self._known: Int[Tensor, " r"] | None = None

    def __len__(self) -> int:
        """How many transitions there are of a robot that nothing was cut of."""
        return len(self._ticks)

    def clear(self) -> None:
        """Nothing is known."""
        self._ticks.clear()
        self._known = None

    def append(self, newest: Transitions) -> None:
        """One more of each robot, (r, 1)."""
        self._ticks.append(newest)
        before = torch.zeros(len(newest.act), dtype=torch.long)
        known = before if self._known is None else self._known
        self._known = (known + 1).clamp(max=self._ticks.maxlen)

    def cut(self, robot: int, count: int) -> Transitions:
        """Keep the newest of a robot's, and give them, (1, count)."""
        assert self._known is not None
        self._known[robot] = min(count, int(self._known[robot]))
        return Transitions(*(x[robot : robot + 1] for x in self.newest(int(self._known[robot]))))

    def newest(self, count: int) -> Transitions:
        """The newest of every robot, (r, count), whatever was cut."""
        parts = list(self._ticks)[-count:]
        return Transitions(*(torch.cat(xs, 1) for xs in zip(*parts, strict=True)))

    def adapted(self, adapter: Adapter, prior: Dynamics) -> Params:
        """θ′ of each robot on its own window; those with windows of one length go together."""
        assert self._known is not None
        lengths = self._known.unique().tolist()
        if len(lengths) == 1:
            return adapter.adapt(prior, self.newest(lengths[0]))
        parts = []
        for length in lengths:
            (robots,) = torch.nonzero(self._known == length, as_tuple=True)
            window = Transitions(*(x[robots] for x in self.newest(length)))
            parts.append((robots, adapter.adapt(prior, window)))
        return together(parts)
