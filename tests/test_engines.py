"""The rollout engines: they all say what plain torch says, and come or stay away by themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mbmrl import checkpoint, registry
from mbmrl.adapters.base import Adapter
from mbmrl.compose import make_planner
from mbmrl.dynamics import ACTIVATIONS, Dynamics, Params
from mbmrl.engines import base, native
from mbmrl.engines.base import Engine, EngineError
from mbmrl.engines.native import Native, NativeBfloat16
from mbmrl.engines.plain import Plain
from mbmrl.engines.prepacked import Prepacked, PrepackedBfloat16
from mbmrl.precision import Rounded
from mbmrl.settings import settings_for
from mbmrl.spec import Field, RobotSpec
from mbmrl.types import RolloutFn, Transitions
from robots.hexapod import Hexapod

ROOT = Path(__file__).parent.parent
BARE = RobotSpec(
    name="bare",
    dt=0.1,
    obs=(Field("vx", "m/s"), Field("pitch", "rad")),
    act=(Field("f", "N", -1, 1),),
)
ROVER = RobotSpec(
    name="rover",
    dt=0.1,
    obs=(  # the pose is neither first nor in one piece
        Field("v", "m/s"),
        Field("x", "m"),
        Field("y", "m"),
        Field("filtered", "1"),
        Field("yaw", "rad"),
    ),
    act=(Field("left", "1", -1, 1), Field("right", "1", -1, 1)),
    pose=("x", "y", "yaw"),
    known={"filtered": {"filtered": 0.5, "left": 0.5}},
)
FAST = [Prepacked, Native]
every_fast_engine = pytest.mark.parametrize("engine_type", FAST)


def usable(engine_type: type[Engine]) -> Engine:
    try:
        return engine_type()
    except EngineError as error:
        pytest.skip(str(error))


def model(spec: RobotSpec, hidden: tuple[int, ...], activation: str) -> Dynamics:
    torch.manual_seed(0)
    dynamics = Dynamics(spec, hidden, activation).requires_grad_(False)
    for bias in dynamics.biases:
        torch.nn.init.normal_(bias, std=0.5)
    for name, low, high in (("input", 0.5, 1.5), ("target", 0.1, 0.3)):
        getattr(dynamics, f"{name}_mean").uniform_(-0.3, 0.3)
        getattr(dynamics, f"{name}_std").uniform_(low, high)
    return dynamics


def adapted(name: str, dynamics: Dynamics, robots: int) -> list:
    adapter: Adapter = registry.load("adapters", name)(dynamics).requires_grad_(False)
    spec = dynamics.spec
    obs, act, after = (
        torch.randn(robots, 7, k) for k in (spec.num_obs, spec.num_act, spec.num_obs)
    )
    return adapter.adapt(dynamics, Transitions(obs, act, after))


def question(spec: RobotSpec, robots: int, samples: int, horizon: int) -> tuple[Tensor, Tensor]:
    return torch.randn(robots, spec.num_obs), torch.randn(robots, samples, horizon, spec.num_act)


@every_fast_engine
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("hidden", [(), (5,), (33, 64), (100, 7, 130)])
@pytest.mark.parametrize("spec", [BARE, ROVER], ids=lambda s: s.name)
def test_it_says_what_plain_torch_says(
    engine_type: type[Engine], spec: RobotSpec, hidden: tuple[int, ...], activation: str
) -> None:
    """On odd sizes too, and where inputs are clamped."""
    engine, dynamics = usable(engine_type), model(spec, hidden, activation)
    for robots, samples, horizon in ((1, 1, 1), (1, 67, 5), (3, 130, 4)):
        obs, acts = question(spec, robots, samples, horizon)
        obs[0] *= 20.0
        params = dynamics.prior()
        expected = Plain().rollout(dynamics, params)(obs, acts)
        said = engine.rollout(dynamics, params)(obs, acts)
        assert said.dtype == torch.float32 and not said.requires_grad
        torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4)


@every_fast_engine
@pytest.mark.parametrize("name", ["none", "bayes", "maml", "maml_bayes", "rls"])
@pytest.mark.parametrize("robots", [1, 4])
def test_each_robot_has_its_own_weights(engine_type: type[Engine], name: str, robots: int) -> None:
    engine, dynamics = usable(engine_type), model(ROVER, (40, 24), "silu")
    params = adapted(name, dynamics, robots)
    obs, acts = question(ROVER, robots, 9, 6)
    expected = Plain().rollout(dynamics, params)(obs, acts)
    torch.testing.assert_close(
        engine.rollout(dynamics, params)(obs, acts), expected, rtol=1e-4, atol=1e-4
    )
    if robots > 1 and name != "none":
        swapped = Plain().rollout(dynamics, params)(obs.roll(1, 0), acts.roll(1, 0)).roll(-1, 0)
        assert (swapped - expected).abs().max() > 0.01  # the weights matter


@pytest.mark.parametrize("engine_type", [NativeBfloat16, PrepackedBfloat16])
@pytest.mark.parametrize("name", ["none", "bayes", "maml"])
def test_bfloat16_rounds_weights_and_activations_only(engine_type: type[Engine], name: str) -> None:
    """Where the processor has it."""
    engine, dynamics = usable(engine_type), model(ROVER, (100, 64), "silu")
    params = adapted(name, dynamics, 2)
    obs, acts = question(ROVER, 2, 300, 8)
    exact, expected, said = (
        e.rollout(dynamics, params)(obs, acts) for e in (Plain(), Rounded(), engine)
    )
    assert (said - expected).abs().mean() < 2 * (exact - expected).abs().mean()
    torch.testing.assert_close(said, expected, rtol=0.02, atol=0.02 * exact.std().item())


@every_fast_engine
def test_a_candidate_that_is_no_number_spoils_no_other(engine_type: type[Engine]) -> None:
    engine, dynamics = usable(engine_type), model(ROVER, (16, 16), "relu")
    obs, acts = question(ROVER, 1, 70, 4)
    roll = engine.rollout(dynamics, dynamics.prior())
    expected = roll(obs, acts)
    acts[0, 3, 2, 0] = torch.nan
    said = roll(obs, acts)
    assert said[0, 3, 2:].isnan().any(-1).all()
    others = torch.arange(70) != 3
    torch.testing.assert_close(said[:, others], expected[:, others])


@every_fast_engine
def test_the_plan_is_the_same(engine_type: type[Engine]) -> None:
    """The shipped hexapod's, adapted, within a hundredth of an action's range."""
    engine, found = usable(engine_type), checkpoint.for_robot(Hexapod.spec, None)
    dynamics, adapter = found.learner("bayes")
    torch.manual_seed(1)
    obs = 0.1 * torch.randn(1, 33, Hexapod.spec.num_obs)
    act = torch.rand(1, 32, Hexapod.spec.num_act)
    with torch.no_grad():
        params = adapter.adapt(dynamics, Transitions(obs[:, :-1], act, obs[:, 1:]))
    plans = []
    for each in (Plain(), engine):
        planner = make_planner(Hexapod.spec, settings_for("hexapod"))
        roll = each.rollout(dynamics, params)
        plans.append(planner.plan(obs[:, -1], roll, lambda p, a: -p[..., 0].sum(-1)))
    torch.testing.assert_close(plans[0].actions, plans[1].actions, rtol=0, atol=0.02)
    torch.testing.assert_close(plans[0].cost, plans[1].cost, rtol=1e-3, atol=1e-3)


PLANS = """
import resource, sys, torch
from controllers.cem import CEM
from mbmrl.dynamics import Dynamics
from mbmrl.engines.base import make
from mbmrl.spec import Field, RobotSpec

