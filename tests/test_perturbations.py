"""What every registered perturbation keeps to on every robot, and the physics of each one."""

from __future__ import annotations

import dataclasses
import math

import mujoco
import numpy as np
import pytest

from mbmrl import conditions, registry
from mbmrl.conditions import parse, starting, text
from robots.perturbations.base import Perturbation, PerturbationError, subtree
from robots.perturbations.damaged_leg import DamagedLeg
from robots.perturbations.payload import Payload
from robots.sim import SimRobot

CLASSES = {name: registry.load("robots", name) for name in registry.names("robots")}
SIMULATED = [name for name, cls in CLASSES.items() if issubclass(cls, SimRobot)]
KINDS = {name: conditions.kinds_for(CLASSES[name]()) for name in SIMULATED}
PAIRS = [(robot, kind.name) for robot, kinds in KINDS.items() for kind in kinds]
MAGNITUDES = ("scale", "mass", "gravcomp", "angle")
GRAVITY = 9.81  # [m/s²]


def make(name: str, *perturb: str | Perturbation, seed: int = 0) -> SimRobot:
    parsed = [parse(p) if isinstance(p, str) else p for p in perturb]
    robot = CLASSES[name](parsed, seed=seed)
    robot.reset()
    return robot


def draw(robot: str, kind: str, split: str, count: int) -> list[Perturbation]:
    rng = np.random.default_rng(0)
    cls, on = next(k for k in KINDS[robot] if k.name == kind), CLASSES[robot]()
    return [cls.sample(on, rng, split) for _ in range(count)]


def fingerprint(model: mujoco.MjModel) -> bytes:
    """Every number of a model."""
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()


def at_state(robot: SimRobot, model: mujoco.MjModel, ctrl: np.ndarray) -> mujoco.MjData:
    """Joint torques and accelerations of a model in the robot's state."""
    data = mujoco.MjData(robot.nominal)
    data.qpos[:], data.qvel[:], data.ctrl[:] = robot.data.qpos, robot.data.qvel, ctrl
    mujoco.mj_forward(model, data)
    return data


def joints(robot: SimRobot) -> list[str]:
    return [joint for leg in robot.legs.values() for joint in leg.joints]


def floor_contacts(robot: SimRobot, leg: str) -> list[float]:
    """Friction of each contact between a leg and the world."""
    of_geom, limb = robot.model.geom_bodyid, subtree(robot.model, robot.legs[leg].body)
    pairs = ((sorted(of_geom[c.geom]), c.friction[0]) for c in robot.data.contact)
    return [friction for (low, high), friction in pairs if low == 0 and high in limb]


# --- the contract -----------------------------------------------------------------------------


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_both_splits_draw_what_the_robot_allows(robot: str, kind: str) -> None:
    on = make(robot)
    for split in ("train", "test"):
        for perturbation in draw(robot, kind, split, 50):
            perturbation.check(on)
            perturbation.mirrored(on).check(on)
            assert perturbation.mirrored(on).mirrored(on) == perturbation


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_train_and_test_are_disjoint(robot: str, kind: str) -> None:
    train, test = (draw(robot, kind, split, 300) for split in ("train", "test"))
    of_place = [
        {(p.leg if kind == "damaged_leg" else p.joint, p.mode) for p in drawn}
        for drawn in (train, test)
        if kind.startswith("damaged")
    ]
    if of_place:
        assert not of_place[0] & of_place[1]
        on = make(robot)
        assert all(p.held_out(on) for p in test)
        assert not any(p.held_out(on) for p in train)
    names = [f.name for f in dataclasses.fields(train[0]) if f.name in MAGNITUDES]
    assert names, f"which field of {kind} tells train from test? name it in MAGNITUDES"
    for name in names:
        trained, held_out = ([getattr(p, name) for p in drawn] for drawn in (train, test))
        low, high = min(held_out), max(held_out)
        assert not any(low <= x <= high for x in trained)
        assert min(trained) < low and high < max(trained)  # milder and harsher ones


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_acts_from_onset_until_the_end_and_at_no_other_time(robot: str, kind: str) -> None:
    perturbation = dataclasses.replace(draw(robot, kind, "test", 1)[0], onset=0.2, until=0.4)
    on = make(robot, perturbation)
    nominal = fingerprint(type(on).build())
    while on.time < 0.6:
        acting = 0.2 - 1e-6 <= on.time < 0.4 - 1e-6
        assert on.active == ((perturbation,) if acting else ())
        assert (fingerprint(on.model) != nominal) == acting
        on.write(on.spec.rest)
    assert fingerprint(on.nominal) == nominal


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_never_accumulates(robot: str, kind: str) -> None:
    on = make(robot, *draw(robot, kind, "train", 1))
    once = fingerprint(on.model)
    on.write(on.spec.rest)
    on.reset()
    assert fingerprint(on.model) == once


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_text_and_back(robot: str, kind: str) -> None:
    for perturbation in draw(robot, kind, "train", 20):
        timed = dataclasses.replace(perturbation, onset=1.5, until=7.25)
        back = parse(text([timed], timing=True))
        if getattr(timed, "mode", "weak") != "weak":  # whose scale means nothing and is not shown
            timed = dataclasses.replace(timed, scale=back.scale)
        assert back == timed
        assert parse(text([perturbation]), onset=3.0).onset == 3.0


