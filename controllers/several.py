"""Learned models side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from controllers.learned import LearnedModel
from mbmrl.types import RolloutFn, Transitions


class Several(ABC):
    """Learned models that see the same and adapt side by side; subclasses say who is asked.

    Args:
        models: at least one.
    """

    def __init__(self, models: Sequence[LearnedModel]) -> None:
        self.models = list(models)

    def look_back(self) -> None:
        """See :meth:`LearnedModel.look_back`."""
        for model in self.models:
            model.look_back()

    def switch(self, adapting: bool) -> None:
        """See :meth:`LearnedModel.switch`."""
        for model in self.models:
            model.switch(adapting)

    def reset(self) -> None:
        """Forget the robots' histories."""
        for model in self.models:
            model.reset()

    def observe(self, transition: Transitions) -> None:
        """Every model learns."""
        for model in self.models:
            model.observe(transition)

    @abstractmethod
    def rollout(self) -> RolloutFn:
        """Every model adapts; the robots' future as known now."""

    def info(self) -> dict[str, Tensor]:
        """What the first one tells."""
        return self.models[0].info()
