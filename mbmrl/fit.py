"""Fit priors and their adapters to stored data: many meta-training steps, the best one kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mbmrl.adapters.base import Adapter
from mbmrl.data import Windows
from mbmrl.dynamics import Dynamics
from mbmrl.meta import meta_loss
from mbmrl.types import Transitions

Pair: TypeAlias = tuple[Dynamics, Adapter]
Loss: TypeAlias = Callable[[Dynamics, Adapter, Transitions, Transitions], Tensor]

LEAP = 2.0
"""A gradient longer than so many usual ones is shortened. A few windows that adapting makes worse
have one a thousand times as long: Adam, which divides by what was usual, would leap with it."""
MEMORY = 0.98
"""What is usual keeps so much of itself at every update."""


@dataclass(frozen=True)
class FitConfig:
    """How to fit.

    Attributes:
        updates: outer steps.
        batch: windows (tasks) an update.
        window: longest support M; each update draws its own length, a quarter of it at least.
        query: transitions K that follow, predicted one step ahead and open loop.
        lr: outer learning rate of Adam, cosine to zero.
        check_every: updates between looks at the validation loss.
    """

    updates: int = 3000
    batch: int = 24
    window: int = 32
    query: int = 18
    lr: float = 8e-3
    check_every: int = 250


@dataclass(frozen=True)
class Look:
    """How far a fit has come; each figure is the mean over its members.

    Attributes:
        update: outer steps done.
        loss: training loss since the look before.
        validation: loss after adapting, on held-out windows.
        validation_prior: loss of the un-adapted prior on the same windows.
    """

    update: int
    loss: float
    validation: float
    validation_prior: float


def fit(
    pairs: Sequence[Pair],
    train: Windows,
    held_out: Windows,
    config: FitConfig,
    seed: int,
    report: Callable[[Look], None] = lambda look: None,
) -> list[float]:
    """Meta-train in place; each ends on its parameters with the best POST-adaptation validation.

    Several are the members of an ensemble (arXiv 1612.01474): they go through every update in one
    batched pass, each on windows of its own, and from where it stands, so that what the data do
    not settle they come to see differently.

    Args:
        pairs: dynamics to start from, whose normaliser is set already, each with an adapter that
            is trained along with it; all of one kind and size.
        train: windows to learn from.
        held_out: windows of conditions that ``train`` does not have.
        config: how.
        seed: of the windows drawn.
        report: told how far it has come.

    Returns:
        The best validation loss of each.
    """
    rng = torch.Generator().manual_seed(seed)
    judge = [
        held_out.sample(torch.Generator().manual_seed(99 + k), 256, config.window, config.query)
        for k in range(2)
    ]
    members = Members(pairs)
    step = OuterStep(members, config)
    best, kept = validation(members, judge), members.snapshot()
    losses = []
    for update in range(1, config.updates + 1):
        support = int(torch.randint(config.window // 4, config.window + 1, (), generator=rng))
        windows = train.sample(rng, len(pairs) * config.batch, support, config.query)
        losses.append(step(*windows).mean().item())
        if update % config.check_every == 0 or update == config.updates:
            found, prior = validation(members, judge), validation(members, judge, un_adapted)
            mean_loss = sum(losses) / len(losses)
            report(Look(update, mean_loss, found.mean().item(), prior.mean().item()))
            losses.clear()
            better = found < best
            best = torch.where(better, found, best)
            for name, now in members.snapshot().items():
                kept[name][better] = now[better]
    members.hand_back(kept)
    return best.tolist()


class OuterStep:
    """One step of meta-training: the gradient of the post-adaptation loss, clipped, and Adam.

    Args:
        members: to train.
        config: how.
    """

    def __init__(self, members: Members, config: FitConfig) -> None:
        self.members, self.usual = members, torch.full((len(members),), 0.5)
        # learned rates and noises are logarithms: few, and far to go
        speeds = {False: config.lr, True: 10 * config.lr}
        groups = [{"params": members.parameters(logs=k), "lr": lr} for k, lr in speeds.items()]
        self.optimiser = torch.optim.Adam([g for g in groups if g["params"]], fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda t: 0.5 * (1 + math.cos(math.pi * t / config.updates)) + 1e-3
        )

    def __call__(self, support: Transitions, query: Transitions) -> Float[Tensor, " k"]:
        """The loss of each member on its own windows, dealt out in turn; then the step."""
        dealt = [
            Transitions(*(x.unflatten(0, (-1, len(self.members))).transpose(0, 1) for x in part))
            for part in (support, query)
        ]
        losses = self.members.losses(objective, *dealt)
        self.optimiser.zero_grad()
        losses.sum().backward()
        longest = LEAP * self.usual
        norms = self.members.clip_gradients(longest).minimum(longest)
        self.usual = MEMORY * self.usual + (1 - MEMORY) * norms
        self.optimiser.step()
        self.schedule.step()
        return losses.detach()


class Members:
    """k priors with their adapters as one: each parameter of theirs has a first axis of k.

    Args:
        pairs: of one kind and size.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.learners = [_Learner(*pair) for pair in pairs]
        self.stacked, self.buffers = stack_module_state(list(self.learners))

    def __len__(self) -> int:
        """How many."""
        return len(self.learners)

    def parameters(self, *, logs: bool) -> list[Tensor]:
        """Those that are logarithms, whose names say so (``log_rate``), or all others."""
        return [p for name, p in self.stacked.items() if (".log_" in name) == logs]

    def losses(
        self, loss: Loss, support: Transitions, query: Transitions, *, shared: bool = False
    ) -> Float[Tensor, " k"]:
        """Each member's loss on windows of its own (k, *b, m), or all on the same (*b, m)."""
        if len(self) == 1:  # the same without vmap's cost
            one = {n: x.squeeze(0) for n, x in (self.stacked | self.buffers).items()}
            if not shared:
                support, query = (Transitions(*(x[0] for x in w)) for w in (support, query))
            return self._loss(one, loss, support, query)[None]
        axis = None if shared else 0
        each = vmap(self._loss, in_dims=(0, None, axis, axis))
        found: Tensor = each(self.stacked | self.buffers, loss, support, query)
        return found

    def _loss(
        self, tensors: dict[str, Tensor], loss: Loss, support: Transitions, query: Transitions
    ) -> Tensor:
        found: Tensor = functional_call(self.learners[0], tensors, (loss, support, query))
        return found

    def clip_gradients(self, longest: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """Shorten each member's own gradient, all of its parameters together.

        What is not finite is no direction: such a member's gradient becomes nought.

        Args:
            longest: that each may be.

        Returns:
            How long each was; ``inf`` where it was not finite.
        """
        gradients = [p.grad for p in self.stacked.values() if p.grad is not None]
        norm = torch.stack([g.reshape(len(self), -1).norm(dim=1) for g in gradients]).norm(dim=0)
        norm = norm.nan_to_num(math.inf, math.inf)
        share = (longest / (norm + 1e-6)).clamp(max=1)
        for g in gradients:
            g.nan_to_num_(0.0, 0.0, 0.0).mul_(share.view(-1, *[1] * (g.ndim - 1)))
        return norm

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of all that they have learned, or remember."""
        return {n: x.detach().clone() for n, x in (self.stacked | self.buffers).items()}

    def hand_back(self, snapshot: dict[str, Tensor]) -> None:
        """Give each member its own."""
        for i, learner in enumerate(self.learners):
            learner.load_state_dict({n: p[i] for n, p in snapshot.items()}, strict=False)


class _Learner(nn.Module):
    """A prior and its adapter as one module, to be called with parameters from elsewhere."""

    def __init__(self, prior: Dynamics, adapter: Adapter) -> None:
        super().__init__()
        self.prior, self.adapter = prior, adapter

    def forward(self, loss: Loss, support: Transitions, query: Transitions) -> Tensor:
        return loss(self.prior, self.adapter, support, query)


@torch.no_grad()
def validation(
    members: Members, batches: list[tuple[Transitions, Transitions]], loss: Loss = meta_loss
) -> Float[Tensor, " k"]:
    """The meta-objective, that is the loss AFTER adaptation, or another loss, on fixed windows."""
    return torch.stack([members.losses(loss, *b, shared=True) for b in batches]).mean(0)


def objective(
    dynamics: Dynamics, adapter: Adapter, support: Transitions, query: Transitions
) -> Tensor:
    """What the adapter wants made small in training."""
    return adapter.objective(dynamics, support, query)


def un_adapted(
    dynamics: Dynamics, adapter: Adapter, support: Transitions, query: Transitions
) -> Tensor:
    """The same loss of the prior: nothing to adapt on is seen."""
    nothing = Transitions(*(x[..., :0, :] for x in support))
    return meta_loss(dynamics, adapter, nothing, query)