@pytest.mark.parametrize("robot", SIMULATED)
def test_what_is_drawn_together_can_act_together(robot: str) -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 3):
        condition = conditions.sample(CLASSES[robot](), rng, "train", count)
        assert len(condition) == count
        on = CLASSES[robot](starting(condition, CLASSES[robot].spec.dt))
        on.reset()
        on.write(on.spec.rest)
        on.write(on.spec.rest)
        assert on.active == on.perturb


@pytest.mark.parametrize("robot", SIMULATED)
def test_the_suite_is_held_out_and_the_same_each_time(robot: str) -> None:
    on = make(robot)
    suite = conditions.test_suite(on)
    assert suite == conditions.test_suite(make(robot, seed=5))
    assert len(set(map(text, suite))) == len(suite) >= 10
    for condition in suite:
        for perturbation in condition:
            perturbation.check(on)
            if perturbation.name.startswith("damaged"):
                assert perturbation.held_out(on)


@pytest.mark.parametrize("robot", SIMULATED)
def test_what_settings_are_chosen_on_is_not_held_out(robot: str) -> None:
    on = make(robot)
    suite = conditions.validation_suite(on)
    assert suite == conditions.validation_suite(make(robot, seed=5))
    assert {len(condition) for condition in suite} == {1, 2}
    assert len(set(map(text, suite))) == len(suite)
    held_out = {text(c) for c in conditions.test_suite(on)}
    assert not held_out.intersection(map(text, suite))
    assert not any(p.held_out(on) for condition in suite for p in condition)


def test_some_held_out_damage_is_new_even_in_the_mirror() -> None:
    on = make("hexapod")
    damage = [c for c in conditions.test_suite(on) if text(c).startswith("damaged_leg")]
    mirrored = [conditions.mirror_trained(on, condition) for condition in damage]
    assert any(mirrored)
    assert not all(mirrored)


def test_planar_robots_have_no_sides_to_perturb() -> None:
    assert {p.side for p in draw("cheetah", "friction", "train", 50)} == {"both"}
    assert {p.side for p in draw("hexapod", "friction", "train", 50)} == {"both", "left", "right"}
    assert all(p.y == 0 for p in draw("cheetah", "payload", "train", 20))


def test_mirroring_swaps_legs_sides_and_the_way_down() -> None:
    on = make("hexapod")
    for one, other in (
        ("damaged_leg:leg=L1", "damaged_leg:leg=R1"),
        ("damaged_joint:joint=R0_lift", "damaged_joint:joint=L0_lift"),
        ("friction:scale=0.3,side=left", "friction:scale=0.3,side=right"),
        ("payload:mass=1,x=0.05,y=0.03", "payload:mass=1,x=0.05,y=-0.03"),
        ("slope:angle=0.1,direction=0.5", "slope:angle=0.1,direction=-0.5"),
        ("buoyancy:gravcomp=0.5", "buoyancy:gravcomp=0.5"),
    ):
        assert parse(one).mirrored(on) == parse(other)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("robot", "perturbation", "why"),
    [
        ("hexapod", "damaged_leg:leg=L9", "L0, L1, L2, R0, R1, R2"),
        ("hexapod", "damaged_leg:leg=L0,mode=sad", "disabled, locked, weak, reversed, missing"),
        ("hexapod", "damaged_leg:leg=L0,mode=weak,scale=2", "scale"),
        ("hexapod", "damaged_joint:joint=L0", "L0_swing"),
        ("cheetah", "damaged_joint:joint=bthigh,mode=missing", "disabled, locked, weak, reversed"),
        ("cheetah", "damaged_leg:leg=L0", "B, F"),
        ("cheetah", "friction:scale=0.5,side=left", "both"),
        ("cheetah", "motor_strength:scale=0.5,side=right", "both"),
        ("hexapod", "friction:scale=-1", "scale"),
        ("hexapod", "friction:scale=nan", "scale"),
        ("hexapod", "slope:angle=15", "rad"),
        ("hexapod", "slope:angle=0.1,direction=90", "rad"),
        ("hexapod", "buoyancy:gravcomp=1.5", "gravcomp"),
        ("hexapod", "payload:mass=-1", "mass"),
        ("hexapod", "payload:mass=1,x=nan", "x"),
    ],
)
def test_a_robot_refuses_what_makes_no_sense_on_it(robot: str, perturbation: str, why: str) -> None:
    with pytest.raises(PerturbationError, match=why):
        make(robot, perturbation)


