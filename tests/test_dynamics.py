"""The model: low-rank layers, pose integration, known fields, normalising, open-loop prediction."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import Tensor

from mbmrl.data import Episodes, Store
from mbmrl.dynamics import ACTIVATIONS, CLAMP, Affine, Dynamics, body_motion, integrate, wrap
from mbmrl.meta import normalised
from mbmrl.spec import Field, RobotSpec
from mbmrl.types import Transitions

# The pose lies in the middle and the known field before the predicted ones: nothing is in order.
SPEC = RobotSpec(
    name="crab",
    dt=0.1,
    obs=(
        Field("amp", "1"),
        Field("vx", "m/s"),
        Field("x", "m"),
        Field("y", "m"),
        Field("yaw", "rad"),
        Field("roll", "rad"),
    ),
    act=(Field("stride", "1", -1, 1), Field("turn", "1", -1, 1)),
    pose=("x", "y", "yaw"),
    known={"amp": {"amp": 0.25, "stride": 0.5, "vx": 0.125}},
)
NO_POSE = RobotSpec(
    name="cart", dt=0.1, obs=(Field("vx", "m/s"), Field("z", "m")), act=(Field("f", "N", -1, 1),)
)
both_specs = pytest.mark.parametrize("spec", [SPEC, NO_POSE], ids=lambda s: s.name)

angles = st.floats(-10, 10)
metres = st.floats(-5, 5)


def random_data(spec: RobotSpec, *batch: int, seed: int = 0) -> Transitions:
    g = torch.Generator().manual_seed(seed)
    rows = [torch.randn(*batch, k, generator=g) for k in (spec.num_obs, spec.num_act, spec.num_obs)]
    return Transitions(*rows)


def model(spec: RobotSpec = SPEC, activation: str = "silu", seed: int = 0) -> Dynamics:
    """A random network whose statistics are not the trivial ones."""
    torch.manual_seed(seed)
    dynamics = Dynamics(spec, (7, 5), activation)
    for bias in dynamics.biases:
        torch.nn.init.normal_(bias)
    data = random_data(spec, 50, seed=seed + 1)
    dynamics.fit_normaliser(Transitions(3 * data.obs + 1, 0.5 * data.act, 3 * data.next_obs - 1))
    return dynamics.requires_grad_(False)


def low_rank(dynamics: Dynamics, robots: int, rank: int = 3, seed: int = 5) -> list[Affine]:
    """Layers as adapters leave them: one shared, one with keys, one with weights per robot."""
    g = torch.Generator().manual_seed(seed)
    first, second, last = dynamics.prior()
    i, o = second.weight.shape
    keys, values = (0.3 * torch.randn(robots, rank, k, generator=g) for k in (i, o))
    second = Affine(
        second.weight, second.bias + torch.randn(robots, 1, o, generator=g), keys, values
    )
    weight = last.weight + 0.3 * torch.randn(robots, *last.weight.shape, generator=g)
    return [first, second, Affine(weight, last.bias)]


def of_robot(params: list[Affine], r: int) -> list[Affine]:
    def one(x: Tensor | None, shared: int) -> Tensor | None:
        return None if x is None else x if x.ndim == shared else x[r]

    return [
        Affine(one(p.weight, 2), one(p.bias, 1), one(p.keys, 2), one(p.values, 2)) for p in params
    ]


# --- layers ------------------------------------------------------------------------------------


@given(
    batch=st.lists(st.integers(1, 3), max_size=2),
    n=st.integers(1, 4),
    m=st.integers(1, 6),
    i=st.integers(1, 5),
    o=st.integers(1, 5),
    own_weight=st.booleans(),
    own_bias=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_a_low_rank_layer_equals_its_merged_form_and_explicit_weights(
    batch: list[int], n: int, m: int, i: int, o: int, own_weight: bool, own_bias: bool, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    weight = draw(*batch, i, o) if own_weight else draw(i, o)
    bias = draw(*batch, 1, o) if own_bias else draw(o)
    layer = Affine(weight, bias, draw(*batch, m, i), draw(*batch, m, o))
    x = draw(*batch, n, i)

    explicit = weight + torch.einsum("...mi,...mo->...io", layer.keys, layer.values)
    expected = torch.einsum("...ni,...io->...no", x, explicit) + bias
    torch.testing.assert_close(layer(x), expected)
    merged = layer.merged()
    assert merged.keys is None and merged.values is None
    torch.testing.assert_close(merged(x), expected)
    torch.testing.assert_close(merged.merged()(x), expected)


def test_a_plain_layer_is_its_own_merged_form() -> None:
    layer = Affine(torch.ones(2, 3), torch.ones(3))
    assert layer.merged() is layer
    torch.testing.assert_close(layer(torch.ones(1, 2)), torch.full((1, 3), 3.0))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_each_activation_comes_with_its_own_derivative(name: str) -> None:
    act, act_and_slope = ACTIVATIONS[name]
    z = torch.linspace(-6, 6, 101, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(act(z).sum(), z)
    value, slope = act_and_slope(z)
    torch.testing.assert_close(value, act(z))
    torch.testing.assert_close(slope, expected)


def test_a_forward_pass_by_hand() -> None:
    dynamics = model(NO_POSE)
    obs, act = torch.tensor([[0.3, -0.2]]), torch.tensor([[0.4]])
    x = (torch.cat([obs, act], -1) - dynamics.input_mean) / dynamics.input_std
    (w0, w1, w2), (b0, b1, b2) = dynamics.weights, dynamics.biases
    silu = torch.nn.functional.silu
    y = silu(silu(x @ w0 + b0) @ w1 + b1) @ w2 + b2
    expected = y * dynamics.target_std + dynamics.target_mean
    torch.testing.assert_close(dynamics(obs, act), expected)


# --- the pose ------------------------------------------------------------------------------------


@given(
    pose=st.tuples(metres, metres, angles),
    motion=npst.arrays(float, st.tuples(st.integers(1, 6), st.just(3)), elements=st.floats(-3, 3)),
)
def test_integrating_is_the_inverse_of_body_motion(
    pose: tuple[float, float, float], motion: np.ndarray
) -> None:
    start, moves = torch.tensor(pose, dtype=torch.float64), torch.from_numpy(motion)
    poses = integrate(start, moves)
    before = torch.cat([start[None], poses[:-1]])
    back = body_motion(before, poses)
    torch.testing.assert_close(back[:, :2], moves[:, :2], atol=1e-9, rtol=0)
    # as angles: 3 rad and 3 − 2π rad are the same turn
    torch.testing.assert_close(wrap(back[:, 2] - moves[:, 2]), torch.zeros(len(moves)).double())


@given(pose=st.tuples(metres, metres, angles), later=st.tuples(metres, metres, angles))
def test_body_motion_leads_from_one_pose_to_the_other(
    pose: tuple[float, float, float], later: tuple[float, float, float]
) -> None:
    a, b = (torch.tensor(p, dtype=torch.float64) for p in (pose, later))
    there = integrate(a, body_motion(a, b)[None])[0]
    torch.testing.assert_close(there[:2], b[:2], atol=1e-9, rtol=0)
    assert wrap(there[2] - b[2]).abs() < 1e-9


def test_body_motion_is_seen_from_the_first_pose() -> None:
    facing_left = torch.tensor([1.0, 2.0, math.pi / 2])
    ahead_and_right = torch.tensor([1.5, 2.3, math.pi / 2 + 0.1])
    motion = body_motion(facing_left, ahead_and_right)
    torch.testing.assert_close(motion, torch.tensor([0.3, -0.5, 0.1]))


@given(st.floats(-50, 50))
def test_wrap(angle: float) -> None:
    wrapped = wrap(torch.tensor(angle, dtype=torch.float64)).item()
    assert -math.pi <= wrapped <= math.pi
    assert math.cos(wrapped) == pytest.approx(math.cos(angle), abs=1e-9)
    assert math.sin(wrapped) == pytest.approx(math.sin(angle), abs=1e-9)


def test_a_turn_over_pi_is_a_small_turn() -> None:
    before, after = torch.tensor([0.0, 0.0, 3.1]), torch.tensor([0.0, 0.0, -3.1])
    assert body_motion(before, after)[2].item() == pytest.approx(2 * math.pi - 6.2, abs=1e-5)


def test_the_pose_never_enters_the_network() -> None:
    """Move and turn the start: states and body-frame motions stay what they were."""
    dynamics = model()
    data = random_data(SPEC, 4, 1)
    acts = torch.randn(4, 1, 6, 2, generator=torch.Generator().manual_seed(2))
    moved = data.obs.clone()
    moved[..., dynamics.pose_at] += torch.tensor([30.0, -20.0, 2.5])
    here, there = (dynamics.unroll(dynamics.prior(), o, acts) for o in (data.obs, moved))
    torch.testing.assert_close(there[..., dynamics.state_at], here[..., dynamics.state_at])

    def motions(start: Tensor, future: Tensor) -> Tensor:
        poses = torch.cat([start[..., None, :], future], -2)[..., dynamics.pose_at]
        return body_motion(poses[..., :-1, :], poses[..., 1:, :])

    torch.testing.assert_close(motions(moved, there), motions(data.obs, here), atol=1e-4, rtol=0)
    torch.testing.assert_close(dynamics(moved, data.act), dynamics(data.obs, data.act))


# --- open-loop prediction ------------------------------------------------------------------------


@both_specs
def test_one_step_is_the_forward_pass_plus_what_is_known(spec: RobotSpec) -> None:
    dynamics = model(spec)
    data = random_data(spec, 5, 2)
    change = dynamics(data.obs, data.act)
    after = dynamics.unroll(dynamics.prior(), data.obs, data.act[..., None, :])[..., 0, :]
    predicted = data.obs.clone()
    poses = len(dynamics.pose_at)
    if poses:
        pose = data.obs[..., dynamics.pose_at]
        predicted[..., dynamics.pose_at] = integrate(pose, change[..., None, :poses])[..., 0, :]
        amp, vx = data.obs[..., 0], data.obs[..., 1]
        predicted[..., 0] = 0.25 * amp + 0.5 * data.act[..., 0] + 0.125 * vx
    predicted[..., spec.index(spec.predicted)] += change[..., poses:]
    torch.testing.assert_close(after, predicted)


@both_specs
def test_many_steps_are_one_step_many_times(spec: RobotSpec) -> None:
    dynamics = model(spec)
    obs = random_data(spec, 3, 2).obs
    acts = torch.randn(3, 2, 5, spec.num_act, generator=torch.Generator().manual_seed(3))
    future = dynamics.unroll(dynamics.prior(), obs, acts)
    for t in range(5):
        obs = dynamics.unroll(dynamics.prior(), obs, acts[..., t : t + 1, :])[..., 0, :]
        torch.testing.assert_close(future[..., t, :], obs, atol=1e-4, rtol=1e-4)


def test_known_fields_follow_the_spec_whatever_the_network_says() -> None:
    obs = random_data(SPEC, 1, 2).obs
    acts = torch.randn(1, 2, 6, 2, generator=torch.Generator().manual_seed(4))
    for seed in (0, 1):
        dynamics = model(seed=seed)
        future = dynamics.unroll(dynamics.prior(), obs, acts)
        states = torch.cat([obs[..., None, :], future], -2)
        expected = 0.25 * states[..., :-1, 0] + 0.5 * acts[..., 0] + 0.125 * states[..., :-1, 1]
        torch.testing.assert_close(future[..., 0], expected, atol=1e-6, rtol=1e-6)


def test_inputs_are_clamped() -> None:
    """Beyond what the data ever showed, the network is asked about the border instead."""
    dynamics = model()
    data = random_data(SPEC, 3)
    assert dynamics.inputs(1e6 * data.obs, 1e6 * data.act).abs().max() == CLAMP
    far, farther = (torch.full((1, SPEC.num_obs), v) for v in (1e4, 1e7))
    act = torch.zeros(1, 2)
    torch.testing.assert_close(dynamics(far, act), dynamics(farther, act))
    near = dynamics.input_mean[: len(dynamics.state_at)] + 0.5
    obs = torch.zeros(1, SPEC.num_obs)
    obs[:, dynamics.state_at] = near
    inside = dynamics.inputs(obs, act)[:, : len(near)]
    torch.testing.assert_close(inside, 0.5 / dynamics.input_std[: len(near)][None])


def test_an_unroll_is_clamped_at_every_step() -> None:
    dynamics = model()
    acts = torch.full((1, 1, 200, 2), 1e5)
    future = dynamics.unroll(dynamics.prior(), torch.full((1, 1, SPEC.num_obs), 1e5), acts)
    assert future.isfinite().all()


def test_each_robot_of_a_batch_is_rolled_out_with_its_own_parameters() -> None:
    dynamics = model()
    params = low_rank(dynamics, robots=3)
    obs = random_data(SPEC, 3).obs
    acts = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(6))
    together = dynamics.rollout(params)(obs, acts)
    assert together.shape == (3, 4, 5, SPEC.num_obs)
    for r in range(3):
        alone = dynamics.rollout(of_robot(params, r))(obs[r : r + 1], acts[r : r + 1])
        torch.testing.assert_close(together[r], alone[0], atol=1e-4, rtol=1e-4)
    # and the robots do differ
    same = dynamics.rollout(params)(obs[:1].expand(3, -1), acts[:1].expand(3, -1, -1, -1))
    assert (same[0] - same[1]).abs().max() > 0.1


# --- normalising ---------------------------------------------------------------------------------


def test_targets_are_the_changes_in_their_deviations() -> None:
    data = random_data(SPEC, 400)
    dynamics = Dynamics(SPEC, (4,))
    dynamics.fit_normaliser(data)
    changes = dynamics.changes(data)
    expected = torch.cat(
        [
            body_motion(data.obs[:, 2:5], data.next_obs[:, 2:5]),
            (data.next_obs - data.obs)[:, [1, 5]],  # vx and roll; amp is known
        ],
        -1,
    )
    torch.testing.assert_close(changes, expected)
    for rows in (dynamics.targets(data), dynamics.inputs(data.obs, data.act)):
        torch.testing.assert_close(rows.mean(0), torch.zeros(rows.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(rows.std(0), torch.ones(rows.shape[1]), atol=1e-3, rtol=0)


def test_a_robot_that_rolls_over_pi_has_hardly_rolled() -> None:
    """Angles of a whole turn go round, be they changes to learn or errors; no other field does."""
    whole = Field("roll", "rad", -math.pi, math.pi)
    spec = replace(SPEC, obs=(*SPEC.obs[:-1], whole))
    assert spec.turns == ["yaw", "roll"]
    assert SPEC.turns == ["yaw"]
    before, after = (torch.tensor([[0.0, 0, 0, 0, 0, roll]]) for roll in (3.1, -3.1))
    step = Transitions(before, torch.zeros(1, 2), after)
    for where, roll in ((spec, 2 * math.pi - 6.2), (SPEC, -6.2)):
        dynamics = Dynamics(where, (4,))
        assert dynamics.changes(step)[0, -1].item() == pytest.approx(roll, abs=1e-5)
        error = normalised(dynamics, after[None, None], before[None, None])
        assert error.flatten()[-1].item() == pytest.approx(roll, abs=1e-5)


def test_known_mistake_3_statistics_are_those_of_all_stored_data(tmp_path: Path) -> None:
    """Two rounds in two files, the second from elsewhere: the statistics are those of both."""
    rng = np.random.default_rng(0)

    def batch(at: float, episodes: int) -> Episodes:
        return Episodes(
            rng.normal(at, 1 + abs(at), (episodes, 6, SPEC.num_obs)).astype(np.float32),
            rng.normal(at, 1, (episodes, 5, SPEC.num_act)).astype(np.float32),
            np.zeros(episodes, dtype=int),
            [""] * episodes,
        )

    old, new = batch(0.0, 3), batch(4.0, 2)
    store = Store(tmp_path)
    dynamics = Dynamics(SPEC, (4,))
    store.save("0", old)
    dynamics.fit_normaliser(store.load(SPEC).transitions())
    store.save("1", new)
    dynamics.fit_normaliser(store.load(SPEC).transitions())

    acts = np.concatenate([old.act.reshape(-1, 2), new.act.reshape(-1, 2)])
    np.testing.assert_allclose(dynamics.input_mean[-2:], acts.mean(0), rtol=1e-4)
    np.testing.assert_allclose(dynamics.input_std[-2:], acts.std(0, ddof=1), rtol=1e-4)
    vx = np.concatenate([e.obs[:, :-1, 1].ravel() for e in (old, new)])
    np.testing.assert_allclose(dynamics.input_mean[1], vx.mean(), rtol=1e-4)
    assert abs(vx.mean() - new.obs[..., 1].mean()) > 1


def test_statistics_do_not_remember_earlier_data() -> None:
    a, b = (random_data(SPEC, 20, seed=s) for s in (1, 2))
    once, twice = Dynamics(SPEC, (4,)), Dynamics(SPEC, (4,))
    once.fit_normaliser(b)
    twice.fit_normaliser(a)
    twice.fit_normaliser(b)
    for (name, mine), theirs in zip(once.named_buffers(), twice.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=name)


def test_a_field_that_never_moves_does_not_divide_by_zero() -> None:
    data = random_data(NO_POSE, 30)
    still = Transitions(*(x.clone() for x in data))
    still.obs[:, 1] = still.next_obs[:, 1] = 0.7
    dynamics = Dynamics(NO_POSE, (4,))
    dynamics.fit_normaliser(still)
    assert dynamics.targets(still).isfinite().all()
    assert dynamics.inputs(still.obs, still.act).isfinite().all()


def test_statistics_travel_with_the_weights() -> None:
    state = model().state_dict()
    assert {"input_mean", "input_std", "target_mean", "target_std"} <= set(state)
