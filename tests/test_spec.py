"""The robot's interface: what a spec refuses, its round trip, what fits what, its mirror."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from mbmrl import registry
from mbmrl.spec import Field, RobotSpec, SpecError

SPEC = RobotSpec(
    name="crab",
    dt=0.1,
    obs=(
        Field("x", "m"),
        Field("y", "m"),
        Field("yaw", "rad", -math.pi, math.pi),
        Field("amp_l", "1", -1, 1),
        Field("vy", "m/s"),
        Field("amp_r", "1", -1, 1),
    ),
    act=(Field("left", "1", -1, 2), Field("right", "1", -1, 2)),
    pose=("x", "y", "yaw"),
    known={"amp_l": {"amp_l": 0.4, "left": 0.6}, "amp_r": {"amp_r": 0.4, "right": 0.6}},
    mirror={
        "y": ("y", -1.0),
        "yaw": ("yaw", -1.0),
        "vy": ("vy", -1.0),
        "amp_l": ("amp_r", 1.0),
        "amp_r": ("amp_l", 1.0),
        "left": ("right", 1.0),
        "right": ("left", 1.0),
    },
    safe_act=(0.5, 0.5),
)


def changed(**fields: Any) -> RobotSpec:
    return dataclasses.replace(SPEC, **fields)


def all_specs() -> list[RobotSpec]:
    return [SPEC, *(registry.load("robots", name).spec for name in registry.names("robots"))]


every_spec = pytest.mark.parametrize("spec", all_specs(), ids=lambda s: s.name)


def test_derived_names_and_vectors() -> None:
    assert (SPEC.num_obs, SPEC.num_act) == (6, 2)
    assert SPEC.state == ["amp_l", "vy", "amp_r"]
    assert SPEC.predicted == ["vy"]
    assert SPEC.index(["vy", "x"]) == [4, 0] and SPEC.index("yaw") == [2]
    np.testing.assert_array_equal(SPEC.act_low, [-1, -1])
    np.testing.assert_array_equal(SPEC.act_high, [2, 2])
    np.testing.assert_array_equal(SPEC.rest, [0.5, 0.5])
    np.testing.assert_array_equal(changed(safe_act=()).rest, [0, 0])


def test_an_unknown_field_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(SpecError, match=r"crab.*'vx'.*amp_l.*vy"):
        SPEC.index("vx")


# --- JSON ----------------------------------------------------------------------------------------


@every_spec
def test_json_round_trip(spec: RobotSpec) -> None:
    back = RobotSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert back == spec
    for mine, theirs in zip(spec.mirror_maps(), back.mirror_maps(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    "damage",
    [
        {"obs": None},
        {"obs": [{"name": "x"}]},
        {"obs": [{"name": "x", "unit": "m", "colour": "red"}]},
        {"obs": "xyz"},
        {"act": 3},
        {"dt": "soon"},
        {"dt": None},
        {"pose": 1},
        {"mirror": [["y", -1]]},
        {"mirror": {"y": ["y"]}},
        {"mirror": {"y": ["y", "minus one"]}},
        {"known": ["amp_l"]},
        {"more": 1},
    ],
    ids=str,
)
def test_anything_else_is_no_spec(damage: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        RobotSpec.from_json({**SPEC.to_json(), **damage})


@pytest.mark.parametrize("missing", ["name", "dt", "obs", "act"])
def test_a_missing_key_is_no_spec(missing: str) -> None:
    data = SPEC.to_json()
    del data[missing]
    with pytest.raises(SpecError, match=missing):
        RobotSpec.from_json(data)


# --- refusals ------------------------------------------------------------------------------------


def test_names_are_unique_over_obs_and_act() -> None:
    with pytest.raises(SpecError, match="unique.*'x'"):
        changed(obs=(Field("x", "m"), *SPEC.obs))
    with pytest.raises(SpecError, match="unique.*'left'"):
        changed(obs=(*SPEC.obs, Field("left", "1")))


@pytest.mark.parametrize(
    "fields",
    [
        {"pose": ("x", "y", "heading")},
        {"known": {"heading": {"x": 1.0}}},
        {"known": {"vy": {"heading": 1.0}}},
        {"mirror": {"heading": ("y", -1.0)}},
        {"mirror": {"y": ("heading", -1.0)}},
    ],
    ids=str,
)
def test_unknown_fields(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="unknown fields.*heading"):
        changed(**fields)


@pytest.mark.parametrize(
    ("low", "high"), [(-math.inf, 1), (-1, math.inf), (math.nan, 1), (1, 1), (1, -1)]
)
def test_actions_need_finite_limits(low: float, high: float) -> None:
    with pytest.raises(SpecError, match="'right' needs finite limits"):
        changed(act=(SPEC.act[0], Field("right", "1", low, high)))


@pytest.mark.parametrize("dt", [0.0, -0.1, math.inf, math.nan])
def test_dt_is_a_positive_time(dt: float) -> None:
    with pytest.raises(SpecError, match="dt is a positive"):
        changed(dt=dt)


def test_pose_and_safe_act_have_their_sizes() -> None:
    with pytest.raises(SpecError, match="pose"):
        changed(pose=("x", "y"))
    with pytest.raises(SpecError, match="safe_act has 1"):
        changed(safe_act=(0.5,))


@pytest.mark.parametrize(
    "mirror",
    [
        {"left": ("right", 1.0)},
        {"left": ("right", 1.0), "right": ("left", -1.0)},
        {"y": ("y", -2.0)},
        {"amp_l": ("left", 1.0), "left": ("amp_l", 1.0)},
    ],
    ids=["one way only", "signs differ", "a scale", "obs with act"],
)
def test_a_mirror_that_is_none_is_refused(mirror: dict[str, tuple[str, float]]) -> None:
    """Half of all training windows go through it: a slip in it spoils a robot without a word."""
    with pytest.raises(SpecError, match="mirror"):
        changed(mirror=mirror)


# --- the symmetry --------------------------------------------------------------------------------


@every_spec
def test_the_mirror_of_the_mirror_is_the_thing_itself(spec: RobotSpec) -> None:
    order_o, sign_o, order_a, sign_a = spec.mirror_maps()
    rng = np.random.default_rng(0)
    for order, sign, size in ((order_o, sign_o, spec.num_obs), (order_a, sign_a, spec.num_act)):
        rows = rng.normal(size=(5, size))
        once = rows[..., order] * sign
        np.testing.assert_array_equal(once[..., order] * sign, rows)
        assert bool(spec.mirror) or (once == rows).all()


def test_mirror_maps_say_what_the_spec_says() -> None:
    order_o, sign_o, order_a, sign_a = SPEC.mirror_maps()
    obs = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    np.testing.assert_array_equal(obs[order_o] * sign_o, [1, -2, -3, 6, -5, 4])
    np.testing.assert_array_equal(np.array([7.0, 8.0])[order_a] * sign_a, [8, 7])


@every_spec
def test_mirroring_commutes_with_what_is_known(spec: RobotSpec) -> None:
    """The controller's own memory is symmetric, too, or the augmented data would contradict it."""
    rng = np.random.default_rng(1)
    names = [*(f.name for f in spec.obs), *(f.name for f in spec.act)]
    values = dict(zip(names, rng.normal(size=len(names)), strict=True))

    def mirrored(v: dict[str, float]) -> dict[str, float]:
        pairs = {n: spec.mirror.get(n, (n, 1.0)) for n in v}
        return {n: v[other] * sign for n, (other, sign) in pairs.items()}

    def following(v: dict[str, float]) -> dict[str, float]:
        return {n: sum(c * v[s] for s, c in row.items()) for n, row in spec.known.items()}

    before, after = mirrored(following(values)), following(mirrored(values))
    assert before == pytest.approx(after)


