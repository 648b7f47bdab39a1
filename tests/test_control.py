"""What the controller does in a period, and what it forgets; without ROS."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from controllers.agent import Agent
from controllers.learned import LearnedModel
from mbmrl.adapters.none import NoAdapter
from mbmrl.control import Control
from mbmrl.dynamics import Dynamics
from mbmrl.ros.steer import TwistTask
from mbmrl.safety import Restarted, Stale, Unsafe
from mbmrl.spec import Field, RobotSpec
from mbmrl.tasks import SpeedTask
from mbmrl.types import CostFn, Plan, RolloutFn
from tests.dummy import SPEC, PointMass


class Wire(PointMass):
    """A robot whose next readings are told, and that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.trouble: list[Exception | float] = []

    def read(self) -> np.ndarray:
        trouble = self.trouble.pop(0) if self.trouble else 0.0
        if isinstance(trouble, Exception):
            raise trouble
        return super().read() + trouble

    def write(self, act: np.ndarray) -> np.ndarray:
        if not np.isfinite(act).all():
            raise Unsafe("a command that is not finite")
        self.told.append("drive")
        return super().write(act)

    def rest(self) -> None:
        self.told.append("rest")

    def again(self) -> None:
        self.told.append("again")

    def await_state(self, seconds: float) -> bool:
        return True


class Push:
    """A planner with one idea."""

    def __init__(self) -> None:
        self.action = torch.tensor([[0.5]])

    def reset(self, num_robots: int = 1) -> None: ...

    def plan(self, obs: Tensor, rollout: RolloutFn, cost: CostFn) -> Plan:
        one = self.action[None]
        nothing = torch.zeros(1)
        future = rollout(obs, one[None])[:, 0]
        return Plan(self.action, one, future, nothing, one, nothing > -1)


@pytest.fixture
def wire() -> Wire:
    return Wire()


def control(wire: Wire, warnings: list[str] | None = None) -> Control:
    dynamics = Dynamics(SPEC, hidden=())
    agent = Agent(LearnedModel(dynamics, NoAdapter(dynamics)), Push(), SpeedTask(SPEC))
    told = [] if warnings is None else warnings
    return Control(wire, agent, lambda *tick: None, told.append, max_bad=3)


def history(it: Control) -> int:
    model = it.agent.model
    assert isinstance(model, LearnedModel)
    return len(model.history)


def test_an_ordinary_run_is_the_loops(wire: Wire) -> None:
    it = control(wire)
    for k in range(6):
        it.tick()
        assert history(it) == k
    assert wire.told == ["drive"] * 6
    assert it.state == "driving" and it.gaps == 0


def test_a_stale_state_rests_at_once_and_the_history_begins_anew(wire: Wire) -> None:
    warnings: list[str] = []
    it = control(wire, warnings)
    for _ in range(5):
        it.tick()
    wire.trouble = [Stale("imu is old"), Stale("imu is old")]
    it.tick()
    it.tick()
    assert wire.told[5:] == ["rest", "rest"]
    assert warnings == ["imu is old"] and it.gaps == 1
    it.tick()
    assert history(it) == 0, "nothing may be learned across the gap"
    it.tick()
    assert history(it) == 1


def test_a_robot_that_begins_anew_again_and_again_rests_meanwhile(wire: Wire) -> None:
    """As one does whose topics restart one after another."""
    it = control(wire)
    for _ in range(5):
        it.tick()
    wire.trouble = [Restarted("the stamps of imu went back"), Restarted("and those of odom")]
    it.tick()
    assert wire.told == ["drive"] * 5 + ["rest"]
    it.tick()
    assert wire.told[6:] == ["drive"]
    assert history(it) == 0


def test_a_robot_that_began_anew_is_driven_on_in_the_same_period(wire: Wire) -> None:
    it = control(wire)
    for _ in range(5):
        it.tick()
    wire.trouble = [Restarted("stamps went back")]
    it.tick()
    assert wire.told == ["drive"] * 6
    assert history(it) == 0


