"""Put a controller together by name: model, planner and task for one robot or several."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import mujoco
import numpy as np

from controllers.agent import Agent, Model, TrueModel
from controllers.auto import Auto
from controllers.base import Planner, SamplingPlanner
from controllers.committee import Committee, Curious
from controllers.ensemble import Ensemble
from controllers.learned import LearnedModel
from controllers.robust import Robust
from controllers.scripted import Babble, Rest
from controllers.several import Several
from mbmrl import checkpoint as checkpoints
from mbmrl import conditions, registry, tasks
from mbmrl.checkpoint import Checkpoint, CheckpointError, Learner
from mbmrl.conditions import Condition
from mbmrl.engines import base as engines
from mbmrl.settings import Settings, settings_for
from mbmrl.spec import RobotSpec
from robots.base import Robot
from robots.perturbations.base import Perturbation
from robots.sim import SimRobot

AGENTS: dict[str, str] = {
    "default": "the adapting controller with the checkpoint's default adapter",
    "alert": "the default adapter, its history cut where the robot seems to have changed",
    "auto": "all learners of the checkpoint, each robot driven by the one that errs least",
    "ensemble": "the default learner's members (`train --members`), all asked about every plan",
    "curious": "the same, which tries what they do not agree about right after a change",
    "frozen": "the same prior and planner, adaptation switched off",
    "pooled": "a model of the same data and updates, no meta-learning and no adaptation",
    "random": "the default adapter with random shooting instead of the planner",
    "oracle": "the same planner on the true, perturbed simulator",
    "nominal": "the same planner on the unperturbed simulator",
    "robust": "the same planner for the mean cost over the unperturbed simulator and four faults",
    "zero": "the safe action, always",
    "babble": "random actions that the robot can follow",
}
"""What ``--agents`` takes, besides the name of any adapter."""
ON_THE_SIMULATOR = ("oracle", "nominal", "robust")
"""Agents that plan on the true simulator."""
SCRIPTED = ("zero", "babble")
"""Agents that look at no model."""
PESSIMISM = 0.5
"""Standard deviations of the cost that an ensemble's disagreement costs."""
BONUS = 0.3
"""What the usual disagreement is worth to the curious, in the same measure."""
FAULTS, FAULTS_SEED = 4, 20180330
"""What ``robust`` reckons with, see :func:`faults`."""


def make_planner(
    spec: RobotSpec,
    settings: Settings,
    name: str | None = None,
    *,
    true: bool = False,
    seed: int = 0,
) -> SamplingPlanner:
    """The robot's planner, or another by name, for its learned model or for the true simulator."""
    options = settings.true_plan if true else settings.plan
    if name not in (None, settings.planner):
        options = {"horizon": options["horizon"]} if "horizon" in options else {}
    cls: type[SamplingPlanner] = registry.load("planners", name or settings.planner)
    if np.isfinite(spec.act_rate).any():
        options = {"max_change": spec.act_rate * spec.dt, **options}
    return cls(spec.act_low, spec.act_high, spec.rest, seed=seed, **options)


def make_agent(
    name: str,
    robots: Sequence[Robot],
    checkpoint: Checkpoint | None,
    paths: Sequence[str],
    *,
    planner: str | None = None,
    seed: int = 0,
) -> Agent:
    """An agent of :data:`AGENTS`, or one with the adapter of that name.

    Args:
        name: of the agent.
        robots: of one kind; only those :data:`ON_THE_SIMULATOR` look into them.
        checkpoint: needed by every agent that has a learned model.
        paths: one a robot, of what its task can be told to do (``tasks.COURSES``).
        planner: another than the robot's own.
        seed: of the planner's random numbers.

    Raises:
        UnknownName: for a name that is neither agent nor adapter.
        ValueError: for one :data:`ON_THE_SIMULATOR` of a robot that is not simulated, or a missing
            checkpoint.
    """
    spec = robots[0].spec
    settings = settings_for(spec.name)
    task = task_for(type(robots[0]), paths)
    if planner:  # refuses an unknown one, whoever may have no use for it
        registry.load("planners", planner)
    if name in SCRIPTED:
        return Agent(TrueModel([]), Rest(spec) if name == "zero" else Babble(spec, seed), task)
    if name in ON_THE_SIMULATOR:
        simulated = [r for r in robots if isinstance(r, SimRobot)]
        if len(simulated) < len(robots):
            raise ValueError(f"agent {name!r} needs a simulated robot, {spec.name} is none")

        def truth(model: mujoco.MjModel | None) -> TrueModel:
            return TrueModel([partial(r.true_rollout, model=model) for r in simulated])

        chooses: Planner = make_planner(spec, settings, planner, true=True, seed=seed)
        if name == "robust":
            models = [simulated[0].under(fault) for fault in faults(simulated[0])]
            rollouts = [truth(model).rollout() for model in models]
            chooses = Robust(chooses, lambda: rollouts)
        return Agent(truth(None if name == "oracle" else simulated[0].nominal), chooses, task)
    if checkpoint is None:
        raise ValueError(f"agent {name!r} needs a checkpoint")
    plan_with = "random" if name == "random" else planner
    model = learned_model(name, checkpoint)
    chooses = make_planner(spec, settings, plan_with, seed=seed)
    return Agent(model, asking(model, chooses, name), task)


