"""Robots stepped as one do what each would do alone."""

from __future__ import annotations

import numpy as np
import pytest

from mbmrl import conditions, registry
from robots.batch import SimBatch
from robots.sim import Diverged, SimRobot

ROBOTS = [
    name for name in registry.names("robots") if issubclass(registry.load("robots", name), SimRobot)
]


def fleet(name: str) -> list[SimRobot]:
    """A sound robot, and one of each kind that it can be struck by on the way."""
    cls = registry.load("robots", name)
    probe, rng, onset = cls(), np.random.default_rng(0), 3 * cls.spec.dt
    drawn = [kind.sample(probe, rng, "test") for kind in conditions.allowed(probe)]
    struck = [conditions.starting((perturbation,), onset) for perturbation in drawn]
    return [cls(condition, seed) for seed, condition in enumerate([(), *struck])]


def state(robot: SimRobot) -> np.ndarray:
    data = robot.data
    return np.concatenate([[data.time], data.qpos, data.qvel, data.act, robot.carry])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ROBOTS)
def test_each_robot_does_what_it_does_alone_to_the_last_bit(name: str, threads: int) -> None:
    alone, together = fleet(name), fleet(name)
    batch = SimBatch(together, threads)
    for robot in alone:
        robot.reset()
    batch.reset()
    rng = np.random.default_rng(0)
    for _ in range(8):
        act = rng.uniform(
            1.2 * batch.spec.act_low, 1.2 * batch.spec.act_high, (len(alone), batch.spec.num_act)
        )
        sent = batch.write(act)
        np.testing.assert_array_equal(sent, [r.write(a) for r, a in zip(alone, act, strict=True)])
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(state(one), state(other))
            assert one.active == other.active
        np.testing.assert_allclose(batch.read(), [r.read() for r in alone], rtol=0, atol=1e-12)
    assert [bool(r.active) for r in together] == [bool(r.perturb) for r in together]


def test_an_action_that_is_none_moves_no_robot() -> None:
    robots = fleet("cheetah")[:2]
    batch = SimBatch(robots)
    batch.reset()
    for bad in (np.zeros((1, 6)), np.zeros((2, 5)), np.array([np.zeros(6), np.full(6, np.nan)])):
        with pytest.raises(ValueError, match="cheetah"):
            batch.write(bad)
    assert [r.time for r in robots] == [0.0, 0.0]


def test_one_that_blows_up_is_named() -> None:
    robots = fleet("cheetah")[:2]
    batch = SimBatch(robots)
    batch.reset()
    robots[1].data.qvel[0] = np.nan
    with pytest.raises(Diverged, match="cheetah: the simulation diverged"):
        batch.write(np.zeros((2, 6)))
