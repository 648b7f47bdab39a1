"""Learning to adapt without a robot: curves from 5 and 10 points, the classic test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich import box
from rich.table import Table

from mbmrl import registry
from mbmrl.adapters.base import Adapter
from mbmrl.data import Episodes, Windows
from mbmrl.dynamics import Dynamics, Params
from mbmrl.fit import FitConfig, fit
from mbmrl.spec import Field, RobotSpec
from mbmrl.types import Transitions

SLIDE = RobotSpec(
    name="slide",
    dt=1.0,
    obs=(Field("x", "m"), Field("y", "m"), Field("yaw", "rad")),
    act=(Field("a", "1", -5.0, 5.0),),
    pose=("x", "y", "yaw"),
)
"""A body that slides by f(a) [m] when it is told a: what it does next tells f, and nothing else."""
HIDDEN = (40, 40)
"""The network of MAML's own sinusoids (arXiv 1703.03400, section 5.1)."""
POINTS = (5, 10)
TASKS, TEST_TASKS, LENGTH, QUERY = 2000, 400, 60, 40
UPDATES = 1500

Curve = Callable[[Float[np.ndarray, "t n"]], Float[np.ndarray, "t n"]]


def sinusoids(rng: np.random.Generator, tasks: int) -> Curve:
    """Amplitudes of 0.1 to 5 and phases of 0 to π, on −5 to 5 (arXiv 1703.03400, section 5.1)."""
    amplitude, phase = rng.uniform(0.1, 5.0, (tasks, 1)), rng.uniform(0.0, np.pi, (tasks, 1))
    return lambda a: amplitude * np.sin(a - phase)


def polynomials(rng: np.random.Generator, tasks: int) -> Curve:
    """Cubics, whose four terms each reach 2 at most at the ends of −5 to 5."""
    terms = rng.uniform(-2.0, 2.0, (tasks, 4, 1))
    return lambda a: sum((terms[:, k] * (a / 5.0) ** k for k in range(4)), np.zeros(()))


FAMILIES = {"sinusoids": sinusoids, "cubics": polynomials}


@dataclass(frozen=True)
class Fitted:
    """One learner on curves that it has not met.

    Attributes:
        adapter: its name.
        curves: one of :data:`FAMILIES`.
        points: that it adapts on.
        error_prior: mean squared error of θ* [m²].
        error_adapted: the same of θ′.
        updates: of its meta-training.
        seed: of everything.
    """

    adapter: str
    curves: str
    points: int
    error_prior: float
    error_adapted: float
    updates: int
    seed: int

    @property
    def factor(self) -> float:
        """How many times smaller adapting makes the error."""
        return self.error_prior / self.error_adapted

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def bench(adapter: str, curves: str, updates: int = UPDATES, seed: int = 0) -> list[Fitted]:
    """Meta-train a learner as every robot's is, and test it on new curves."""
    torch.manual_seed(seed)
    train, held_out, test = (
        episodes(curves, tasks, [seed, k])
        for k, tasks in enumerate((TASKS, TASKS // 10, TEST_TASKS))
    )
    cls = registry.load("adapters", adapter)
    dynamics = Dynamics(SLIDE, HIDDEN)
    dynamics.fit_normaliser(train.transitions())
    trained = registry.load("adapters", cls.trained_as or adapter)(dynamics)
    config = FitConfig(
        updates=updates,
        batch=25,
        window=max(POINTS),
        query=20,
        lr=2e-3,
        check_every=max(1, updates // 20),
    )
    fit([(dynamics, trained)], Windows(train, SLIDE), Windows(held_out, SLIDE), config, seed)
    learner = cls(dynamics)
    learner.load_state_dict(trained.state_dict())
    found = []
    for points in POINTS:
        prior, adapted = errors(dynamics, learner, test, points)
        found.append(Fitted(adapter, curves, points, prior, adapted, updates, seed))
    return found


def episodes(curves: str, tasks: int, seed: Sequence[int]) -> Episodes:
    """One a curve: where the body slides to under actions drawn from −5 to 5."""
    rng = np.random.default_rng(seed)
    curve = FAMILIES[curves](rng, tasks)
    act = rng.uniform(-5.0, 5.0, (tasks, LENGTH))
    obs = np.zeros((tasks, LENGTH + 1, 3))
    obs[:, 1:, 0] = curve(act).cumsum(1)
    names = [f"{curves} {seed} {k}" for k in range(tasks)]
    return Episodes(obs, act[..., None], np.zeros(tasks, dtype=int), names)


@torch.no_grad()
def errors(
    dynamics: Dynamics, adapter: Adapter, test: Episodes, points: int
) -> tuple[float, float]:
    """Mean squared errors of θ* and θ′ [m²], of θ′ from so many points."""
    obs, act = (torch.from_numpy(x).float() for x in (test.obs, test.act))
    whole = Transitions(obs[:, :-1], act, obs[:, 1:])
    support = Transitions(*(x[:, :points] for x in whole))
    query = Transitions(*(x[:, -QUERY:] for x in whole))
    x, wanted = dynamics.inputs(query.obs, query.act), dynamics.changes(query)[..., 0]

    def error(params: Params) -> float:
        said = dynamics.predict(params, x)[..., 0] * dynamics.target_std[0]
        return float((said + dynamics.target_mean[0] - wanted).square().mean())

    return error(dynamics.prior()), error(adapter.adapt(dynamics, support))


def learners() -> list[str]:
    """Every adapter that adapts."""
    return [name for name in registry.names("adapters") if name != "none"]


def table(found: Sequence[Fitted]) -> Table:
    """One line a learner."""
    title = "mean squared error on new curves, before → after adapting (times smaller)"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    cases = [(curves, points) for curves in FAMILIES for points in POINTS]
    shown.add_column("learner")
    for curves, points in cases:
        shown.add_column(f"{curves}, {points} points", justify="right")
    for adapter in dict.fromkeys(f.adapter for f in found):
        own = {(f.curves, f.points): f for f in found if f.adapter == adapter}
        cells = (own[case] for case in cases)
        shown.add_row(
            adapter,
            *(f"{f.error_prior:.2f} → {f.error_adapted:.3f} ({f.factor:.1f})" for f in cells),
        )
    return shown
