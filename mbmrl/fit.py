"""Fit a prior and its adapter to stored data: many meta-training steps, the best one kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mbmrl.adapters.base import Adapter
from mbmrl.data import Windows
from mbmrl.dynamics import Dynamics
from mbmrl.meta import meta_loss
from mbmrl.types import Transitions


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
    lr: float = 1e-3
    check_every: int = 250


def fit(
    dynamics: Dynamics,
    adapter: Adapter,
    train: Windows,
    held_out: Windows,
    config: FitConfig,
    seed: int,
    report: Callable[[int, float, float], None] = lambda update, loss, val: None,
) -> float:
    """Meta-train in place; ends on the parameters with the best POST-adaptation validation loss.

    Args:
        dynamics: warm start; its normaliser is set already.
        adapter: trained along with it.
        train: windows to learn from.
        held_out: windows of conditions that ``train`` does not have.
        config: how.
        seed: of the windows drawn.
        report: told (update, mean training loss since the last look, validation loss).

    Returns:
        The best validation loss.
    """
    rng = torch.Generator().manual_seed(seed)
    judge = [
        held_out.sample(torch.Generator().manual_seed(99 + k), 256, config.window, config.query)
        for k in range(2)
    ]
    both = torch.nn.ModuleList([dynamics, adapter])
    # what adapters learn are logarithms: few, and far to go
    speeds = ((dynamics, config.lr), (adapter, 10 * config.lr))
    groups = [{"params": list(m.parameters()), "lr": lr} for m, lr in speeds]
    optimiser = torch.optim.Adam([g for g in groups if g["params"]])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda t: 0.5 * (1 + math.cos(math.pi * t / config.updates)) + 1e-3
    )
    best, kept, losses = validation(dynamics, adapter, judge), _snapshot(both), []
    for update in range(1, config.updates + 1):
        support = int(torch.randint(config.window // 4, config.window + 1, (), generator=rng))
        windows = train.sample(rng, config.batch, support, config.query)
        loss = adapter.objective(dynamics, *windows)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if update % config.check_every == 0 or update == config.updates:
            found = validation(dynamics, adapter, judge)
            report(update, sum(losses) / len(losses), found)
            losses.clear()
            if found < best:
                best, kept = found, _snapshot(both)
    both.load_state_dict(kept)
    return best


@torch.no_grad()
def validation(
    dynamics: Dynamics, adapter: Adapter, batches: list[tuple[Transitions, Transitions]]
) -> float:
    """The meta-objective, that is the loss AFTER adaptation, on fixed windows."""
    return sum(meta_loss(dynamics, adapter, s, q).item() for s, q in batches) / len(batches)


def _snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(module.state_dict())