@pytest.mark.parametrize("trouble", [np.nan, np.inf, Unsafe("the position of a is over its limit")])
def test_a_bad_reading_repeats_and_many_rest(wire: Wire, trouble: Exception | float) -> None:
    it = control(wire)
    it.tick()
    wire.trouble = [trouble, 0.0, trouble, trouble, trouble, trouble]
    for _ in range(7):
        it.tick()
    assert wire.told == ["drive", "again", "drive", "again", "again", "rest", "rest", "drive"]
    assert it.bad.total == 5


def test_a_bad_plan_counts_like_a_bad_reading(wire: Wire) -> None:
    it = control(wire)
    it.tick()
    planner = it.agent.planner
    assert isinstance(planner, Push)
    planner.action = torch.tensor([[torch.nan]])
    for _ in range(4):
        it.tick()
    assert wire.told == ["drive", "again", "again", "rest", "rest"]


def test_before_the_first_good_state_there_is_nothing_to_repeat(wire: Wire) -> None:
    wire.trouble = [np.nan, Stale("never came")]
    it = control(wire)
    it.tick()
    it.tick()
    assert wire.told == ["rest", "rest"]


def test_a_latched_stop_rests_whatever_comes(wire: Wire) -> None:
    it = control(wire)
    it.tick()
    it.stop.trip("somebody said so")
    for _ in range(3):
        it.tick()
    assert wire.told[1:] == ["rest"] * 3
    assert "somebody said so" in it.state
    it.stop.release()
    it.tick()
    assert wire.told[-1] == "drive" and history(it) == 0


def test_what_nobody_foresaw_is_raised(wire: Wire) -> None:
    it = control(wire)
    it.tick()
    wire.trouble = [KeyError("a bug")]
    with pytest.raises(KeyError):
        it.tick()


WALKER = RobotSpec(
    name="walker",
    dt=0.1,
    obs=(Field("vx", "m/s"), Field("roll", "rad"), Field("yaw_rate", "rad/s")),
    act=(Field("u", "1", -1, 1),),
)


def test_a_velocity_command_is_what_costs_least() -> None:
    task = TwistTask(WALKER, max_speed=0.5, max_turn=2.0)
    task.steer(0.25, 9.0, -1.0)
    speeds, rates = torch.linspace(-0.5, 0.5, 21), torch.linspace(-2, 2, 21)
    vx, rate = torch.meshgrid(speeds, rates, indexing="ij")
    obs = (
        torch.stack([vx, torch.zeros_like(vx), rate], -1).reshape(1, -1, 1, 3).expand(-1, -1, 4, -1)
    )
    best = task.cost(obs, torch.zeros(1, obs.shape[1], 4, 1)).argmin()
    assert obs[0, best, 0].tolist() == pytest.approx([0.25, 0.0, -1.0], abs=1e-6)
    swaying = obs[:, best : best + 1] + torch.tensor([0.2, -0.2, 0.2, -0.2])[
        :, None
    ] * torch.tensor([1.0, 0.0, 0.0])
    assert task.cost(swaying, torch.zeros(1, 1, 4, 1)).item() == pytest.approx(0.0, abs=1e-6)
    assert task.gain(obs[:, best, 0]).item() == pytest.approx(1.0)


def test_velocity_commands_stay_within_their_limits() -> None:
    task = TwistTask(WALKER, max_speed=0.5, max_turn=2.0)
    task.steer(7.0, 0.0, -7.0)
    assert task.target.tolist() == [0.5, -2.0]


def test_a_robot_without_forward_speed_cannot_be_steered() -> None:
    spec = dataclasses.replace(WALKER, obs=WALKER.obs[1:])
    with pytest.raises(ValueError, match="no obs field"):
        TwistTask(spec, 1.0, 1.0)
