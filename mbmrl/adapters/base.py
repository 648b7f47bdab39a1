"""What every learner-to-adapt is: a pure function of the prior and a window of transitions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, TypeAlias

from jaxtyping import Float
from torch import Tensor, nn

from mbmrl.dynamics import Dynamics, Params
from mbmrl.types import Transitions

PRIOR = 0.3
"""Weight of the prior's own loss, in the objective of what does not merely correct it."""


class Adapter(nn.Module, ABC):
    """Turns the last m transitions into adapted layers, always from the prior, never cumulative.

    The same code runs in meta-training, where gradients flow through it into the prior and
    into the adapter's own parameters (learned rates, noise), and at every control tick.

    Attributes:
        name: as it is asked for.
        trained_as: the learner whose prior it takes, where it has none of its own.
        corrects: whether it moves the prior by its errors alone, so that a prior which is right is
            left as it is. What reads a window with a network of its own makes no such promise.
    """

    name: ClassVar[str]
    trained_as: ClassVar[str] = ""
    corrects: ClassVar[bool] = True

    @abstractmethod
    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """θ* → θ′ on a window of (*b, m) transitions, oldest first; m = 0 gives θ*."""

    def objective(
        self, prior: Dynamics, support: Transitions, query: Transitions
    ) -> Float[Tensor, ""]:
        """What meta-training makes small: the loss of θ′ on what followed the window.

        And some of the prior's own, where nothing else would make that a good model: it drives
        until there is a window, and wherever a gate is shut.
        """
        from mbmrl.meta import meta_loss  # imported here, because it imports this module

        loss = meta_loss(prior, self, support, query)
        if self.corrects:
            return loss
        nothing = Transitions(*(x[..., :0, :] for x in support))
        return loss + PRIOR * meta_loss(prior, self, nothing, query)


State: TypeAlias = tuple[Tensor, ...]
"""What a recursive adapter knows of each robot; every tensor begins with the axes *b."""


class Recursive(Adapter):
    """Takes transitions one by one, and remembers what they told in a state of fixed size.

    On a robot the state is kept from tick to tick, and forgotten at a reset or a gap.
    """

    @abstractmethod
    def begin(self, prior: Dynamics, batch: tuple[int, ...]) -> State:
        """The state of robots that nobody has seen move."""

    @abstractmethod
    def step(self, prior: Dynamics, state: State, newest: Transitions) -> State:
        """The state after one more transition (*b, 1)."""

    @abstractmethod
    def params(self, prior: Dynamics, state: State) -> Params:
        """θ′ as the state has it."""

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """See :class:`Adapter`."""
        if window.act.shape[-2] == 0:
            return prior.prior()
        return self.params(prior, self.follow(prior, window))

    def follow(self, prior: Dynamics, window: Transitions) -> State:
        """The state after a window, of robots that nobody had seen before it."""
        state = self.begin(prior, tuple(window.act.shape[:-2]))
        for t in range(window.act.shape[-2]):
            state = self.step(prior, state, Transitions(*(x[..., t : t + 1, :] for x in window)))
        return state
