"""Small models of a cart, and carts that behave as such models say."""

from __future__ import annotations

import torch

from mbmrl.dynamics import Dynamics
from mbmrl.spec import Field, RobotSpec
from mbmrl.types import Transitions

SPEC = RobotSpec(
    name="cart",
    dt=0.1,
    obs=(Field("vx", "m/s"), Field("pitch", "rad")),
    act=(Field("f", "N", -1, 1),),
)


def model(seed: int = 0) -> Dynamics:
    """A network that nobody has trained."""
    torch.manual_seed(seed)
    dynamics = Dynamics(SPEC, (6, 5), "tanh")
    for bias in dynamics.biases:
        torch.nn.init.normal_(bias, std=0.5)
    return dynamics.requires_grad_(False)


def driven(truths: list[Dynamics], steps: int, seed: int = 2) -> list[Transitions]:
    """Tick by tick, what robots do that behave as ``truths`` predict, each as its own."""
    g = torch.Generator().manual_seed(seed)
    obs, ticks = torch.randn(len(truths), 1, 2, generator=g), []
    for _ in range(steps):
        act = torch.rand(len(truths), 1, 1, generator=g) * 2 - 1
        after = [t.unroll(t.prior(), obs[r], act[r][None])[:, 0] for r, t in enumerate(truths)]
        ticks.append(Transitions(obs, act, torch.stack(after)))
        obs = ticks[-1].next_obs
    return ticks
