"""Observations as messages: by name, whatever the order, and back; without ROS."""

from __future__ import annotations

import math
from types import SimpleNamespace as Bag

import numpy as np
import pytest

from mbmrl import registry
from mbmrl.spec import Field, RobotSpec, SpecError
from robots.frames import BODY, POSE, roll_pitch_yaw, rotation
from robots.ros2 import output
from robots.sim import SimRobot
from robots.topics import Layout, parse

SIMULATED = [
    name for name in registry.names("robots") if issubclass(registry.load("robots", name), SimRobot)
]
LEG = RobotSpec(
    name="leg",
    dt=0.1,
    obs=(
        Field("knee", "rad"),
        Field("knee_rate", "rad/s"),
        Field("roll", "rad", -math.pi, math.pi),
        Field("yaw_rate", "rad/s"),
        Field("vx", "m/s"),
        Field("last", "1"),
    ),
    act=(Field("torque", "1", -1, 1), Field("push", "1", -1, 1)),
    known={"last": {"torque": 1.0}},
)


def messages() -> dict[str, Bag]:
    """Of the shape of JointState, Imu and Odometry, with nothing in them."""

    def vector() -> Bag:
        return Bag(x=0.0, y=0.0, z=0.0)

    def quaternion() -> Bag:
        return Bag(w=0.0, x=0.0, y=0.0, z=0.0)

    return {
        "joint_states": Bag(name=[], position=[], velocity=[], effort=[]),
        "imu": Bag(
            orientation=quaternion(),
            angular_velocity=vector(),
            orientation_covariance=[0.0] * 9,
            angular_velocity_covariance=[0.0] * 9,
        ),
        "odom": Bag(
            pose=Bag(pose=Bag(position=vector(), orientation=quaternion())),
            twist=Bag(twist=Bag(linear=vector(), angular=vector())),
        ),
    }


@pytest.mark.parametrize("name", SIMULATED)
def test_every_robot_travels_through_messages_unharmed(name: str) -> None:
    """Whatever its fields are, without a word about where they go."""
    robot = registry.load("robots", name)(seed=3)
    robot.reset()
    rng = np.random.default_rng(0)
    layout = Layout(robot.spec)
    for _ in range(20):
        robot.write(rng.uniform(robot.spec.act_low, robot.spec.act_high))
        sent, there = robot.read(), messages()
        layout.write(sent, there)
        np.testing.assert_allclose(layout.read(there), sent, atol=1e-9)
        assert not layout.missing(there)


def test_names_decide_and_not_the_order() -> None:
    there = messages()
    there["joint_states"].name = ["hip", "knee"]
    there["joint_states"].position, there["joint_states"].velocity = [1.0, 2.0], [3.0, 4.0]
    layout = Layout(LEG)
    assert layout.read(there)[:2].tolist() == [2.0, 4.0]
    for part in ("name", "position", "velocity"):
        getattr(there["joint_states"], part).reverse()
    assert layout.read(there)[:2].tolist() == [2.0, 4.0]


def test_what_a_message_does_not_tell_is_no_number() -> None:
    there, layout = messages(), Layout(LEG)
    there["joint_states"].name, there["joint_states"].position = ["knee"], [1.0]
    obs = layout.read(there)
    assert obs[0] == 1.0
    assert np.isnan(obs[[1, 2, 5]]).all()  # no velocity, a quaternion of zeros, nobody's field
    there["joint_states"].position = [1.0, 2.0]
    assert np.isnan(layout.read(there)[0])
    del there["imu"]
    assert np.isnan(layout.read(there)[3])


def test_an_imu_may_say_that_it_measures_no_such_thing() -> None:
    there, layout = messages(), Layout(LEG)
    there["imu"].orientation.w = 1.0
    assert layout.read(there)[[2, 3]].tolist() == [0.0, 0.0]
    there["imu"].orientation_covariance[0] = -1.0
    assert np.isnan(layout.read(there)[2]) and layout.read(there)[3] == 0.0
    there["imu"].angular_velocity_covariance[0] = -1.0
    assert np.isnan(layout.read(there)[3])