spec = RobotSpec("s", 0.1, (Field("v", "m/s"), Field("w", "rad/s")), (Field("f", "N", -1, 1),))
engine, dynamics = make(sys.argv[1]), Dynamics(spec, (32,), "relu").requires_grad_(False)
sizes = dict(horizon=3, num_samples=(6,), num_elites=3, num_knots=2)
planner = CEM(spec.act_low, spec.act_high, spec.rest, **sizes)
used = []
for k in range(10_001):
    rollout = engine.rollout(dynamics, dynamics.prior())
    planner.plan(torch.zeros(1, 2), rollout, lambda p, a: p.sum((-1, -2)))
    if k in (500, 10_000):
        used.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(used[1] - used[0])
"""


@pytest.mark.parametrize("engine_type", [Plain, Native])
def test_memory_does_not_grow_over_ten_thousand_plans(engine_type: type[Engine]) -> None:
    """In a process of its own, since checking annotations at run time takes memory too."""
    name = usable(engine_type).name
    command = [sys.executable, "-c", PLANS, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert int(done.stdout) < 1000, done.stderr  # [KiB]


# --- which one there is -----------------------------------------------------------------------


def test_plain_torch_is_always_there() -> None:
    assert base.availability()["plain"] == "yes"
    assert set(base.availability()) == set(base.ORDER)
    with pytest.raises(EngineError, match="choose from native_bfloat16, native"):
        base.make("warp")


def test_an_engine_that_computes_something_else_is_refused() -> None:
    class Wrong(Plain):
        def rollout(self, dynamics: Dynamics, params: Params) -> RolloutFn:
            right = super().rollout(dynamics, params)
            return lambda obs, acts: right(obs, acts) + 0.01

    base.prove(Plain())
    with pytest.raises(EngineError, match="computes something else"):
        base.prove(Wrong())


def test_looking_at_an_engine_leaves_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    base.make("plain")
    torch.testing.assert_close(torch.rand(2), expected, rtol=0, atol=0)


def test_bfloat16_is_chosen_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(base.VARIABLE, raising=False)
    made: list[str] = []

    def make(name: str) -> Engine:
        made.append(name)
        raise EngineError("none here")

    monkeypatch.setattr(base, "make", make)
    for allowed in (False, True):
        with pytest.raises(EngineError):
            base.best.__wrapped__(bfloat16=allowed)
        assert any("bfloat16" in name for name in made) == allowed


def test_an_engine_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(base.VARIABLE, "plain")
    assert base.best.__wrapped__().name == "plain"
    monkeypatch.setenv(base.VARIABLE, "warp")
    with pytest.raises(EngineError, match="warp"):
        base.best.__wrapped__()


def test_without_a_compiler_another_engine_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.delenv(base.VARIABLE, raising=False)
    monkeypatch.setattr(native, "extension", native.extension.__wrapped__)
    with pytest.raises(EngineError, match=r"install g\+\+"):
        Native()
    assert base.best.__wrapped__().name == "plain"
    assert "install g++" in base.availability()["native"]


def test_a_compiler_that_fails_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failing = tmp_path / "cc"
    failing.write_text("#!/bin/sh\necho it cannot >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", str(failing))
    monkeypatch.setattr(native, "extension", native.extension.__wrapped__)
    for _ in range(2):
        with pytest.raises(EngineError, match="the compiler failed"):
            Native()
    assert capfd.readouterr().err.count("Building") == 1
    (log,) = (tmp_path / "mbmrl").iterdir()
    assert "it cannot" in log.read_text()
