"""Other people's planners on the same model, cost and number of evaluations, where installed.

Each is given the model as the plain torch step that its documentation asks for, with everything
merged that can be merged: the way a careful user would hand it over.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbmrl.bench.turns import Work
from mbmrl.dynamics import CLAMP, Dynamics

if TYPE_CHECKING:
    from mbmrl.bench.plan import Case

Step = Callable[[Tensor, Tensor], Tensor]
"""(states (n, o), actions (n, u)) → next states, or costs (n,)."""

NUM_ELITES = 0.1
"""Share of the candidates."""


def installed(case: Case, dynamics: Dynamics, cost: Step) -> dict[str, Work]:
    """Every peer that is installed and has this kind of planner, by its name."""
    peers = CEM if case.planner == "cem" else MPPI if case.planner == "mppi" else {}
    found = {}
    for name, make in peers.items():
        try:
            found[name] = make(case, dynamics, _step(dynamics), cost)
        except ImportError:
            continue
    return found


def _step(dynamics: Dynamics) -> Step:
    """One step of a model whose obs are all state, in as few operations as torch has for it."""
    weights, biases = list(dynamics.weights), list(dynamics.biases)
    scale = 1 / dynamics.input_std

    @torch.no_grad()
    def step(obs: Float[Tensor, "n o"], act: Float[Tensor, "n u"]) -> Float[Tensor, "n o"]:
        x = ((torch.cat([obs, act], -1) - dynamics.input_mean) * scale).clamp(-CLAMP, CLAMP)
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = dynamics.act_fn(torch.addmm(bias, x, weight))
        y = torch.addmm(biases[-1], x, weights[-1])
        return obs + torch.addcmul(dynamics.target_mean, y, dynamics.target_std)

    return step


def _return(dynamics: Dynamics, step: Step, cost: Step) -> Callable[[Tensor], Tensor]:
    """Action sequences (n, h, u) → minus their costs (n,)."""

    def judge(acts: Tensor) -> Tensor:
        obs, total = torch.zeros(len(acts), dynamics.spec.num_obs), torch.zeros(len(acts))
        for act in acts.unbind(1):
            obs = step(obs, act)
            total += cost(obs, act)
        return -total

    return judge


def _limits(case: Case, dynamics: Dynamics) -> dict[str, Any]:
    spec = dynamics.spec
    rows = ("lower_bound", spec.act_low), ("upper_bound", spec.act_high)
    return {name: [row.tolist()] * case.horizon for name, row in rows}


def _mbrl_cem(case: Case, dynamics: Dynamics, step: Step, cost: Step) -> Work:
    from mbrl.planning.trajectory_opt import CEMOptimizer

    planner = CEMOptimizer(
        case.iterations,
        NUM_ELITES,
        case.candidates,
        **_limits(case, dynamics),
        alpha=0.1,
        device=torch.device("cpu"),
    )
    start = torch.zeros(case.horizon, dynamics.spec.num_act)
    return lambda: planner.optimize(_return(dynamics, step, cost), start)


def _mbrl_mppi(case: Case, dynamics: Dynamics, step: Step, cost: Step) -> Work:
    from mbrl.planning.trajectory_opt import MPPIOptimizer

    planner = MPPIOptimizer(
        case.iterations,
        case.candidates,
        gamma=1.0,
        sigma=0.5,
        beta=0.9,
        **_limits(case, dynamics),
        device=torch.device("cpu"),
    )
    return lambda: planner.optimize(_return(dynamics, step, cost))


def _pytorch_mppi(case: Case, dynamics: Dynamics, step: Step, cost: Step) -> Work:
    import pytorch_mppi

    spec = dynamics.spec
    planner = pytorch_mppi.MPPI(
        step,
        cost,
        spec.num_obs,
        0.25 * torch.eye(spec.num_act),
        num_samples=case.candidates,
        horizon=case.horizon,
        u_min=torch.as_tensor(spec.act_low).float(),
        u_max=torch.as_tensor(spec.act_high).float(),
    )
    obs = torch.zeros(spec.num_obs)
    return lambda: [planner.command(obs) for _ in range(case.iterations)]


def _pytorch_icem(case: Case, dynamics: Dynamics, step: Step, cost: Step) -> Work:
    from pytorch_icem import iCEM
    from pytorch_icem.icem import accumulate_running_cost

    spec = dynamics.spec
    with warnings.catch_warnings(action="ignore"):
        planner = iCEM(
            step,
            accumulate_running_cost(cost, 0.0),
            spec.num_obs,
            1,  # version 0.1.0 refuses more than one action, but works with them: see below
            sigma=0.5,
            num_samples=case.candidates,
            num_elites=round(NUM_ELITES * case.candidates),
            horizon=case.horizon,
            warmup_iters=case.iterations,
            online_iters=case.iterations,
        )
    planner.nu, planner.sigma = spec.num_act, torch.full((spec.num_act,), 0.5)
    planner.reset()
    obs = torch.zeros(spec.num_obs)
    return lambda: planner.command(obs)


def _torchrl_cem(case: Case, dynamics: Dynamics, step: Step, cost: Step) -> Work:
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.data import Bounded, Composite, Unbounded
    from torchrl.envs.model_based import ModelBasedEnvBase
    from torchrl.modules import CEMPlanner, WorldModelWrapper

    spec = dynamics.spec

    class Env(ModelBasedEnvBase):
        def __init__(self) -> None:
            super().__init__(
                WorldModelWrapper(
                    TensorDictModule(step, ["observation", "action"], ["observation"]),
                    TensorDictModule(
                        lambda obs, act: -cost(obs, act)[..., None],
                        ["observation", "action"],
                        ["reward"],
                    ),
                ),
            )
            state = Unbounded((spec.num_obs,))
            self.observation_spec = Composite(observation=state)
            self.state_spec = Composite(observation=state)
            limits = (torch.as_tensor(x).float() for x in (spec.act_low, spec.act_high))
            self.action_spec = Bounded(*limits)
            self.reward_spec = Unbounded((1,))

        def _reset(self, tensordict: object, **kwargs: object) -> object:
            return TensorDict({"observation": torch.zeros(spec.num_obs)}, [])

    env = Env()
    planner = CEMPlanner(
        env,
        planning_horizon=case.horizon,
        optim_steps=case.iterations,
        num_candidates=case.candidates,
        top_k=round(NUM_ELITES * case.candidates),
    )
    start = env.reset()

    @torch.no_grad()
    def work() -> object:
        return planner(start.clone())

    return work


Make = Callable[["Case", Dynamics, Step, Step], Work]

CEM: dict[str, Make] = {
    "mbrl": _mbrl_cem,
    "pytorch-icem": _pytorch_icem,
    "torchrl": _torchrl_cem,
}
MPPI: dict[str, Make] = {"mbrl": _mbrl_mppi, "pytorch-mppi": _pytorch_mppi}