@pytest.mark.parametrize(
    ("unreadable", "why"),
    [
        ("damaged_leg", "needs leg="),
        ("damaged_leg:arm=L0", "takes leg=, mode=, scale=, onset=, until="),
        ("damaged_leg:L0", "takes leg="),
        ("friction:scale=much", "number"),
        ("friction:scale=0.5,onset=-1", "onset"),
        ("friction:scale=0.5,onset=nan", "onset"),
        ("friction:scale=0.5,onset=inf", "onset"),
        ("friction:scale=0.5,onset=3,until=2", "until"),
    ],
)
def test_parsing_says_what_is_wrong(unreadable: str, why: str) -> None:
    with pytest.raises(PerturbationError, match=why):
        parse(unreadable)


def test_bad_times_are_refused_in_code_too() -> None:
    with pytest.raises(PerturbationError, match="onset"):
        DamagedLeg(leg="L0", onset=-1.0)


# --- physics ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("robot", "joint"), [(r, j) for r in SIMULATED for j in joints(CLASSES[r]())]
)
def test_a_locked_joint_stays_where_it_is(robot: str, joint: str) -> None:
    on = make(robot, f"damaged_joint:joint={joint},mode=locked")
    start = on.data.joint(joint).qpos.copy()
    for t in range(round(1.0 / on.spec.dt)):
        on.write(1.0 * (on.spec.act_high if t % 4 < 2 else on.spec.act_low))
        assert on.data.joint(joint).qpos == pytest.approx(start, abs=1e-2)


@pytest.mark.parametrize("robot", SIMULATED)
def test_broken_drives_do_what_their_mode_says(robot: str) -> None:
    on = make(robot)
    ctrl = np.random.default_rng(0).uniform(-1, 1, on.model.nu)
    for joint in joints(on):
        on.data.joint(joint).qpos, on.data.joint(joint).qvel = 0.0, 0.0
    healthy = at_state(on, on.nominal, ctrl).qfrc_actuator
    for joint in joints(on):
        dof = on.nominal.joint(joint).dofadr[0]
        for damage, share in (
            ("mode=disabled", 0.0),
            ("mode=weak,scale=0.5", 0.5),
            ("mode=reversed", -1.0),
        ):
            broken = make(robot, f"damaged_joint:joint={joint},{damage}")
            expected = healthy.copy()
            expected[dof] *= share
            torque = at_state(on, broken.model, ctrl).qfrc_actuator
            np.testing.assert_allclose(torque, expected, atol=1e-9)


@pytest.mark.parametrize("robot", SIMULATED)
def test_scales_of_drives_multiply(robot: str) -> None:
    on = make(robot)
    leg, limb = next(iter(on.legs.items()))
    weak = make(robot, f"damaged_leg:leg={leg},mode=weak,scale=0.5", "motor_strength:scale=0.5")
    ctrl = np.random.default_rng(0).uniform(-1, 1, on.model.nu)
    full, left = (at_state(on, m, ctrl).qfrc_actuator for m in (on.nominal, weak.model))
    share = np.full(on.model.nv, 0.5)
    share[[on.nominal.joint(j).dofadr[0] for j in limb.joints]] = 0.25
    np.testing.assert_allclose(left, share * full, atol=1e-9)


def test_weak_motors_on_one_side() -> None:
    on, weak = make("hexapod"), make("hexapod", "motor_strength:scale=0.4,side=left")
    ctrl = np.random.default_rng(0).uniform(-1, 1, on.model.nu)
    full, left = (at_state(on, m, ctrl).actuator_force for m in (on.nominal, weak.model))
    np.testing.assert_allclose(left, np.repeat([0.4, 1.0], 6) * full, atol=1e-9)


@pytest.mark.parametrize("robot", SIMULATED)
def test_a_missing_leg_touches_nothing_and_weighs_nothing(robot: str) -> None:
    for leg in CLASSES[robot].legs:
        on = make(robot, f"damaged_leg:leg={leg},mode=missing")
        ids = subtree(on.model, on.legs[leg].body)
        assert on.model.body_mass[ids].sum() < 2e-3 * on.nominal.body_mass[ids].sum()
        touched = 0
        for _ in range(round(1.0 / on.spec.dt)):
            on.write(on.spec.rest)
            assert not floor_contacts(on, leg)
            touched += on.data.ncon
        assert touched