def asking(model: Model, planner: SamplingPlanner, name: str) -> Planner:
    """The planner, asking a committee's members all, as the agent of that name does."""
    if not isinstance(model, Committee):
        return planner
    if name == "ensemble":
        return Robust(planner, model.others, PESSIMISM)
    scale = model.models[0].dynamics.obs_scale()
    return Curious(planner, model, scale, BONUS, PESSIMISM)


def faults(robot: SimRobot) -> list[Condition]:
    """The single faults that ``robust`` reckons with, each at another place.

    From the training ranges, the same on every machine; limbs and joints come first.
    """
    rng = np.random.default_rng(FAULTS_SEED)
    kinds = conditions.kinds_for(robot)
    damage = [kind for kind in kinds if kind.name.startswith("damaged")]
    drawn: dict[tuple[str, ...], Perturbation] = {}
    for some in (damage, kinds):
        for _ in range(100 * bool(some)):
            fault = some[rng.integers(len(some))].sample(robot, rng, "train")
            drawn.setdefault(fault.marked_bodies(robot) or (fault.name,), fault)
    return [(fault,) for fault in list(drawn.values())[:FAULTS]]


def task_for(robot: type[Robot], paths: Sequence[str]) -> tasks.Task:
    """The task of as many such robots as there are paths: its own, or the one that they are of.

    Raises:
        ValueError: for a name that is no course of its, or courses of several tasks at once.
    """
    known = tasks.offered(robot.task, robot.spec)
    if set(known) == {""} and any(paths):
        raise ValueError(f"{robot.spec.name} follows no path")
    for path in paths:
        if path not in known:
            raise registry.unknown("path", path, list(known))
    task, *others = {known[path]: path for path in paths}
    if others:
        raise ValueError(f"{', '.join(paths)} are of several tasks: {', '.join((task, *others))}")
    return tasks.make(task, robot.spec, paths, robot.speed, robot.size)


def checkpoint_for(agent: str, spec: RobotSpec, folder: Path | None) -> Checkpoint | None:
    """The checkpoint that an agent needs, if it needs one.

    Raises:
        UnknownName: neither an agent nor an adapter has this name.
        CheckpointError: there is none, or it is damaged or does not fit.
    """
    known = [*AGENTS, *registry.names("adapters")]
    if agent not in known:
        raise registry.unknown("agent or adapter", agent, known)
    return None if agent in (*ON_THE_SIMULATOR, *SCRIPTED) else checkpoints.for_robot(spec, folder)


def learned_model(name: str, checkpoint: Checkpoint) -> LearnedModel | Several:
    """The learned model behind an agent's name."""
    engine = engines.best(bfloat16=checkpoint.takes_bfloat16)

    def model(learner: Learner, *, gate: bool = True, cuts: bool = False) -> LearnedModel:
        return LearnedModel(*learner, checkpoint.window, engine, gate=gate, cuts=cuts)

    if name == "auto":
        first = {name for name in checkpoint.learners if "#" not in name}  # of each ensemble
        others = sorted(first - {"none", checkpoint.default})
        learners = [checkpoint.learner(adapter) for adapter in (checkpoint.default, *others)]
        return Auto([model(learner) for learner in learners])
    if name in ("ensemble", "curious"):
        members = checkpoint.members(checkpoint.default)
        if len(members) == 1:
            raise CheckpointError(
                f"agent {name!r} needs an ensemble: make one with `mbmrl train --members 4`"
            )
        return Committee([model(member, cuts=name == "curious") for member in members])
    if name == "frozen":
        models = [model(member, gate=False) for member in checkpoint.frozen()]
    elif name == "pooled":
        models = [model(member, gate=False) for member in checkpoint.members("none")]
    else:
        adapter = checkpoint.default if name in ("default", "random", "alert") else name
        models = [model(member, cuts=name == "alert") for member in checkpoint.members(adapter)]
    return models[0] if len(models) == 1 else Ensemble(models)
