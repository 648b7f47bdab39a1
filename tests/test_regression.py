"""Every learner on curves from a few points: no robot, no planner, no luck."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mbmrl import registry
from mbmrl.bench import regression
from mbmrl.bench.regression import FAMILIES, POINTS, SLIDE, bench, episodes
from mbmrl.dynamics import Dynamics
from mbmrl.types import Transitions

UPDATES = {"maml_scalar": 600, "maml_layer": 600, "learned_optimizer": 600, "reptile": 600}
"""Of those that have a rate to find first, or no gradient to find their way by; 300 for others."""
SLOW = {"context": 1.05, "recurrent": 1.05, "learned_optimizer": 1.05, "reptile": 1.1}
"""How many times smaller adapting makes the error of those that take thousands; 1.3 for others."""


@pytest.mark.parametrize("curves", FAMILIES)
def test_the_body_slides_by_the_curve(curves: str) -> None:
    some = episodes(curves, 20, [0, 1])
    curve = FAMILIES[curves](np.random.default_rng([0, 1]), 20)
    moved = np.diff(some.obs[..., 0], axis=1)
    np.testing.assert_allclose(moved, curve(some.act[..., 0]), atol=1e-9)
    assert not some.obs[..., 1:].any() and np.abs(some.act).max() <= 5.0
    dynamics = Dynamics(SLIDE, (4,))
    raw = Transitions(
        *(torch.from_numpy(x).float() for x in (some.obs[:, :-1], some.act, some.obs[:, 1:]))
    )
    torch.testing.assert_close(
        dynamics.changes(raw)[..., 0], torch.from_numpy(moved).float(), atol=1e-3, rtol=1e-3
    )


def test_what_is_tested_was_not_trained_on() -> None:
    texts = [episodes("sinusoids", 5, [0, k]).condition for k in range(3)]
    assert len({t for some in texts for t in some}) == 15


@pytest.mark.parametrize("name", registry.names("adapters"))
def test_adapting_to_a_few_points_pays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "TASKS", 500)
    few, more = bench(name, "sinusoids", UPDATES.get(name, 300))
    assert (few.points, more.points) == POINTS
    if name == "none":
        assert few.factor == more.factor == 1.0
        return
    assert more.factor > SLOW.get(name, 1.3), few
    assert more.error_adapted <= few.error_adapted * 1.05