# --- does a model fit a robot? -------------------------------------------------------------------


def test_a_spec_fits_itself_whatever_its_name_or_limits() -> None:
    SPEC.check_fits(SPEC)
    SPEC.check_fits(changed(name="other", act=tuple(Field(f.name, "1", -9, 9) for f in SPEC.act)))


def test_check_fits_says_what_differs() -> None:
    swapped = changed(name="lobster", obs=(SPEC.obs[1], SPEC.obs[0], *SPEC.obs[2:]))
    with pytest.raises(SpecError, match="'lobster'.*'crab'.*obs has its fields in another"):
        SPEC.check_fits(swapped)
    with pytest.raises(SpecError, match=r"act has left \[1\] here and left \[N\] there$"):
        SPEC.check_fits(changed(act=(Field("left", "N", -1, 1), SPEC.act[1])))
    with pytest.raises(SpecError, match=r"obs.*vy \[m/s\].*vy \[km/h\]"):
        SPEC.check_fits(changed(obs=(*SPEC.obs[:4], Field("vy", "km/h"), SPEC.obs[5])))
    with pytest.raises(SpecError, match=r"^a film is .* nothing else here and vz \[m/s\] there$"):
        SPEC.check_fits(changed(obs=(*SPEC.obs, Field("vz", "m/s"))), "a film")
    with pytest.raises(SpecError, match=r"dt = 0\.05 s, 'crab' runs at 0\.1 s"):
        SPEC.check_fits(changed(dt=0.05))