def test_a_missing_joint_is_named_with_what_to_do() -> None:
    there = messages()
    there["joint_states"].name = ["hip"]
    first, second, _ = Layout(LEG).missing(there)
    assert "'knee'" in first and "it names hip" in first and "'knee=PLACE'" in first
    assert "velocity" in second


def test_a_field_is_looked_for_where_it_is_said_to_be() -> None:
    there = messages()
    there["joint_states"].name, there["joint_states"].position = ["left_knee"], [0.5]
    there["odom"].twist.twist.angular.z = 0.25
    there["imu"].orientation.w = 1.0
    layout = Layout(LEG, ["knee = position/left_knee", "yaw_rate=odom/yaw_rate", "last=known"])
    obs = layout.read(there)
    assert obs[0] == 0.5 and obs[3] == 0.25
    assert layout.topics == ["joint_states", "imu", "odom"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("knee", "FIELD=PLACE"),
        ("ankle=position/x", "no obs field"),
        ("knee=position/", "choose from"),
        ("knee=odom/w", "choose from"),
        ("knee=known/much", "choose from"),
        ("knee=known", "cannot be known"),
    ],
)
def test_what_no_message_holds_is_refused(said: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Layout(LEG, [said])


def test_sources_are_written_as_they_are_read() -> None:
    for text in ("position/knee", "effort/a/b", "imu/turn_y", "odom/vx", "known/0.5"):
        assert str(parse(text)) == text


@pytest.mark.parametrize("angle", [-3.0, -1.0, 0.0, 2.0, 3.0])
def test_a_turn_is_whole_where_pitch_folds(angle: float) -> None:
    there = messages()
    there["imu"].orientation = Bag(w=math.cos(angle / 2), x=0.0, y=math.sin(angle / 2), z=0.0)
    spec = RobotSpec("wheel", 0.1, (Field("pitch", "rad"),), (Field("u", "1", -1, 1),))
    assert Layout(spec).read(there)[0] == pytest.approx(angle)
    folded = math.asin(math.sin(angle))
    assert Layout(spec, ["pitch=imu/pitch"]).read(there)[0] == pytest.approx(folded)


def test_orientations_are_those_of_frames() -> None:
    rng = np.random.default_rng(0)
    layout = Layout(RobotSpec("body", 0.1, BODY, (Field("push", "N", -1, 1),), pose=POSE))
    for _ in range(50):
        q = rng.normal(size=4)
        q /= np.linalg.norm(q)
        there = messages()
        for o in (there["imu"].orientation, there["odom"].pose.pose.orientation):
            o.w, o.x, o.y, o.z = (float(1.3 * v) for v in q)  # nobody promised a unit quaternion
        found = dict(zip([f.name for f in BODY], layout.read(there), strict=True))
        expected = roll_pitch_yaw(rotation(q))
        np.testing.assert_allclose([found[a] for a in ("roll", "pitch", "yaw")], expected)


def test_commands_follow_the_order_of_the_joints() -> None:
    scale, offset = np.array([2.0, 10.0]), np.array([0.5, 0.0])
    out = output(LEG, ["b", "a"], ["torque=a", "push=b"], scale, offset, topic="/c")
    act = np.array([0.25, -1.0])
    np.testing.assert_allclose(out.command(act), [2 * -1.0 + 0.5, 10 * 0.25])
    np.testing.assert_allclose(out.action(out.command(act)), act)


@pytest.mark.parametrize(
    ("joints", "actions", "message"),
    [
        (["a", "b"], [], "add 'ACTION=JOINT'"),
        (["torque", "push", "c"], [], "has 2 actions"),
        (["torque"], [], "'push', but"),
        (["a"], ["torque=a", "push=a"], "each for one joint"),
        ([], ["pull=a"], "ACTION of torque, push"),
    ],
)
def test_joints_that_do_not_fit_are_refused(
    joints: list[str], actions: list[str], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        output(LEG, joints, actions, np.ones(2), np.zeros(2), topic="/c")