def measured_weight(robot: SimRobot) -> float:
    """What the floor carries of a robot that has come to rest under steady commands [N]."""
    robot.data.ctrl[:] = 0.0
    mujoco.mj_step(robot.model, robot.data, 300)
    force, total = np.empty(6), 0.0
    for i in range(robot.data.ncon):
        mujoco.mj_contactForce(robot.model, robot.data, i, force)
        total += force[0]
    return total


@pytest.mark.parametrize(
    ("perturb", "load", "carried"),
    [
        ([], 0.0, 0.0),
        (["payload:mass=1,x=0.05,y=0.03"], 1.0, 0.0),
        (["buoyancy:gravcomp=0.6"], 0.0, 0.6),
        (["payload:mass=1", "buoyancy:gravcomp=0.5"], 1.0, 0.5),
    ],
)
def test_the_floor_feels_the_weight(perturb: list[str], load: float, carried: float) -> None:
    robot = make("hexapod", *perturb)
    mass = robot.nominal.body_mass.sum() + load
    assert measured_weight(robot) == pytest.approx(mass * GRAVITY * (1 - carried), rel=0.02)


def test_a_payload_moves_the_centre_of_mass_and_adds_its_inertia() -> None:
    robot = make("hexapod")
    loaded = make("hexapod", Payload(mass=2.0, x=0.1, y=-0.05))
    torso = robot.nominal.body("torso").id
    mass, centre = robot.nominal.body_mass[torso], robot.nominal.body_ipos[torso]
    load = np.array([0.1, -0.05, 0.0])
    expected = (mass * centre + 2.0 * load) / (mass + 2.0)
    np.testing.assert_allclose(loaded.model.body_ipos[torso], expected, atol=1e-12)

    def tensor(model: mujoco.MjModel) -> np.ndarray:
        """About the torso's origin, along its axes."""
        axes = np.empty(9)
        mujoco.mju_quat2Mat(axes, model.body_iquat[torso])
        rotation = axes.reshape(3, 3)
        r, m = model.body_ipos[torso], model.body_mass[torso]
        own = rotation @ np.diag(model.body_inertia[torso]) @ rotation.T
        return own + m * (r @ r * np.eye(3) - np.outer(r, r))

    added = 2.0 * (load @ load * np.eye(3) - np.outer(load, load))
    np.testing.assert_allclose(tensor(loaded.model), tensor(robot.nominal) + added, atol=1e-9)


@pytest.mark.parametrize(
    ("robot", "friction", "share"),
    [
        ("hexapod", "scale=0.3", {"L": 0.3, "R": 0.3}),
        ("hexapod", "scale=0.3,side=left", {"L": 0.3, "R": 1.0}),
        ("hexapod", "scale=0.3,side=right", {"L": 1.0, "R": 0.3}),
        ("cheetah", "scale=0.3", {"B": 0.3, "F": 0.3}),
    ],
)
def test_friction_is_scaled_where_the_feet_touch(
    robot: str, friction: str, share: dict[str, float]
) -> None:
    def seen(on: SimRobot) -> dict[str, set[float]]:
        found: dict[str, set[float]] = {side: set() for side in share}
        for _ in range(5):
            on.write(on.spec.rest)
            for leg in on.legs:
                found[leg[0]] |= {round(f, 6) for f in floor_contacts(on, leg)}
        return found

    healthy, slippery = seen(make(robot)), seen(make(robot, f"friction:{friction}"))
    for side, part in share.items():
        assert healthy[side]
        assert slippery[side] == {round(part * f, 6) for f in healthy[side]}


@pytest.mark.parametrize("direction", [0.0, 0.7, math.pi / 2, -2.5])
def test_a_slope_tilts_gravity_towards_the_way_down(direction: float) -> None:
    gravity = make("hexapod", f"slope:angle=0.2,direction={direction}").model.opt.gravity
    down = math.sin(0.2) * np.array([math.cos(direction), math.sin(direction), 0])
    np.testing.assert_allclose(gravity, GRAVITY * (down - [0, 0, math.cos(0.2)]), atol=1e-4)


@pytest.mark.parametrize("direction", [0.7, -2.5])
def test_who_cannot_hold_on_slides_down(direction: float) -> None:
    slope = f"slope:angle=0.25,direction={direction}"
    on = make("hexapod", slope, "friction:scale=0.1")
    start = on.read()[:2]
    for _ in range(10):
        on.write(on.spec.rest)
    moved = on.read()[:2] - start
    assert np.linalg.norm(moved) > 0.3
    assert math.atan2(moved[1], moved[0]) == pytest.approx(direction, abs=0.2)


def test_cheetah_on_a_slope_is_pulled_along_its_one_way() -> None:
    uphill = make("cheetah", "slope:angle=0.2,direction=3.141593")
    np.testing.assert_allclose(uphill.model.opt.gravity[0], -GRAVITY * math.sin(0.2), atol=1e-4)
