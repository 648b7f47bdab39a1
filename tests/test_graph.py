"""Dynamics over links: who hears whom, and that nothing else need know of it."""

from __future__ import annotations

import mujoco
import pytest
import torch

from mbmrl import registry
from mbmrl.dynamics import Dynamics
from mbmrl.graph import ROUNDS, GraphDynamics
from mbmrl.meta import meta_loss
from mbmrl.spec import Field, RobotSpec, SpecError
from mbmrl.types import Transitions
from robots.sim import SimRobot

ARM = RobotSpec(
    name="arm",
    dt=0.1,
    obs=(
        Field("vx", "m/s"),
        *(Field(f"j{k}", "rad") for k in range(6)),
        *(Field(f"j{k}_rate", "rad/s") for k in range(6)),
    ),
    act=tuple(Field(f"torque_j{k}", "1", -1, 1) for k in range(6)),
    tree={"j0": "", **{f"j{k + 1}": f"j{k}" for k in range(5)}},
)


def graph(spec: RobotSpec = ARM) -> GraphDynamics:
    torch.manual_seed(0)
    dynamics = GraphDynamics(spec, (56,), "tanh")
    for bias in dynamics.biases:
        torch.nn.init.normal_(bias, std=0.3)
    return dynamics


def test_messages_go_one_joint_a_round() -> None:
    """What a link does next depends on what lies within as many joints as there are rounds."""
    dynamics = graph().requires_grad_(False)
    obs, act = torch.randn(1, ARM.num_obs), torch.randn(1, ARM.num_act)
    before = dynamics(obs, act)[0]
    fields = [*ARM.state, *(f.name for f in ARM.act)]
    for k in range(6):
        moved = act.clone()
        moved[0, k] += 0.5
        changed = (dynamics(obs, moved)[0] - before).abs() > 1e-7
        for name, has in zip(ARM.predicted, changed.tolist(), strict=True):
            link = ARM.link_of(name)
            at = int(link[1:]) if link else -1
            assert has == (abs(at - k) <= ROUNDS), (fields[len(ARM.state) + k], name)


def test_links_share_what_they_do_with_messages() -> None:
    """With the biases that tell them apart gone, the middle of a chain is moved like the middle."""
    dynamics = graph().requires_grad_(False)
    width = dynamics.hidden[0] // len(dynamics.nodes)
    message = dynamics.prior()[1].weight.reshape(7, width, 7, width)
    for a, b in ((2, 3), (3, 4), (4, 5)):
        assert torch.equal(message[a, :, a], message[b, :, b])
        assert torch.equal(message[a, :, a + 1], message[b, :, b + 1])
        assert torch.equal(message[a + 1, :, a], message[b + 1, :, b])
    assert not torch.equal(message[2, :, 3], message[3, :, 2])  # to the child, to the parent
    assert not message[1, :, 4].any()


def test_dense_is_the_same_function() -> None:
    dynamics = graph()
    dynamics.input_mean.uniform_(), dynamics.target_std.uniform_(0.5, 2.0)
    plain = dynamics.dense()
    assert type(plain) is Dynamics and plain.hidden == dynamics.hidden
    obs, act = torch.randn(4, ARM.num_obs), torch.randn(4, ARM.num_act)
    torch.testing.assert_close(plain(obs, act), dynamics(obs, act))
    assert plain.dense() is plain


@pytest.mark.parametrize("name", registry.names("adapters"))
def test_every_adapter_takes_it(name: str) -> None:
    """As it is in training, and multiplied out when it drives: the same θ′."""
    dynamics = graph()
    torch.manual_seed(1)
    adapter = registry.load("adapters", name)(dynamics)
    support, query = (
        Transitions(*(torch.randn(2, k, n) for n in (ARM.num_obs, ARM.num_act, ARM.num_obs)))
        for k in (9, 12)
    )
    meta_loss(dynamics, adapter, support, query).backward()
    for parameter, value in dynamics.named_parameters():
        assert value.grad is not None and value.grad.any(), parameter
    plain = dynamics.dense()
    x = dynamics.inputs(query.obs, query.act)
    with torch.no_grad():
        torch.testing.assert_close(
            plain.predict(adapter.adapt(plain, support), x),
            dynamics.predict(adapter.adapt(dynamics, support), x),
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.parametrize("name", registry.names("robots"))
def test_the_tree_is_the_robots_own(name: str) -> None:
    """Every action moves a link; and where links are joints they hang together as the model's."""
    cls = registry.load("robots", name)
    if not issubclass(cls, SimRobot):
        pytest.skip("not simulated")
    spec = cls.spec
    links = {spec.link_of(f.name) for f in spec.act} - {""}
    assert links and links <= set(spec.tree)
    m = cls().nominal
    joints = {mujoco.mj_id2name(m, mujoco.mjtObj.mjOBJ_JOINT, j): j for j in range(m.njnt)}
    if not set(spec.tree) <= set(joints):
        return  # legs or wheels, not joints: nothing but the base carries them
    carried = {}
    for link in spec.tree:
        above = [n for n, j in joints.items() if n in spec.tree and j < joints[link]]
        body, found = m.jnt_bodyid[joints[link]], ""
        while body and not found:
            found = next((n for n in above[::-1] if m.jnt_bodyid[joints[n]] == body), "")
            body = m.body_parentid[body]
        carried[link] = found
    assert carried == dict(spec.tree)


def test_a_spec_without_links_is_refused() -> None:
    spec = RobotSpec("blob", 0.1, (Field("v", "m/s"),), (Field("f", "N", -1, 1),))
    with pytest.raises(SpecError, match="blob.*links"):
        GraphDynamics(spec)


@pytest.mark.parametrize("tree", [{"a": "b", "b": ""}, {"": ""}, {"a": "nowhere"}])
def test_a_tree_that_is_none_is_refused(tree: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="named before it"):
        RobotSpec("blob", 0.1, (Field("v", "m/s"),), (Field("f", "N", -1, 1),), tree=tree)


def test_a_field_belongs_to_the_longest_link_in_its_name() -> None:
    spec = RobotSpec(
        "dog",
        0.1,
        (Field("FL_knee_rate", "rad/s"), Field("FL_knees", "1"), Field("roll", "rad")),
        (Field("torque_FL", "1", -1, 1),),
        tree={"FL": "", "FL_knee": "FL"},
    )
    names = ("FL_knee_rate", "FL_knees", "roll", "torque_FL")
    assert [spec.link_of(n) for n in names] == ["FL_knee", "FL", "", "FL"]
    assert RobotSpec.from_json(spec.to_json()) == spec
