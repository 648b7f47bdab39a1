"""bfloat16 is used where it does no harm, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mbmrl import checkpoint as checkpoints
from mbmrl import compose, registry
from mbmrl.checkpoint import SAME_ORDER, Checkpoint
from mbmrl.collect import Job, collect
from mbmrl.data import Windows
from mbmrl.precision import Rounded, rank_correlation
from mbmrl.settings import settings_for
from robots.hexapod import Hexapod

SHIPPED = checkpoints.shipped()


def recorded(robot: str) -> Windows:
    """A few episodes of its own, no matter what the checkpoint was trained on."""
    job = Job(robot, Path(), 0, settings_for(robot), registry.load("robots", robot).spec)
    spec = registry.load("robots", robot).spec
    return Windows(collect(job, "babble", 4, [7]), spec, mirror=False)


@pytest.mark.parametrize("robot", SHIPPED)
def test_reference_checkpoints_say_truly_that_candidates_keep_their_order(robot: str) -> None:
    cls = registry.load("robots", robot)
    shipped = checkpoints.for_robot(cls.spec, None)
    rank = rank_correlation(shipped, recorded(robot), cls)
    assert shipped.takes_bfloat16 == (rank >= SAME_ORDER)


def test_a_model_that_rounding_harms_is_found_out() -> None:
    """Its first layer lives on small differences between large numbers."""
    shipped = checkpoints.for_robot(Hexapod.spec, None)
    dynamics, _ = shipped.learner(shipped.default)
    with torch.no_grad():
        dynamics.biases[0].add_(1000.0)
        dynamics.weights[1].mul_(0.1)
        dynamics.biases[1].sub_(1000.0 * dynamics.weights[1].sum(0))
    assert rank_correlation(shipped, recorded("hexapod"), Hexapod) < SAME_ORDER


def test_rounding_is_felt_but_small() -> None:
    shipped = checkpoints.for_robot(registry.load("robots", "hexapod").spec, None)
    dynamics, _ = shipped.learner("none")
    obs, acts = torch.zeros(1, shipped.spec.num_obs), torch.rand(1, 5, 3, 6) * 2 - 1
    exact = dynamics.rollout(dynamics.prior())(obs, acts)
    off = (Rounded().rollout(dynamics, dynamics.prior())(obs, acts) - exact).abs().max()
    assert 0 < off < 0.05


@pytest.mark.parametrize(("rank", "allowed"), [(0.0, False), (0.99, False), (0.999, True)])
def test_the_engine_is_chosen_by_what_the_checkpoint_takes(
    rank: float, allowed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []
    monkeypatch.setattr(compose.engines, "best", lambda *, bfloat16: asked.append(bfloat16))
    found = checkpoints.for_robot(registry.load("robots", "hexapod").spec, None)
    found.bfloat16_rank = rank
    found.save(tmp_path)
    back: Checkpoint = checkpoints.load(tmp_path)
    assert back.bfloat16_rank == rank
    compose.learned_model("default", back)
    assert asked == [allowed]


def test_rank_does_not_depend_on_where_the_robot_is() -> None:
    """Costs of a path that is metres away would hide every difference between candidates."""
    shipped = checkpoints.for_robot(registry.load("robots", "hexapod").spec, None)
    near = recorded("hexapod")
    far = recorded("hexapod")
    far.obs[..., shipped.spec.index(["x", "y"])] += np.float32(50.0)
    ranks = [rank_correlation(shipped, windows, Hexapod) for windows in (near, far)]
    assert ranks[0] == pytest.approx(ranks[1], abs=1e-4)
