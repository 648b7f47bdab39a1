"""What benchmarks compare is the same thing done by different hands."""

from __future__ import annotations

import time

import pytest
import torch

from mbmrl.bench import meta, peers, plan, turns
from mbmrl.dynamics import Dynamics


def model() -> Dynamics:
    torch.manual_seed(0)
    dynamics = Dynamics(plan.SPEC, (16, 16), "silu").requires_grad_(False)
    for name in ("input", "target"):
        getattr(dynamics, f"{name}_mean").uniform_(-0.3, 0.3)
        getattr(dynamics, f"{name}_std").uniform_(0.5, 1.5)
    return dynamics


def test_peers_are_given_the_same_model() -> None:
    dynamics, step = model(), peers._step(model())
    obs, acts = torch.randn(7, 18), torch.rand(7, 4, 6)
    expected = dynamics.unroll(dynamics.prior(), obs, acts)
    for t, act in enumerate(acts.unbind(1)):
        obs = step(obs, act)
        torch.testing.assert_close(obs, expected[:, t], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*peers.CEM, *peers.MPPI])
def test_an_installed_peer_evaluates_as_many_candidates(name: str) -> None:
    counted = 0

    def step(obs: torch.Tensor, act: torch.Tensor) -> torch.Tensor:
        nonlocal counted
        counted += len(obs)
        return obs

    for planner, makers in (("cem", peers.CEM), ("mppi", peers.MPPI)):
        if name not in makers:
            continue
        case = plan.Case(planner, (8,), "relu", 40, 3, 2)
        try:
            work = makers[name](case, model(), step, plan.running_cost)
        except ImportError as error:
            pytest.skip(str(error))
        counted = 0
        work()
        assert counted == 40 * 3 * 2


@pytest.mark.parametrize("name", meta.PEERS)
def test_an_installed_peer_gives_the_meta_gradient(name: str) -> None:
    """Second order and all: against autograd through one explicit SGD step."""
    dynamics = model()
    network = meta._network(dynamics)
    data = [torch.randn(7, 5, n) for n in (24, 18, 24, 18)]
    try:
        work = meta.PEERS[name](network, data)
    except ImportError as error:
        pytest.skip(str(error))
    work()
    found = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    params = {k: v.detach().requires_grad_() for k, v in network.named_parameters()}
    loss = torch.zeros(())
    for x, y, next_x, next_y in zip(*data, strict=True):
        said = torch.func.functional_call(network, params, (x,))
        inner = torch.nn.functional.mse_loss(said, y)
        grads = torch.autograd.grad(inner, list(params.values()), create_graph=True)
        new = {k: p - meta.INNER_LR * g for (k, p), g in zip(params.items(), grads, strict=True)}
        said = torch.func.functional_call(network, new, (next_x,))
        loss = loss + torch.nn.functional.mse_loss(said, next_y) / 7
    expected = torch.autograd.grad(loss, list(params.values()))
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-6)


def test_rivals_are_compared_with_the_first() -> None:
    rivals = {"slow": lambda: time.sleep(0.02), "quick": lambda: time.sleep(0.002)}
    took = turns.in_turn(rivals, 3)
    assert took["slow"].ratio == 1
    assert took["quick"].ratio < 0.7
    assert took["quick"].ms_median >= 2


def test_products_are_those_of_the_plan() -> None:
    weights = [torch.ones(3, 5), torch.ones(5, 2)]
    with torch.profiler.profile(record_shapes=True) as seen:
        turns.products(weights, rows=7, times=4)()
    shapes = [tuple(map(tuple, e.input_shapes[:2])) for e in seen.events() if e.name == "aten::mm"]
    assert shapes == [((7, 3), (3, 5)), ((7, 5), (5, 2))] * 4
