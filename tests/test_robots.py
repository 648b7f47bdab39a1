"""What every registered robot keeps to, and what each one is."""

from __future__ import annotations

import copy
import importlib
import math

import mujoco
import numpy as np
import pytest

from mbmrl import registry
from mbmrl.conditions import parse
from mbmrl.spec import RobotSpec
from robots import pier
from robots.base import Robot
from robots.cheetah import Cheetah
from robots.fish import DRIVEN, JOINTS, Fish
from robots.perturbations.damaged_leg import mirror_leg
from robots.rover import Rover
from robots.sim import Diverged, SimRobot
from robots.swimmer import Swimmer

CLASSES = {name: registry.load("robots", name) for name in registry.names("robots")}
ROBOTS = list(CLASSES)
SIMULATED = [name for name, cls in CLASSES.items() if issubclass(cls, SimRobot)]
MIRRORED = [name for name in SIMULATED if CLASSES[name].spec.mirror]


def make(name: str, seed: int = 0) -> SimRobot:
    robot = CLASSES[name](seed=seed)
    robot.reset()
    return robot


def random_acts(spec: RobotSpec, ticks: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(spec.act_low, spec.act_high, (ticks, spec.num_act))


def drive(robot: SimRobot, acts: np.ndarray) -> np.ndarray:
    seen = []
    for act in acts:
        robot.write(act)
        seen.append(robot.read())
    return np.array(seen)


# --- the contract -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROBOTS)
def test_spec_is_readable_on_the_class(name: str) -> None:
    cls = CLASSES[name]
    assert issubclass(cls, Robot)
    assert cls.spec.name == cls.name == name
    assert RobotSpec.from_json(cls.spec.to_json()) == cls.spec


@pytest.mark.parametrize("name", SIMULATED)
def test_reads_finite_numbers_as_many_as_the_spec_names(name: str) -> None:
    robot = make(name)
    for obs in (robot.read(), drive(robot, random_acts(robot.spec, 5))[-1]):
        assert obs.shape == (robot.spec.num_obs,)
        assert np.isfinite(obs).all()


@pytest.mark.parametrize("name", SIMULATED)
def test_obs_stay_within_the_limits_of_the_spec(name: str) -> None:
    robot = make(name)
    seen = drive(robot, random_acts(robot.spec, 40))
    assert (seen >= [f.low for f in robot.spec.obs]).all()
    assert (seen <= [f.high for f in robot.spec.obs]).all()


@pytest.mark.parametrize("name", SIMULATED)
def test_write_returns_the_clipped_action_and_applies_no_other(name: str) -> None:
    wild, tame = make(name), make(name)
    far, near = 3.0 * wild.spec.act_high, 1.0 * wild.spec.act_high
    for _ in range(3):
        np.testing.assert_array_equal(wild.write(far), near)
        np.testing.assert_array_equal(tame.write(near), near)
    np.testing.assert_array_equal(wild.read(), tame.read())


@pytest.mark.parametrize("name", SIMULATED)
@pytest.mark.parametrize("bad", ["nan", "inf", "short", "long"])
def test_an_action_that_is_none_is_refused_and_moves_nothing(name: str, bad: str) -> None:
    robot = make(name)
    act = {
        "nan": np.r_[np.nan, robot.spec.rest[1:]],
        "inf": np.r_[np.inf, robot.spec.rest[1:]],
        "short": robot.spec.rest[1:],
        "long": np.r_[robot.spec.rest, 0.0],
    }[bad]
    before = robot.read()
    with pytest.raises(ValueError, match=name):
        robot.write(act)
    np.testing.assert_array_equal(robot.read(), before)


@pytest.mark.parametrize("name", SIMULATED)
def test_stops_as_often_as_asked_and_connects_again(name: str) -> None:
    robot = make(name)
    robot.stop()
    robot.stop()
    robot.connect()
    assert np.isfinite(robot.read()).all()


@pytest.mark.parametrize("name", SIMULATED)
def test_stops_when_its_user_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stops = []
    monkeypatch.setattr(SimRobot, "stop", lambda self: stops.append(self))
    with pytest.raises(KeyError), CLASSES[name]() as robot:
        assert np.isfinite(robot.read()).all()
        raise KeyError
    assert stops == [robot]


@pytest.mark.parametrize("name", SIMULATED)
def test_same_seed_same_trajectory_to_the_last_bit(name: str) -> None:
    acts = random_acts(CLASSES[name].spec, 10)
    first, second = (drive(make(name, seed=3), acts) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, drive(make(name, seed=4), acts))


@pytest.mark.parametrize("name", SIMULATED)
def test_known_fields_are_what_the_spec_says(name: str) -> None:
    robot = make(name)
    names = [f.name for f in (*robot.spec.obs, *robot.spec.act)]
    for act in random_acts(robot.spec, 10):
        before = dict(zip(names, [*robot.read(), *robot.write(act)], strict=True))
        after = dict(zip(names, robot.read(), strict=False))
        for field, row in robot.spec.known.items():
            expected = sum(c * before[source] for source, c in row.items())
            assert after[field] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", SIMULATED)
def test_starts_at_rest_and_upright(name: str) -> None:
    for seed in range(5):
        robot = make(name, seed)
        seen = dict(zip((f.name for f in robot.spec.obs), robot.read(), strict=True))
        assert all(abs(seen.get(tilt, 0.0)) < 0.1 for tilt in ("roll", "pitch"))
        assert abs(seen["vx"]) < 0.1
        assert robot.time == 0.0


# --- the simulator as a model -----------------------------------------------------------------


@pytest.mark.parametrize("name", SIMULATED)
def test_true_rollouts_are_what_stepping_shows(name: str) -> None:
    robot = make(name)
    drive(robot, random_acts(robot.spec, 5))
    plans = np.stack([random_acts(robot.spec, 6, seed) for seed in (1, 2)])
    before = robot.read()
    futures = robot.true_rollout(plans)
    np.testing.assert_array_equal(robot.read(), before)
    assert not np.allclose(futures[0], futures[1])
    np.testing.assert_allclose(futures[1], drive(robot, plans[1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("speed", [np.nan, np.inf, 1e9])
@pytest.mark.parametrize("name", SIMULATED)
def test_a_simulation_that_blew_up_says_so(name: str, speed: float) -> None:
    """And no rollout takes it for a robot at its start: its cost is no number, or no small one."""
    robot = make(name)
    robot.data.qvel[0] = speed
    futures = robot.true_rollout(np.zeros((1, 2, robot.spec.num_act)))
    assert not np.abs(futures).max() < 1e3
    with pytest.raises(Diverged, match=f"{name}: the simulation diverged"):
        robot.write(np.zeros(robot.spec.num_act))


@pytest.mark.parametrize("name", SIMULATED)
def test_observes_batches_as_it_observes_one(name: str) -> None:
    robot = make(name)
    rng = np.random.default_rng(0)
    qpos = robot.data.qpos + 0.3 * rng.normal(size=(4, 3, robot.model.nq))
    qvel = rng.normal(size=(4, 3, robot.model.nv))
    carry = rng.normal(size=(4, 3, robot.carry.size))
    batched = robot.observe(qpos, qvel, carry)
    np.testing.assert_allclose(
        batched[2, 1], robot.observe(qpos[2, 1], qvel[2, 1], carry[2, 1]), atol=1e-12
    )


# --- left and right ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROBOTS)
def test_mirroring_twice_changes_nothing(name: str) -> None:
    spec = CLASSES[name].spec
    obs_order, obs_sign, act_order, act_sign = spec.mirror_maps()
    for order, sign in ((obs_order, obs_sign), (act_order, act_sign)):
        x = np.random.default_rng(0).normal(size=order.size)
        np.testing.assert_array_equal((x[order] * sign)[order] * sign, x)


def mirrored_state(robot: SimRobot) -> tuple[np.ndarray, np.ndarray]:
    """Reflect y of a robot, free or in the plane of the floor, whose other joints are hinges.

    A joint of no leg is taken to lie in the middle.
    """
    model, qpos, qvel = robot.model, robot.data.qpos.copy(), robot.data.qvel.copy()
    straight = mujoco.MjData(model)
    mujoco.mj_kinematics(model, straight)
    if model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE:
        qpos[:7] *= [1, -1, 1, 1, -1, 1, -1]
        qvel[:6] *= [1, -1, 1, -1, 1, -1]
        roots = 1
    else:
        qpos[:3] *= [1, -1, -1]
        qvel[:3] *= [1, -1, -1]
        roots = 3
    images = {model.joint(j).name: model.joint(j).name for j in range(roots, model.njnt)}
    for leg, limb in robot.legs.items():
        other = robot.legs[mirror_leg(robot, leg)]
        images |= dict(zip(limb.joints, other.joints, strict=True))
    for a, b in images.items():
        here, there = model.joint(a), model.joint(b)
        sign = np.sign(straight.joint(a).xaxis * [-1, 1, -1] @ straight.joint(b).xaxis)
        qpos[there.qposadr] = sign * robot.data.qpos[here.qposadr]
        qvel[there.dofadr] = sign * robot.data.qvel[here.dofadr]
    return qpos, qvel


def by_leg(carry: np.ndarray) -> np.ndarray:
    """Left and right swapped of so many numbers a leg: FL FR RL RR."""
    return carry.reshape(4, -1)[[1, 0, 3, 2]].ravel()


def half_a_turn_on(phase: float) -> float:
    return (phase + math.pi) % (2 * math.pi)


MIRRORED_CARRY = {
    "hexapod": lambda carry: np.r_[half_a_turn_on(carry[0]), carry[4:7], carry[1:4]],
    "ant": by_leg,
    "ant_torque": by_leg,
    "quadruped": by_leg,
    "quadruped_gait": lambda c: np.r_[half_a_turn_on(c[0]), by_leg(c[1:5]), -c[5]],
}
"""What a robot's command generator remembers, seen in the mirror."""


@pytest.mark.parametrize("name", MIRRORED)
def test_the_dynamics_have_the_symmetry_that_the_spec_claims(name: str) -> None:
    robot, image = make(name), make(name)
    drive(robot, random_acts(robot.spec, 7))
    image.data.qpos[:], image.data.qvel[:] = mirrored_state(robot)
    if robot.carry.size and name not in MIRRORED_CARRY:
        pytest.skip("what its command generator remembers is not known in the mirror")
    image.carry = MIRRORED_CARRY.get(name, np.copy)(robot.carry)
    obs_order, obs_sign, act_order, act_sign = robot.spec.mirror_maps()
    np.testing.assert_allclose(image.read(), robot.read()[obs_order] * obs_sign, atol=1e-12)
    acts = random_acts(robot.spec, 5, seed=1)
    seen, seen_in_mirror = drive(robot, acts), drive(image, acts[:, act_order] * act_sign)
    assert np.ptp(seen[:, robot.spec.index("yaw")]) > 0.02  # it did turn
    np.testing.assert_allclose(seen_in_mirror, seen[:, obs_order] * obs_sign, atol=1e-9)


# --- each robot -------------------------------------------------------------------------------


def test_hexapod_walks_forward_on_equal_strides_and_turns_on_unequal_ones() -> None:
    robot = make("hexapod")
    straight = drive(robot, np.full((30, 6), 0.6))[-1]
    robot.reset()
    left = drive(robot, np.tile([0.2, 0.2, 0.2, 0.8, 0.8, 0.8], (30, 1)))[-1]
    x, yaw = robot.spec.index(["x", "yaw"])
    assert straight[x] > 0.3
    assert abs(straight[yaw]) < 0.2
    assert left[yaw] > 0.5


def test_hexapod_measures_its_velocity_in_its_own_frame() -> None:
    robot = make("hexapod")
    turned = robot.data.qpos.copy()
    turned[3:7] = [math.sqrt(0.5), 0, 0, math.sqrt(0.5)]  # a quarter turn to the left
    velocity = np.zeros(robot.model.nv)
    velocity[1] = 1.0  # along the world's y: forward
    obs = robot.observe(turned, velocity, robot.carry)
    np.testing.assert_allclose(
        obs[robot.spec.index(["yaw", "vx", "vy"])], [math.pi / 2, 1, 0], atol=1e-12
    )


def test_cheetah_measures_the_velocity_of_its_centre_of_mass() -> None:
    robot, rng = make("cheetah"), np.random.default_rng(0)
    data = mujoco.MjData(robot.nominal)
    for _ in range(10):
        data.qpos[:], data.qvel[:] = rng.normal(size=(2, robot.nominal.nq))
        mujoco.mj_forward(robot.nominal, data)
        mujoco.mj_subtreeVel(robot.nominal, data)
        obs = robot.observe(data.qpos, data.qvel, robot.carry)
        vx, _, vz = data.subtree_linvel[robot.nominal.body("torso").id]
        np.testing.assert_allclose(obs[robot.spec.index(["vx", "vz"])], [vx, vz], atol=1e-12)


def test_cheetah_is_the_one_of_the_suite() -> None:
    model = Cheetah.build()
    assert model.body_mass.sum() == pytest.approx(14.0)
    assert model.opt.timestep == 0.01
    assert [model.actuator(i).name for i in range(6)] == [
        f.name.removeprefix("torque_") for f in Cheetah.spec.act
    ]
    np.testing.assert_array_equal(model.actuator_gear[:, 0], [120, 90, 60, 90, 60, 30])


def test_cheetah_counts_its_turns() -> None:
    robot = make("cheetah")
    over = robot.data.qpos.copy()
    over[2] += 2 * math.pi
    pitch = robot.spec.index("pitch")
    before, after = (
        robot.observe(q, robot.data.qvel, robot.carry) for q in (robot.data.qpos, over)
    )
    assert (after - before)[pitch] == pytest.approx(2 * math.pi)
    np.testing.assert_allclose(np.delete(after, pitch), np.delete(before, pitch), atol=1e-12)


def as_in_the_suite(module: str, *args: int) -> mujoco.MjModel:
    """The suite's own model of a robot, compiled by the suite."""
    suite = importlib.import_module(f"dm_control.suite.{module}")
    return suite.Physics.from_xml_string(*suite.get_model_and_assets(*args)).model.ptr


def joint_accelerations(
    model: mujoco.MjModel, qpos: dict[str, float], ctrl: dict[str, float]
) -> dict[str, float]:
    """Of the hinges, at joint angles, at rest, under commands."""
    data = mujoco.MjData(model)
    for joint, angle in qpos.items():
        data.joint(joint).qpos = angle
    for actuator, command in ctrl.items():
        data.actuator(actuator).ctrl = command
    mujoco.mj_forward(model, data)
    return {joint: float(data.joint(joint).qacc[0]) for joint in qpos}


def test_swimmer_is_the_one_of_the_suite() -> None:
    rng = np.random.default_rng(0)
    ours, suites = Swimmer.build(), as_in_the_suite("swimmer", 6)
    for _ in range(5):
        angles = {f"joint_{i}": rng.uniform(-1, 1) for i in range(5)}
        torques = rng.uniform(-1, 1, 5)
        of_ours, of_suites = (
            joint_accelerations(model, angles, {f"{name}_{i}": u for i, u in enumerate(torques)})
            for model, name in ((ours, "torque"), (suites, "motor"))
        )
        assert of_ours == pytest.approx(of_suites, rel=1e-6)
    np.testing.assert_allclose(ours.jnt_range[3:], suites.jnt_range[3:], atol=1e-12)
    assert ours.opt.density == suites.opt.density == 3000


def test_fish_flaps_its_fins_as_the_suites_does() -> None:
    rng = np.random.default_rng(0)
    ours, suites = Fish.build(), as_in_the_suite("fish")
    same = ("tail", "tail_twist", "finleft_pitch", "finright_pitch")
    for _ in range(5):
        angles = dict(zip(JOINTS, rng.uniform(-1, 1, len(JOINTS)), strict=True))
        angles["finleft_roll"] = -angles["finright_roll"]
        ctrl = dict(zip(same, rng.uniform(-1, 1, 4), strict=True))
        flap = rng.uniform(-1, 1)
        of_ours, of_suites = (
            joint_accelerations(model, angles, ctrl | fins)
            for model, fins in (
                (ours, {"finleft_roll": -flap, "finright_roll": flap}),
                (suites, {"fins_flap": flap}),
            )
        )
        assert of_ours == pytest.approx(of_suites, rel=1e-6)


def test_swimmer_is_where_its_centre_of_mass_is() -> None:
    robot, rng = make("swimmer"), np.random.default_rng(0)
    data = mujoco.MjData(robot.nominal)
    for _ in range(10):
        data.qpos[:], data.qvel[:] = rng.normal(size=(2, robot.nominal.nq))
        mujoco.mj_forward(robot.nominal, data)
        mujoco.mj_subtreeVel(robot.nominal, data)
        x, y, yaw, vx, vy = robot.observe(data.qpos, data.qvel, robot.carry)[:5]
        np.testing.assert_allclose([x, y], data.subtree_com[1, :2], atol=1e-12)
        along = [math.cos(yaw) * vx - math.sin(yaw) * vy, math.sin(yaw) * vx + math.cos(yaw) * vy]
        np.testing.assert_allclose(along, data.subtree_linvel[1, :2], atol=1e-12)


@pytest.mark.parametrize("name", ["swimmer", "fish", "fish_torque"])
def test_who_swims_faces_along_its_x(name: str) -> None:
    model = CLASSES[name].build()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    front, back = ("nose", "inertial") if name == "swimmer" else ("mouth", "tail2")
    ahead = data.geom(front).xpos - data.geom(back).xpos
    np.testing.assert_allclose(ahead / np.linalg.norm(ahead), [1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["fish", "fish_torque"])
def test_fish_at_rest_stays_in_the_water_where_it_is(name: str) -> None:
    robot = make(name)
    robot.data.qpos[7:] = 0.0
    before = robot.read()
    np.testing.assert_allclose(drive(robot, np.zeros((50, 6)))[-1], before, atol=1e-6)


def test_fish_torque_is_the_fish_with_motors_for_servos() -> None:
    """As strong as a servo that is 1 rad from its target."""
    rng = np.random.default_rng(0)
    servos, motors = Fish.build(), CLASSES["fish_torque"].build()
    np.testing.assert_array_equal(servos.body_mass, motors.body_mass)
    names = [servos.actuator(i).name for i in range(servos.nu)]
    angles = dict(zip(JOINTS, rng.uniform(-0.4, 0.4, len(JOINTS)), strict=True))
    share = rng.uniform(-0.5, 0.5, len(DRIVEN))
    targets = share + [angles[joint] for joint in DRIVEN]
    told = (dict(zip(names, ctrl, strict=True)) for ctrl in (targets, share))
    of_servos, of_motors = (
        joint_accelerations(model, angles, ctrl)
        for model, ctrl in zip((servos, motors), told, strict=True)
    )
    assert of_motors == pytest.approx(of_servos, rel=1e-6)


@pytest.mark.parametrize("way", [-1.0, 1.0])
@pytest.mark.parametrize("driven", range(len(DRIVEN)))
def test_the_stops_of_a_fish_hold_against_its_motors(driven: int, way: float) -> None:
    robot = make("fish_torque")
    act = way * np.eye(len(DRIVEN))[driven]
    angle = drive(robot, np.tile(act, (50, 1)))[-1, robot.spec.index(DRIVEN[driven])]
    _, stop = robot.nominal.joint(DRIVEN[driven]).range
    assert stop < way * angle < stop + 0.2


def test_rover_weighs_what_the_real_one_weighs() -> None:
    assert Rover.build().body_mass.sum() == pytest.approx(16.523 + 4 * 0.477)


def test_rover_drives_straight_on_rolling_wheels_and_slips_in_a_turn() -> None:
    robot = make("rover")
    speed = 10.0  # [rad/s]
    rolling = speed * 0.098
    vx, yaw_rate = robot.spec.index(["vx", "yaw_rate"])
    straight = drive(robot, np.full((30, 4), speed))[-1]
    assert straight[vx] == pytest.approx(rolling, rel=0.02)
    robot.reset()
    turning = drive(robot, np.tile(speed * np.array([-1, 1, -1, 1]), (30, 1)))[10:]
    without_slip = 2 * rolling / 0.37559
    assert 0.2 < turning[:, yaw_rate].mean() / without_slip < 0.8


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_rover_stops_as_far_as_coulomb_says(scale: float) -> None:
    """Its wheels seize at full speed: v² / (2 µ g)."""
    robot = Rover([parse(f"friction:scale={scale}")])
    robot.reset()
    robot.data.qvel[0] = speed = 1.5
    start = robot.data.qpos[:2].copy()
    robot.model.dof_frictionloss[6:] = 1e6
    mujoco.mj_step(robot.model, robot.data, 1000)
    slid = np.linalg.norm(robot.data.qpos[:2] - start)
    assert slid == pytest.approx(speed**2 / (2 * 0.7 * scale * 9.81), rel=0.05)


def test_quadruped_weighs_what_its_parts_do() -> None:
    model = CLASSES["quadruped"].build()
    assert model.body_mass.sum() == pytest.approx(6.0 + 4 * (0.595 + 0.888 + 0.151 + 0.06))


@pytest.mark.parametrize("name", ["ant", "quadruped"])
def test_stands_on_its_feet_when_told_nothing(name: str) -> None:
    robot = make(name)
    before, (z,) = robot.read(), robot.spec.index("z")
    seen = drive(robot, np.zeros((40, robot.spec.num_act)))
    np.testing.assert_allclose(seen[:, z], before[z], atol=0.03)
    assert (np.abs(seen[-1, robot.spec.index(["vx", "vy", "vz"])]) < 0.01).all()
    touching = {sorted(robot.model.geom_bodyid[c.geom])[1] for c in robot.data.contact}
    assert touching == {robot.model.geom(f"{leg}_foot").bodyid[0] for leg in robot.legs}


@pytest.mark.parametrize("name", ["ant", "quadruped"])
def test_a_joint_in_the_air_goes_where_it_is_told(name: str) -> None:
    robot = make(name)
    joints = [f.name.removesuffix("_offset") for f in robot.spec.act]
    robot.model = copy.copy(robot.model)
    robot.model.opt.gravity[:] = 0.0
    robot.data.qpos[2] += 1.0
    for act in 0.5 * np.eye(len(joints)):
        seen = drive(robot, np.tile(act, (30, 1)))[-1]
        moved = seen[robot.spec.index(joints)] - robot.stance
        np.testing.assert_allclose(moved, robot.reach * act, atol=0.02)


def test_quadruped_trots_forward_and_turns_when_told() -> None:
    robot = make("quadruped_gait")
    straight = drive(robot, np.tile([0.6, 0.6, 0.6, 0.6, 0.0], (30, 1)))[-1]
    robot.reset()
    left = drive(robot, np.tile([0.3, 0.3, 0.3, 0.3, 0.5], (30, 1)))[-1]
    x, yaw, z = robot.spec.index(["x", "yaw", "z"])
    assert straight[x] > 0.5
    assert abs(straight[yaw]) < 0.3
    assert left[yaw] > 0.5
    assert min(straight[z], left[z]) > 0.22


def test_ant_torque_is_the_ant_with_motors_for_servos() -> None:
    servos, motors = CLASSES["ant"].build(), CLASSES["ant_torque"].build()
    np.testing.assert_array_equal(servos.body_mass, motors.body_mass)
    np.testing.assert_array_equal(servos.actuator_forcerange[:, 1], motors.actuator_gear[:, 0])
    assert not motors.actuator_biasprm.any()


def test_a_pier_is_afloat_and_sinks_as_archimedes_says() -> None:
    """A load displaces its own mass of water; less gravity changes nothing, as both weigh less."""
    model = CLASSES["pier"].build()
    data, load = mujoco.MjData(model), 10.0
    data.qpos[1] = 5.0  # the robot is far above
    model.dof_damping[9:] = 200.0
    for gravity in (9.81, 3.0):
        model.opt.gravity[2] = -gravity
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(data.qacc[9:], 0, atol=1e-9)
    model.opt.gravity[2] = -9.81
    block = model.body("block3").id
    for _ in range(3000):
        data.qpos[1], data.qvel[:9] = 5.0, 0.0
        data.xfrc_applied[block, 2] = -load * 9.81
        mujoco.mj_step(model, data)
    heave = model.joint("heave3").qposadr[0]
    immersed = load / (pier.DENSITY * pier.LENGTH * pier.WIDTH)
    assert data.qpos[heave] == pytest.approx(-immersed, rel=1e-3)
    assert immersed < pier.HEIGHT * (1 - pier.WOOD / pier.DENSITY)  # not awash


def test_a_pier_is_long_enough_and_not_what_the_cheetah_sees() -> None:
    robot, cheetah = make("pier"), make("cheetah")
    assert pier.BLOCKS * (pier.LENGTH + pier.GAP) - pier.BEHIND > 15 * 2.5
    robot.data.qpos[: cheetah.model.nq] = cheetah.data.qpos
    robot.data.qvel[: cheetah.model.nv] = cheetah.data.qvel
    robot.data.qpos[cheetah.model.nq :] = 0.1
    np.testing.assert_allclose(robot.read(), cheetah.read(), atol=1e-12)


@pytest.mark.parametrize("name", SIMULATED)
def test_can_be_filmed_at_640_by_480(name: str) -> None:
    size = CLASSES[name].build().vis.global_
    assert size.offwidth >= 640
    assert size.offheight >= 480
