"""What every registered perturbation keeps to on every robot, and the physics of each one.

``MBMRL_EPISODES=100`` drives every robot with each of them through so many random episodes.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import re
from collections.abc import Sequence
from typing import ClassVar

import mujoco
import numpy as np
import pytest

from mbmrl import conditions, registry
from mbmrl.conditions import parse, starting, text
from mbmrl.spec import Field, RobotSpec
from robots.perturbations.base import Perturbation, PerturbationError, subtree
from robots.perturbations.damaged_leg import DamagedLeg
from robots.perturbations.payload import Payload
from robots.rover import RADIUS
from robots.sim import Leg, SimRobot, compiled

CLASSES = {name: registry.load("robots", name) for name in registry.names("robots")}
SIMULATED = [name for name, cls in CLASSES.items() if issubclass(cls, SimRobot)]
KINDS = {name: conditions.allowed(CLASSES[name]()) for name in SIMULATED}
PAIRS = [(robot, kind.name) for robot, kinds in KINDS.items() for kind in kinds]
GRAVITY = 9.81  # [m/s²]
EPISODES = int(os.environ.get("MBMRL_EPISODES", "2"))
"""Random ones for each robot and perturbation."""


def make(name: str, *perturb: str | Perturbation, seed: int = 0) -> SimRobot:
    parsed = [parse(p) if isinstance(p, str) else p for p in perturb]
    robot = CLASSES[name](parsed, seed=seed)
    robot.reset()
    return robot


def draw(robot: str, kind: str, split: str, count: int) -> list[Perturbation]:
    rng = np.random.default_rng(0)
    cls, on = next(k for k in KINDS[robot] if k.name == kind), CLASSES[robot]()
    return [cls.sample(on, rng, split) for _ in range(count)]


def strengths(perturbation: Perturbation) -> dict[str, float]:
    """Its magnitudes, as far as they change anything; of a drift, what it drifts to."""
    full = perturbation.at(math.inf)
    return {
        f"{full.name} {field}": abs(getattr(full, field))
        for field, neutral in full.magnitudes.items()
        if getattr(full, field) != neutral
    }


def touches_the_model(perturbation: Perturbation) -> bool:
    return type(perturbation.at(math.inf)).apply is not Perturbation.apply


def drive(robot: SimRobot, ticks: int) -> np.ndarray:
    """What the sensors tell at random actions."""
    rng, seen = np.random.default_rng(0), [robot.read()]
    for _ in range(ticks):
        robot.write(rng.uniform(robot.spec.act_low, robot.spec.act_high))
        seen.append(robot.read())
    return np.array(seen)


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
    names = {name for p in test for name in strengths(p)}
    assert names, f"which field of {kind} tells train from test? name it in its magnitudes"
    for name in names:
        trained, held_out = (
            [strengths(p)[name] for p in drawn if name in strengths(p)] for drawn in (train, test)
        )
        low, high = min(held_out), max(held_out)
        assert not any(low <= x <= high for x in trained)
        assert min(trained) < low and high < max(trained)  # milder and harsher ones


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_acts_from_onset_until_the_end_and_at_no_other_time(robot: str, kind: str) -> None:
    perturbation = dataclasses.replace(draw(robot, kind, "test", 1)[0], onset=0.2, until=0.4)
    on = make(robot, perturbation)
    nominal = fingerprint(on.nominal)
    while on.time < 0.6:
        acting = 0.2 - 1e-6 <= on.time < 0.4 - 1e-6
        assert on.active == ((perturbation,) if acting else ())
        assert (fingerprint(on.model) != nominal) == (acting and touches_the_model(perturbation))
        on.write(on.spec.rest)
    assert fingerprint(on.nominal) == nominal


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_never_accumulates(robot: str, kind: str) -> None:
    on = make(robot, *draw(robot, kind, "train", 1))
    once = fingerprint(on.model)
    on._apply()
    assert fingerprint(on.model) == once


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_random_actions_lead_to_finite_numbers_and_the_same_ones_again(
    robot: str, kind: str
) -> None:
    for split in ("train", "test"):
        (drawn,) = draw(robot, kind, split, 1)
        on = make(robot, dataclasses.replace(drawn, onset=0.2))
        first = drive(on, 25)
        assert np.isfinite(first).all()
        assert on.time == pytest.approx(25 * on.spec.dt)  # MuJoCo began again nowhere
        np.testing.assert_array_equal(on.read(), first[-1])
        np.testing.assert_array_equal(drive(make(robot, *on.perturb), 25), first)


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_episodes_are_finite_repeat_themselves_and_end_nominal(robot: str, kind: str) -> None:
    """As many as asked for, each with a draw, a start and actions of its own."""
    cls, on = next(k for k in KINDS[robot] if k.name == kind), CLASSES[robot]()
    nominal = fingerprint(on.nominal)
    for episode in range(EPISODES):
        rng = np.random.default_rng(episode)
        drawn = cls.sample(on, rng, "test" if episode % 2 else "train")
        drawn = dataclasses.replace(drawn, onset=0.2, until=1.5)
        acts = rng.uniform(
            on.spec.act_low, on.spec.act_high, (round(2.0 / on.spec.dt), len(on.spec.act))
        )

        def seen(
            drawn: Perturbation = drawn, acts: np.ndarray = acts, seed: int = episode
        ) -> tuple[np.ndarray, SimRobot]:
            driven = make(robot, drawn, seed=seed)
            return np.array([(driven.write(act), driven.read())[1] for act in acts]), driven

        (first, driven), (again, _) = seen(), seen()
        assert np.isfinite(first).all()
        assert driven.time == pytest.approx(2.0)  # MuJoCo began again nowhere
        assert not any(warning.number for warning in driven.data.warning)
        np.testing.assert_array_equal(again, first)
        assert not driven.active
        assert fingerprint(driven.model) == nominal


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_starts_where_the_undamaged_robot_starts(robot: str, kind: str) -> None:
    on, sound = make(robot, *draw(robot, kind, "train", 1)), make(robot)
    for _ in range(2):
        np.testing.assert_array_equal(on.data.qpos, sound.data.qpos)
        np.testing.assert_array_equal(on.data.qvel, sound.data.qvel)
        drive(on, 3)
        for one in (on, sound):
            one.reset()


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_off_again_is_nominal_again(robot: str, kind: str) -> None:
    (drawn,) = draw(robot, kind, "train", 1)
    on, sound = make(robot, dataclasses.replace(drawn, until=0.5)), make(robot)
    drive(on, math.ceil(0.5 / on.spec.dt))
    sound.data.qpos[:], sound.data.qvel[:] = on.data.qpos, on.data.qvel
    sound.data.qacc_warmstart[:] = on.data.qacc_warmstart
    sound.carry = on.carry
    np.testing.assert_array_equal(drive(on, 5)[1:], drive(sound, 5)[1:])


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_true_rollouts_feel_it_as_stepping_does(robot: str, kind: str) -> None:
    (drawn,) = draw(robot, kind, "test", 1)
    if drawn.changing:
        pytest.skip("a rollout takes it as it is now")
    on = make(robot, dataclasses.replace(drawn, onset=0.2, ramp=min(drawn.ramp, 0.1)))
    drive(on, 6)
    plan = np.random.default_rng(1).uniform(on.spec.act_low, on.spec.act_high, (4, on.spec.num_act))
    (future,) = on.true_rollout(plan[None])
    for act, foreseen in zip(plan, future, strict=True):
        on.write(act)
        np.testing.assert_allclose(on.truth(), foreseen, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_sensors_leave_alone_what_they_do_not_measure(robot: str, kind: str) -> None:
    on = make(robot, *draw(robot, kind, "test", 1))
    told = drive(on, 5)[-1] - on.truth()
    told[on.spec.index(on.spec.predicted)] = 0.0
    assert not told.any()


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_grows_from_nothing_to_all_of_it(robot: str, kind: str) -> None:
    for drawn in draw(robot, kind, "train", 20):
        if not drawn.can_grow:
            with pytest.raises(PerturbationError, match="ramp"):
                dataclasses.replace(drawn, ramp=1.0)
            continue
        growing = dataclasses.replace(drawn, onset=1.0, ramp=4.0)
        full, half, none = (growing.at(t) for t in (5.0, 3.0, 1.0))
        assert full.magnitudes
        for field, neutral in full.magnitudes.items():
            assert getattr(none, field) == neutral
            assert getattr(half, field) == pytest.approx((neutral + getattr(full, field)) / 2)


@pytest.mark.parametrize(("robot", "kind"), PAIRS)
def test_once_grown_it_is_as_if_it_had_come_at_once(robot: str, kind: str) -> None:
    drawn = next((p for p in draw(robot, kind, "train", 20) if p.can_grow), None)
    if drawn is None or drawn.changing:
        pytest.skip("no magnitude, or another at every place")
    slow = make(robot, dataclasses.replace(drawn, ramp=0.3))
    models = set()
    while slow.time < 0.4:
        models.add(fingerprint(slow.model))
        slow.write(slow.spec.rest)
    at_once = make(robot, dataclasses.replace(slow.perturb[0].at(math.inf), ramp=0.0))
    assert fingerprint(slow.model) == fingerprint(at_once.model)
    assert len(models) > 2 or not touches_the_model(drawn)


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
    assert len(set(map(text, suite))) == len(suite) >= 25
    for condition in suite:
        for perturbation in condition:
            perturbation.check(on)
            if perturbation.name.startswith("damaged"):
                assert perturbation.held_out(on)


def effect(robot: str, condition: conditions.Condition) -> bytes:
    """All that it does: to the model, to what actuators hear, and to what is measured."""
    on = make(robot, *condition)
    ctrl = np.random.default_rng(0).uniform(-1, 1, (1, 3 * on.substeps, on.nominal.nu))
    heard, _ = on._heard(ctrl, 3)
    return fingerprint(on.model) + heard.tobytes() + drive(on, 6).tobytes()


@pytest.mark.parametrize("robot", SIMULATED)
def test_no_two_conditions_of_a_suite_do_the_same(robot: str) -> None:
    suite = conditions.test_suite(CLASSES[robot]())
    assert len({effect(robot, condition) for condition in suite}) == len(suite)


@pytest.mark.parametrize("robot", [n for n in SIMULATED if CLASSES[n].legs])
def test_damage_does_the_same_by_each_of_its_names(robot: str) -> None:
    """And no two of one name do: a leg's or a joint's."""
    on, called = CLASSES[robot](), []
    for leg, limb in on.legs.items():
        places = [f"damaged_leg:leg={leg}", *(f"damaged_joint:joint={j}" for j in limb.joints)]
        for place in places:
            for mode in ("disabled", "locked", "weak", "reversed"):
                called.append(parse(f"{place},mode={mode},scale=0.3"))
    by_effect: dict[bytes, set[str]] = {}
    for perturbation in called:
        by_effect.setdefault(effect(robot, (perturbation,)), set()).add(text([perturbation]))
    by_name = {frozenset(text([p]) for p in perturbation.names(on)) for perturbation in called}
    assert set(map(frozenset, by_effect.values())) == by_name


def test_what_is_trained_by_another_name_is_held_out_in_name_only() -> None:
    on = CLASSES["cheetah"]()
    leg, joint = (
        parse(p)
        for p in ("damaged_leg:leg=F,mode=reversed", "damaged_joint:joint=fthigh,mode=reversed")
    )
    assert joint.held_out(on) and not leg.held_out(on)
    assert conditions.mirror_trained(on, (joint,))
    both = "damaged_leg:leg=B,mode=reversed", "damaged_joint:joint=bthigh,mode=reversed"
    assert not any(conditions.mirror_trained(on, (parse(p),)) for p in both)


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


@pytest.mark.parametrize("robot", SIMULATED)
def test_what_gravity_does_not_move_is_not_perturbed_by_it(robot: str) -> None:
    """Where the weight is carried, ten times of it leave the robot where it is."""
    on = make(robot)
    heavier = copy.copy(on.nominal)
    heavier.opt.gravity *= 10.0
    forces = [at_state(on, model, np.zeros(on.nominal.nu)) for model in (on.nominal, heavier)]
    moved = not np.allclose(*(f.qfrc_passive - f.qfrc_bias for f in forces), atol=1e-9)
    kinds = {kind.name for kind in KINDS[robot]}
    assert ("gravity" in kinds) == ("buoyancy" in kinds) == moved


@pytest.mark.parametrize("robot", SIMULATED)
def test_who_touches_nothing_slips_on_nothing(robot: str) -> None:
    on, touched = make(robot), False
    own = subtree(on.model, on.torso)
    for _ in range(20):
        on.write(on.spec.rest)
        touched |= any(~np.isin(on.model.geom_bodyid[c.geom], own).all() for c in on.data.contact)
    assert ("friction" in {kind.name for kind in KINDS[robot]}) == touched


SWIMMERS = [name for name in SIMULATED if CLASSES[name]._nominal().opt.density]


@pytest.mark.parametrize("robot", SWIMMERS)
def test_no_water_flows_faster_than_who_is_to_swim_in_it(robot: str) -> None:
    speed = CLASSES[robot].speed
    drawn = [p for split in ("train", "test") for p in draw(robot, "medium", split, 100)]
    flows = [p for p in drawn if p.current]
    assert len(flows) > 20
    assert all(0.05 * speed < p.current < 0.9 * speed for p in flows)
    floating = make(robot, max(flows, key=lambda p: p.current))
    for _ in range(round(40.0 / floating.spec.dt)):
        floating.write(floating.spec.rest)
    drift = np.hypot(*floating.data.qvel[:2])
    assert drift == pytest.approx(floating.perturb[0].current, rel=0.2)


def test_a_fish_can_bear_what_it_is_loaded_with() -> None:
    """It sinks, more slowly than it swims; and in nothing that it lives in does it shoot up."""
    drawn = [(kind, p) for kind in ("payload", "medium") for p in draw("fish", kind, "train", 20)]
    for kind, perturbation in drawn:
        fish = make("fish", perturbation)
        start = fish.data.qpos[2]
        for _ in range(50):
            fish.write(fish.spec.rest)
        rate = (fish.data.qpos[2] - start) / fish.time
        assert abs(rate) < 0.75 * fish.speed
        assert (rate < -0.01 * fish.speed) == (kind == "payload")


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_what_floats_is_held_up_by_as_much_gravity_as_it_is_drawn_down(scale: float) -> None:
    """A block pushed 5 cm deeper displaces that much more water, which weighs as all does."""
    on = make("pier", f"gravity:scale={scale}")
    on.data.qvel[:] = 0.0
    heave = on.nominal.joint("heave9")
    on.data.joint("heave9").qpos = -0.05
    state = at_state(on, on.model, np.zeros(on.nominal.nu))
    up = (state.qfrc_passive - state.qfrc_bias)[heave.dofadr[0]]
    area = np.prod(2 * on.nominal.geom_size[on.nominal.geom_bodyid == heave.bodyid[0], :2])
    assert up == pytest.approx(1000.0 * scale * GRAVITY * area * 0.05, rel=1e-6)


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
        ("hexapod", "friction:scale=0", "scale must lie in .0.001, 10"),
        ("hexapod", "friction:scale=0.0009", "scale"),
        ("pier", "friction:scale=0.1,patch=0.3", "stands on no floor"),
        ("hexapod", "slope:angle=15", "rad"),
        ("hexapod", "slope:angle=0.1,direction=90", "rad"),
        ("hexapod", "buoyancy:gravcomp=1.5", "gravcomp"),
        ("hexapod", "payload:mass=-1", "mass"),
        ("hexapod", "payload:mass=1,x=nan", "x"),
        ("hexapod", "gravity:scale=-1", "scale"),
        ("hexapod", "wind:force=1e4", "force"),
        ("hexapod", "wind:force=25", "force"),
        ("hexapod", "wind:force=1,direction=90", "rad"),
        ("hexapod", "wind:force=1,period=-1", "period"),
        ("hexapod", "backlash:gap=2", "gap"),
        ("hexapod", "miscalibration:offset=0.1,leg=L9", "all, L0"),
        ("hexapod", "delay:steps=1.5", "whole number"),
        ("hexapod", "delay:steps=1,of=wires", "actions, sensors, both"),
        ("hexapod", "sensor_noise", "bias=, a noise= or a dropout="),
        ("hexapod", "sensor_noise:dropout=1.5", "dropout"),
        ("hexapod", "damping", "rate= or a spring="),
        ("hexapod", "medium:current=1", "density= or a viscosity="),
        ("hexapod", "medium:density=-1", "density"),
        ("hexapod", "medium:density=1000,level=nan", "level"),
        ("hexapod", "medium:density=6000", "density"),
        ("hexapod", "medium:viscosity=60", "viscosity"),
        ("hexapod", "medium:density=100,current=6", "current"),
        ("hexapod", "terrain:roughness=0.1,bump=0", "bump"),
        ("ant", "terrain:roughness=0.1,bump=0.05", "bump"),
        ("hexapod", "terrain:roughness=0.1,seed=1.5", "seed is a whole number"),
        ("cheetah", "slope:angle=0.1,direction=1.57", "vertical plane.*0 or 3.142"),
        ("cheetah", "wind:force=1,direction=3.12", "vertical plane"),
        ("pier", "medium:density=100,current=1,direction=0.02", "vertical plane"),
        ("cheetah", "payload:mass=1,y=0.1", "y is 0"),
        ("hexapod", "friction:scale=0.5,patch=-1", "patch"),
        ("fish", "gravity:scale=1.5", "gravity moves nothing"),
        ("fish", "buoyancy:gravcomp=0.5", "gravity moves nothing"),
        ("fish", "friction:scale=0.5", "touches no floor"),
        ("swimmer", "friction:scale=0.5", "touches no floor"),
        ("swimmer", "drift:kind=friction,to=0.5", "touches no floor"),
        ("fish", "wind:force=0.01", "no wind blows.*current="),
        ("swimmer", "wind:force=0.01", "no wind blows.*current="),
        ("hexapod", "drift:kind=rust,to=1", "backlash, friction"),
        ("hexapod", "drift:kind=wind,to=1", "ramp=SECONDS"),
        ("hexapod", "drift:kind=friction,to=-1", "scale"),
        ("hexapod", "drift:kind=friction,to=0", "scale"),
        ("hexapod", "drift:kind=friction,to=0.2,ramp=0", "ramp"),
    ],
)
def test_a_robot_refuses_what_makes_no_sense_on_it(robot: str, perturbation: str, why: str) -> None:
    with pytest.raises(PerturbationError, match=why):
        make(robot, perturbation)


@pytest.mark.parametrize(
    ("unreadable", "why"),
    [
        ("damaged_leg", "needs leg="),
        ("damaged_leg:arm=L0", "takes leg=, mode=, scale=, onset=, until=, ramp="),
        ("damaged_leg:L0", "takes leg="),
        ("friction:scale=0.5,scale=0.1", "scale is given twice"),
        ("friction:scale=much", "number"),
        ("friction:scale=0.5,onset=-1", "onset"),
        ("friction:scale=0.5,onset=nan", "onset"),
        ("friction:scale=0.5,onset=inf", "onset"),
        ("friction:scale=0.5,onset=3,until=2", "until"),
        ("friction:scale=0.5,ramp=-1", "ramp"),
        ("friction:scale=0.5,ramp=nan", "ramp"),
        ("damaged_leg:leg=L0,mode=locked,ramp=1", "comes at once"),
    ],
)
def test_parsing_says_what_is_wrong(unreadable: str, why: str) -> None:
    with pytest.raises(PerturbationError, match=why):
        parse(unreadable)


@pytest.mark.parametrize(
    ("robot", "perturbation"),
    [
        ("cheetah", "slope:angle=0.1,direction=-3.142"),  # what is drawn, in the mirror
        ("swimmer", "medium:density=100,current=0.1,direction=1.5"),  # its plane is the water's
        ("cheetah", "friction:scale=0.1,patch=0.3"),
        ("pier", "friction:scale=0.1"),
    ],
)
def test_what_makes_sense_there_is_not_refused(robot: str, perturbation: str) -> None:
    make(robot, perturbation)


@pytest.mark.parametrize("robot", SIMULATED)
def test_no_simulation_diverges_at_the_most_that_is_allowed(robot: str) -> None:
    weight = GRAVITY * CLASSES[robot]._nominal().body(CLASSES[robot].torso).subtreemass[0]
    most = {
        "friction": ["friction:scale=0.001"],
        "medium": ["medium:density=5000,current=5", "medium:density=5000,viscosity=50,current=5"],
        "wind": [f"wind:force={0.6 * weight}"],
    }
    for kind in KINDS[robot]:
        for perturbation in most.get(kind.name, []):
            on = make(robot, perturbation)
            assert np.isfinite(drive(on, round(3.0 / on.spec.dt))).all()
            assert not any(warning.number for warning in on.data.warning)


@pytest.mark.parametrize("robot", [n for n in SIMULATED if CLASSES[n]._nominal().nhfield])
def test_the_least_bump_that_is_told_carries_the_robot(robot: str) -> None:
    with pytest.raises(PerturbationError, match="bump") as refused:
        make(robot, "terrain:roughness=0.02,bump=0.01")
    least = re.findall(r"[\d.]+", str(refused.value))[0]
    on = make(robot, f"terrain:roughness=0.02,bump={least}")
    height = on.data.body(on.torso).xpos[2]
    for _ in range(round(2.0 / on.spec.dt)):
        on.write(on.spec.rest)
    assert on.data.body(on.torso).xpos[2] > 0.3 * height


def test_bad_times_are_refused_in_code_too() -> None:
    with pytest.raises(PerturbationError, match="onset"):
        DamagedLeg(leg="L0", onset=-1.0)


# --- physics ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("robot", "joint"), [(r, j) for r in SIMULATED for j in joints(CLASSES[r]())]
)
def test_a_locked_joint_yields_by_less_than_6_mrad_a_second(robot: str, joint: str) -> None:
    on = make(robot, f"damaged_joint:joint={joint},mode=locked")
    start = on.data.joint(joint).qpos.copy()
    for t in range(round(10.0 / on.spec.dt)):
        on.write(1.0 * (on.spec.act_high if t % 4 < 2 else on.spec.act_low))
        assert on.data.joint(joint).qpos == pytest.approx(start, abs=6e-3 * max(on.time, 0.5))


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
        assert touched or on.model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT


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


# --- physics of two bodies that can be worked out by hand -------------------------------------

MASS, SIDES, MU = 2.0, np.array([0.3, 0.2, 0.1]), 0.5  # [kg], [m], 1


class Block(SimRobot):
    """A box that nothing drives, at rest 10 m above the floor unless it is put elsewhere."""

    spec = RobotSpec(
        name="block",
        dt=0.02,
        obs=tuple(Field(n, "m/s") for n in ("vx", "vy", "vz")),
        act=(Field("none", "1", -1, 1),),
    )
    torso = "block"
    legs: ClassVar[dict[str, Leg]] = {}

    @classmethod
    def build(cls) -> mujoco.MjModel:
        return compiled(
            mujoco.MjSpec.from_string(f"""
            <mujoco>
              <option timestep="0.001" cone="elliptic" impratio="10"/>
              <default><geom friction="{MU} 0.005 0.0001"/></default>
              <worldbody>
                <geom name="floor" type="plane" size="50 50 1"/>
                <body name="block" pos="0 0 10">
                  <freejoint/>
                  <geom type="box" size="{" ".join(map(str, SIDES / 2))}" mass="{MASS}"/>
                </body>
              </worldbody>
            </mujoco>""")
        )

    def place(self) -> np.ndarray:
        return np.zeros(0)

    def observe(self, qpos: np.ndarray, qvel: np.ndarray, carry: np.ndarray) -> np.ndarray:
        return qvel[..., :3]

    def controls(self, carry: np.ndarray, acts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n, h, _ = acts.shape
        return np.zeros((n, h * self.substeps, 0)), np.zeros((n, h, 0))


def block(*perturb: str, velocity: Sequence[float] = (0, 0, 0), height: float = 10.0) -> Block:
    robot = Block([parse(p) for p in perturb])
    robot.reset()
    robot.data.qvel[:3], robot.data.qpos[2] = velocity, height
    return robot


def live(robot: SimRobot, seconds: float) -> np.ndarray:
    """Where the block is after that time, and how fast it is then."""
    for _ in range(round(seconds / robot.spec.dt)):
        robot.write(robot.spec.rest)
    return np.r_[robot.data.qpos[:3], robot.data.qvel[:3]]


@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0])
def test_gravity_decides_how_fast_things_fall(scale: float) -> None:
    *_, z, _, _, vz = live(block(f"gravity:scale={scale}"), 1.0)
    assert vz == pytest.approx(-scale * GRAVITY, abs=1e-6)
    assert 10.0 - z == pytest.approx(scale * GRAVITY / 2, rel=2e-3, abs=1e-9)


def test_a_neutrally_buoyant_body_stays() -> None:
    density = MASS / SIDES.prod()
    z, *velocity = live(block(f"medium:density={density}"), 3.0)[2:]
    assert z == pytest.approx(10.0, abs=1e-6)
    assert np.abs(velocity).max() < 1e-6


@pytest.mark.parametrize(("density", "viscosity"), [(100.0, 0.0), (0.0, 3.0), (100.0, 3.0)])
def test_a_body_sinks_as_fast_as_drag_lets_it(density: float, viscosity: float) -> None:
    sinking = block(f"medium:density={density},viscosity={viscosity}", height=40.0)
    speed = -live(sinking, 6.0)[5]
    weight = GRAVITY * (MASS - density * SIDES.prod())
    drag = density * SIDES[0] * SIDES[1] * speed**2 / 2
    drag += 3 * math.pi * viscosity * SIDES.mean() * speed
    assert drag == pytest.approx(weight, rel=1e-3)


def test_a_viscous_medium_brings_to_rest_at_the_rate_of_stokes() -> None:
    start, viscosity = 1.0, 0.5
    dry = ["gravity:scale=0"]
    vx = live(block(*dry, f"medium:viscosity={viscosity}", velocity=(start, 0, 0)), 1.0)[3]
    rate = 3 * math.pi * viscosity * SIDES.mean() / MASS
    assert vx == pytest.approx(start * math.exp(-rate), rel=1e-3)


def test_a_current_takes_along_what_floats_in_it() -> None:
    medium = f"medium:density={MASS / SIDES.prod()},viscosity=5,current=0.4,direction=2.0"
    assert live(block(medium), 8.0)[3:] == pytest.approx(
        [0.4 * math.cos(2.0), 0.4 * math.sin(2.0), 0.0], abs=1e-3
    )


def test_what_nobody_sees_displaces_nothing() -> None:
    """Of a wheel of the rover: disc and hub, and not the ball that touches the floor for them."""
    on = make("rover", "medium:density=200")
    wheel = on.model.body("FL").id
    seen = math.pi * RADIUS**2 * 0.04 + 0.12 * 0.044 * 0.024
    carried = on.model.body_gravcomp[wheel] * on.model.body_mass[wheel]
    assert carried == pytest.approx(200.0 * seen)


@pytest.mark.parametrize("draught", [0.3, 0.8])
def test_a_body_floats_as_deep_as_archimedes_says(draught: float) -> None:
    density = MASS / SIDES.prod() / draught
    floating = block(f"medium:density={density},viscosity=20,level=3.0", height=3.0)
    z, *velocity = live(floating, 3.0)[2:]
    assert np.abs(velocity).max() < 1e-2
    assert 3.0 - (z - SIDES[2] / 2) == pytest.approx(draught * SIDES[2], abs=2e-3)


def test_above_the_water_a_body_falls_as_in_air() -> None:
    assert live(block("medium:density=1000,level=1.0"), 1.0)[5] == pytest.approx(-GRAVITY)


@pytest.mark.parametrize("order", [1, -1])
def test_a_payload_sinks_what_floated_whichever_came_first(order: int) -> None:
    floats, loads = f"medium:density={MASS / SIDES.prod()}", "payload:mass=1"
    *_, vz = live(block(*(floats, loads)[::order]), 0.02)
    sinks = GRAVITY * 1.0 / (MASS + 1.0)
    assert vz == pytest.approx(-sinks * 0.02, rel=1e-2)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.2])
def test_a_block_slides_as_far_as_coulomb_says(scale: float) -> None:
    speed = 1.0
    sliding = block(f"friction:scale={scale}", velocity=(speed, 0, 0), height=SIDES[2] / 2)
    x, *_, vx, vy, vz = live(sliding, 3.0)
    assert np.abs([vx, vy, vz]).max() < 1e-3
    assert x == pytest.approx(speed**2 / (2 * scale * MU * GRAVITY), rel=0.02)


def test_friction_comes_in_patches() -> None:
    patch = 0.5
    sliding = block(f"friction:scale=0.1,patch={patch}", velocity=(2.5, 0, 0), height=SIDES[2] / 2)
    sliding.data.qpos[1] = patch / 2  # along the middle of a row of squares
    lost: dict[float, list[float]] = {0.0: [], 1.0: []}
    while sliding.data.qpos[0] < 2 * patch:
        x, vx = sliding.data.qpos[0], sliding.data.qvel[0]
        live(sliding, 0.02)
        if x // patch == sliding.data.qpos[0] // patch:
            lost[x // patch % 2].append((vx - sliding.data.qvel[0]) / 0.02)
    slippery, dry = (np.mean(lost[square]) for square in (0.0, 1.0))
    assert slippery == pytest.approx(0.1 * MU * GRAVITY, rel=0.05)
    assert dry == pytest.approx(MU * GRAVITY, rel=0.05)


def test_the_floor_feels_a_payload() -> None:
    for load in (0.0, 3.0):
        standing = block(f"payload:mass={load}", height=SIDES[2] / 2)
        live(standing, 1.0)
        assert measured_weight(standing) == pytest.approx((MASS + load) * GRAVITY, rel=1e-3)


@pytest.mark.parametrize("direction", [0.0, 2.0])
def test_wind_pushes_with_its_force(direction: float) -> None:
    moved = live(block(f"wind:force=3,direction={direction}"), 1.0)
    speed = 3.0 / MASS * np.array([math.cos(direction), math.sin(direction)])
    np.testing.assert_allclose(moved[3:5], speed, rtol=1e-6)
    assert moved[5] == pytest.approx(-GRAVITY)


def test_two_winds_add_up() -> None:
    vx, vy, _ = live(block("wind:force=3", "wind:force=4,direction=1.5707963"), 1.0)[3:]
    assert [vx, vy] == pytest.approx([3 / MASS, 4 / MASS], rel=1e-6)


def test_gusts_push_with_half_the_force_on_average() -> None:
    assert live(block("wind:force=3,period=0.5"), 1.0)[3] == pytest.approx(1.5 / MASS, rel=0.01)


def test_a_ramp_pushes_with_half_the_force_on_average() -> None:
    assert live(block("wind:force=3,ramp=2", height=40.0), 2.0)[3] == pytest.approx(
        3.0 / MASS, rel=0.02
    )
    halfway = block("payload:mass=4,ramp=1")
    live(halfway, 0.5)
    assert halfway.model.body_mass[1] == pytest.approx(MASS + 2.0)


def heights(robot: SimRobot, places: Sequence[tuple[float, float]]) -> list[float]:
    """Where a ray from above meets the ground."""
    mujoco.mj_kinematics(robot.model, robot.data)
    hit, down = np.zeros(1, np.int32), np.array([0.0, 0.0, -1.0])
    return [
        5.0 - mujoco.mj_ray(robot.model, robot.data, np.array([x, y, 5.0]), down, None, 1, 1, hit)
        for x, y in places
    ]


def test_terrain_is_flat_where_it_begins_and_stays_where_it_is() -> None:
    rough = block("terrain:roughness=0.4,bump=0.5,seed=3")
    assert heights(rough, [(0, 0), (0.1, -0.05), (-0.1, 0.1)]) == pytest.approx([0, 0, 0], abs=1e-6)
    grid = [(x, y) for x in np.arange(-3, 3, 0.37) for y in np.arange(-3, 3, 0.37)]
    seen = heights(rough, grid)
    assert 0.2 < np.ptp(seen) <= 0.4 + 1e-6
    rough.data.qpos[:2] = 0.77, -0.31
    mujoco.mj_kinematics(rough.model, rough.data)
    rough._apply()
    assert heights(rough, grid) == pytest.approx(seen, abs=1e-5)


def test_a_block_slides_down_into_a_hollow() -> None:
    rough = block("terrain:roughness=0.5,bump=1.0,seed=3", "friction:scale=0.05")
    rough.came[0.0] = np.array([9.0, 9.0])  # no flat disc here
    rough.data.qpos[:3] = 0.4, 0.3, 0.5
    live(rough, 2.0)
    z, *velocity = rough.data.qpos[2], *rough.data.qvel[:3]
    assert z < 0.0
    assert rough.data.ncon
    assert np.isfinite(velocity).all()


class Cart(SimRobot):
    """A cart on a rail, pushed by a motor; on it an arm on a position servo."""

    spec = RobotSpec(
        name="cart",
        dt=0.02,
        obs=(Field("x", "m"), Field("vx", "m/s"), Field("told", "1")),
        act=(Field("push", "1", -1, 1), Field("turn", "1", -1, 1)),
        known={"told": {"push": 1.0}},
    )
    torso = "cart"
    legs: ClassVar[dict[str, Leg]] = {"rail": Leg("cart", ("rail",)), "arm": Leg("arm", ("arm",))}

    @classmethod
    def build(cls) -> mujoco.MjModel:
        return compiled(
            mujoco.MjSpec.from_string("""
            <mujoco>
              <option timestep="0.005"/>
              <worldbody>
                <body name="cart">
                  <joint name="rail" type="slide" axis="1 0 0"/>
                  <geom type="box" size="0.1 0.1 0.1" mass="1"/>
                  <body name="arm" pos="0 0 0.2">
                    <joint name="arm" axis="0 0 1" range="-90 90"/>
                    <geom type="sphere" size="0.05" mass="0.1"/>
                  </body>
                </body>
              </worldbody>
              <actuator>
                <motor joint="rail" ctrlrange="-2 2"/>
                <position joint="arm" kp="0.01"/>
              </actuator>
            </mujoco>""")
        )

    def place(self) -> np.ndarray:
        self.data.qvel[0] = self.rng.uniform(-0.1, 0.1)
        return np.zeros(1)

    def observe(self, qpos: np.ndarray, qvel: np.ndarray, carry: np.ndarray) -> np.ndarray:
        return np.concatenate([qpos[..., :1], qvel[..., :1], carry], -1)

    def controls(self, carry: np.ndarray, acts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.repeat(acts, self.substeps, axis=1), acts[..., :1]


def cart(*perturb: str, seed: int = 0) -> Cart:
    robot = Cart([parse(p) for p in perturb], seed=seed)
    robot.reset()
    return robot


def heard(robot: SimRobot, acts: np.ndarray) -> np.ndarray:
    """What the actuators are told at the end of each control step; the driver is told nothing."""
    seen = []
    for act in acts:
        np.testing.assert_array_equal(robot.write(act), act)
        seen.append(robot.data.ctrl.copy())
    return np.array(seen)


ACTS = np.random.default_rng(7).uniform(-1, 1, (40, 2))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_delay_of_n_steps_is_n_steps(steps: int) -> None:
    told = heard(cart(f"delay:steps={steps}"), ACTS)
    np.testing.assert_array_equal(told, np.r_[np.zeros((steps, 2)), ACTS][: len(ACTS)])


def test_a_delay_that_comes_later_holds_what_was_heard_last() -> None:
    late = cart("delay:steps=2,onset=0.1,until=0.5")  # from the 5th action to the 25th
    expected = np.r_[ACTS[:5], ACTS[[4, 4]], ACTS[5:23], ACTS[25:]]
    np.testing.assert_array_equal(heard(late, ACTS), expected)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_sensors_can_be_n_steps_late(steps: int) -> None:
    late = cart(f"delay:steps={steps},of=sensors,onset=0.1")
    told, true = [late.read()], [late.truth()]
    for act in ACTS:
        late.write(act)
        told.append(late.read())
        true.append(late.truth())
    now = np.arange(len(told))
    seen = np.where(now >= 5, np.maximum(now - steps, 5), now)
    np.testing.assert_array_equal(np.array(told)[:, :2], np.array(true)[seen, :2])
    np.testing.assert_array_equal(np.array(told)[:, 2], np.array(true)[:, 2])  # known to itself


def test_play_is_crossed_before_anything_moves() -> None:
    spans = np.array([4.0, math.pi])
    gap = 0.1 * spans
    command = np.r_[np.linspace(0, 1, 20), np.linspace(1, -1, 40)][:, None] * np.ones(2)
    driven = heard(cart("backlash:gap=0.1"), command)
    up, down = driven[:20], driven[20:]
    np.testing.assert_allclose(up, np.maximum(command[:20] - gap / 2, 0))
    np.testing.assert_allclose(down, np.minimum(command[20:] + gap / 2, up[-1]))


def test_miscalibration_shifts_every_command_of_a_leg() -> None:
    off = heard(cart("miscalibration:offset=-0.1,leg=arm"), ACTS)
    np.testing.assert_allclose(off - ACTS, np.tile([0.0, -0.1 * math.pi], (len(ACTS), 1)))


def test_faults_of_actuators_come_one_after_the_other() -> None:
    both = heard(cart("miscalibration:offset=0.1", "delay:steps=1"), ACTS)
    expected = np.r_[np.zeros((1, 2)), ACTS[:-1] + 0.1 * np.array([4.0, math.pi])]
    np.testing.assert_allclose(both, expected)


def errors(*perturb: str, ticks: int = 2000) -> np.ndarray:
    """What the sensors of the cart add to the truth, in spreads of each field."""
    robot, found = cart(*perturb), []
    for _ in range(ticks):
        robot.write(robot.spec.rest)
        found.append((robot.read() - robot.truth())[:2])
    return np.array(found) / spread()


def spread() -> np.ndarray:
    probe = cart()
    rng, seen = np.random.default_rng(0), []
    for _ in range(100):
        probe.write(rng.uniform(-1, 1, 2))
        seen.append(probe.read()[:2])
    return np.std(seen, 0)


def test_noise_has_no_mean_and_the_spread_it_was_given() -> None:
    noise = errors("sensor_noise:noise=0.2")
    np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.02)
    np.testing.assert_allclose(noise.std(0), 0.2, rtol=0.06)
    assert abs(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]) < 0.08


def test_a_bias_is_constant_within_an_episode() -> None:
    bias = errors("sensor_noise:bias=0.5", ticks=20)
    np.testing.assert_allclose(bias, bias[:1].repeat(20, 0), atol=1e-9)
    assert (np.abs(bias[0]) > 1e-3).all()
    drawn = np.array([errors("sensor_noise:bias=0.5", ticks=1)[0]])
    np.testing.assert_allclose(drawn[0], bias[0])  # the same seed


def test_a_sensor_that_drops_out_holds_what_it_told_last() -> None:
    robot = cart("sensor_noise:dropout=0.3")
    last, held = robot.read(), []
    for act in np.random.default_rng(0).uniform(-1, 1, (1000, 2)):
        robot.write(act)
        told, true = robot.read(), robot.truth()
        held.append(told[:2] == last[:2])
        assert (held[-1] | (told[:2] == true[:2])).all()
        last = told
    np.testing.assert_allclose(np.mean(held, 0), 0.3, atol=0.05)


def test_damping_slows_a_joint_down_at_its_rate() -> None:
    slowed = cart("damping:rate=3")
    slowed.data.qvel[:] = 1.0, 0.0
    live(slowed, 0.5)
    assert slowed.data.qvel[0] == pytest.approx(math.exp(-1.5), rel=0.02)


def test_a_stiff_joint_swings_at_its_frequency() -> None:
    swinging = cart("damping:spring=400")  # 20 rad/s
    swinging.data.qvel[:], swinging.data.qpos[0] = 0.0, 0.01
    for _ in range(8):
        live(swinging, 0.02)
        expected = 0.01 * math.cos(20 * swinging.time)
        assert swinging.data.qpos[0] == pytest.approx(expected, abs=1e-3)


def test_drift_is_its_kind_growing() -> None:
    drifting = parse("drift:kind=friction,to=0.2,onset=2,ramp=8")
    assert drifting.at(6.0) == parse("friction:scale=0.6,onset=2,ramp=8")
    assert drifting.at(20.0) == parse("friction:scale=0.2,onset=2,ramp=8")


def test_slippery_feet_on_one_side_need_no_priority_over_the_floor() -> None:
    class Plain(CLASSES["hexapod"]):
        @classmethod
        def build(cls) -> mujoco.MjModel:
            model = super().build()
            model.geom_priority[:] = 0
            return model

    on = Plain([parse("friction:scale=0.3,side=left")])
    on.reset()
    felt: dict[str, set[float]] = {"L": set(), "R": set()}
    for _ in range(5):
        on.write(on.spec.rest)
        for leg in on.legs:
            felt[leg[0]] |= {round(f, 6) for f in floor_contacts(on, leg)}
    assert felt == {"L": {0.3}, "R": {1.0}}


@pytest.mark.parametrize("order", [1, -1])
def test_no_spring_moves_what_is_missing(order: int) -> None:
    """A thousandth of the mass would swing thirty times as fast as the whole."""
    on = cart(*["damaged_leg:leg=arm,mode=missing", "damping:spring=1000"][::order])
    on.data.qvel[:] = 0.0, 1.0
    live(on, 0.5)
    assert on.data.qvel[1] == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("order", [1, -1])
def test_no_medium_drags_on_what_is_missing(order: int) -> None:
    """The cart alone is slowed down: 1 kg, 0.2 m a side."""
    on = cart(*["damaged_leg:leg=arm,mode=missing", "medium:viscosity=0.5"][::order])
    on.data.qvel[:] = 1.0, 0.0
    live(on, 0.5)
    slowed = math.exp(-3 * math.pi * 0.5 * 0.2 * 0.5)
    assert on.data.qvel[0] == pytest.approx(slowed, rel=0.01)


@pytest.mark.parametrize("robot", [n for n in SIMULATED if CLASSES[n].legs])
def test_the_rest_goes_on_without_a_leg(robot: str) -> None:
    for leg in CLASSES[robot].legs:
        on = make(robot, f"damaged_leg:leg={leg},mode=missing")
        assert np.isfinite(drive(on, 60)).all()
        assert on.time == pytest.approx(60 * on.spec.dt)  # MuJoCo began again nowhere
