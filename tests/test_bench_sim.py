"""Simulation speed: what is timed is what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from mbmrl import registry
from mbmrl.bench import sim


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim, "STEPS", 2)
    monkeypatch.setattr(sim, "BATCH", 3)


def test_every_way_is_timed_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 3 that takes as long as a robot alone steps three times as many."""
    took = [np.array([2.0, 1.0, 4.0]), np.array([2.0, 1.0, 4.0]), np.array([4.0, 4.0, 4.0])]
    monkeypatch.setattr(sim, "seconds_in_turn", lambda rivals, repeats: took)
    one, batch, twin = sim.bench("cheetah")
    assert [s.through for s in (one, batch, twin)] == ["robot", "batch of 3", "dm_env"]
    assert one.steps_per_s_median == 1.0 and one.steps_per_s_iqr == pytest.approx(0.75)
    assert batch.steps_per_s_median == 3.0
    assert [s.ratio_to_dm_env for s in (one, batch, twin)] == [2.0, 6.0, 1.0]


def test_a_robot_without_a_twin_is_compared_with_none() -> None:
    speeds = sim.bench("hexapod", repeats=1)
    assert [s.through for s in speeds] == ["robot", "batch of 3"]
    assert all(s.ratio_to_dm_env is None and s.steps_per_s_median > 0 for s in speeds)
    assert set(json.loads(json.dumps(speeds[0].to_json()))) == {
        "robot",
        "through",
        "steps_per_s_median",
        "steps_per_s_iqr",
        "ratio_to_dm_env",
    }
    console = Console(width=120, record=True)
    console.print(sim.table(speeds))
    assert "batch of 3" in console.export_text()


@pytest.mark.parametrize("name", [n for n in sim.TWINS if n in registry.names("robots")])
def test_a_twin_simulates_as_much_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dm_control import suite

    made = []
    load = suite.load
    monkeypatch.setattr(suite, "load", lambda *a, **k: made.append(load(*a, **k)) or made[-1])
    dt = registry.load("robots", name).spec.dt
    sim._twin(name, dt)()
    (env,) = made
    assert env.physics.data.time == pytest.approx(2 * dt)
