"""What happens to a robot: perturbations as text, drawn for training, listed for tests."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from mbmrl import registry
from mbmrl.settings import settings_for
from robots.perturbations.base import Perturbation, PerturbationError, Split
from robots.sim import SimRobot

Condition = tuple[Perturbation, ...]

TIMING = ("onset", "until", "ramp")

SUITE_SEED = 20180330
SUITE_COUNTS = {
    "damaged_leg": 9,
    "damaged_joint": 6,
    "motor_strength": 3,
    "friction": 3,
    "payload": 2,
    "slope": 2,
    "buoyancy": 1,
}
"""How many conditions of each kind a robot's test suite holds, where the robot allows them."""
SUITE_LEAST = 25
"""Filled up with further ones where a robot has few limbs: intervals resample the conditions."""


def parse(text: str, onset: float = 0.0) -> Perturbation:
    """``NAME:key=value,…`` → a perturbation.

    Args:
        text: as users write it.
        onset: when it begins where the text does not say [s].

    Raises:
        UnknownName: for a name that is not registered.
        PerturbationError: for unknown, missing or unreadable values.
    """
    name, _, rest = text.partition(":")
    cls = registry.load("perturbations", name)
    kinds = typing.get_type_hints(cls)
    fields = {f.name: f for f in keys(cls)}
    values: dict[str, object] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals or key not in fields:
            raise PerturbationError(
                f"{name} takes {', '.join(f'{k}=' for k in fields)} not {item!r}"
            )
        if key in values:
            raise PerturbationError(f"{name}: {key} is given twice")
        try:
            values[key] = float(value) if kinds[key] is float else value
        except ValueError:
            raise PerturbationError(f"{name}: {key} is a number, not {value!r}") from None
    missing = [k for k, f in fields.items() if f.default is dataclasses.MISSING and k not in values]
    if missing:
        raise PerturbationError(f"{name} needs {', '.join(f'{k}=' for k in missing)}")
    return typing.cast(Perturbation, cls(**{"onset": onset} | values))


def keys(kind: type[Perturbation]) -> list[dataclasses.Field[Any]]:
    """What a kind of perturbation can be told, its own first, then when."""
    return sorted(dataclasses.fields(kind), key=lambda f: f.name in TIMING)


def text(condition: Sequence[Perturbation], *, timing: bool = False) -> str:
    """The inverse of :func:`parse`, joined by `` + ``; when it acts only on request."""
    return " + ".join(_one(p, timing) for p in condition)


def _one(perturbation: Perturbation, timing: bool) -> str:
    shown = []
    for f in keys(type(perturbation)):
        value = getattr(perturbation, f.name)
        if f.name in TIMING and not timing:
            continue
        if f.name == "scale" and getattr(perturbation, "mode", "weak") != "weak":
            continue
        if value != f.default:
            shown.append(f"{f.name}={value:g}" if isinstance(value, float) else f"{f.name}={value}")
    return perturbation.name + (":" + ",".join(shown) if shown else "")


def allowed(robot: SimRobot) -> list[type[Perturbation]]:
    """The registered perturbations that the robot can be subjected to."""
    return _allowed(type(robot), tuple(registry.names("perturbations")))


def kinds_for(robot: SimRobot) -> list[type[Perturbation]]:
    """What is drawn for the robot and is in its suites: its own list, or all that it allows."""
    own = settings_for(robot.spec.name).perturbations
    return _allowed(type(robot), tuple(sorted(own))) if own else allowed(robot)


@cache
def _allowed(robot: type[SimRobot], names: tuple[str, ...]) -> list[type[Perturbation]]:
    probe, found = robot(), []
    for name in names:
        cls = registry.load("perturbations", name)
        try:
            cls.sample(probe, np.random.default_rng(0), "train").check(probe)
        except PerturbationError:
            continue
        found.append(cls)
    return found


def sample(robot: SimRobot, rng: np.random.Generator, split: Split, count: int) -> Condition:
    """``count`` perturbations at once, drawn from a split's ranges, all from time 0.

    Damage to legs and joints is drawn three times as often as the rest, and can strike two
    places at once: it is what differs most from one place to the next.
    """
    kinds = kinds_for(robot)
    damage = np.array([cls.name.startswith("damaged") for cls in kinds])
    weights = np.where(damage, 3.0, 1.0)
    condition: list[Perturbation] = []
    struck: set[str] = set()
    for _ in range(count):
        i = rng.choice(len(kinds), p=weights / weights.sum())
        for _ in range(20):
            drawn = kinds[i].sample(robot, rng, split)
            if not struck.intersection(drawn.marked_bodies(robot)):
                break
        struck.update(drawn.marked_bodies(robot))
        condition.append(drawn)
        weights[i] *= damage[i]
    return tuple(condition)


def test_suite(robot: SimRobot) -> list[Condition]:
    """The robot's held-out conditions: the same list on every machine, from its test ranges."""
    rng = np.random.default_rng(SUITE_SEED)
    suite: list[Condition] = []
    for cls in kinds_for(robot):
        drawn: dict[tuple[object, ...], Perturbation] = {}
        for _ in range(200):
            perturbation = cls.sample(robot, rng, "test")
            if len(drawn) < SUITE_COUNTS.get(cls.name, 1):
                drawn.setdefault(_what(perturbation), perturbation)
        suite += [(p,) for p in drawn.values()]
    suite += [sample(robot, rng, "test", 2) for _ in range(3)]
    suite = _each_once(robot, suite)
    for _ in range(200):
        if len(suite) < SUITE_LEAST:
            suite = _each_once(robot, [*suite, sample(robot, rng, "test", 1)])
    return suite


def validation_suite(robot: SimRobot) -> list[Condition]:
    """Conditions of the training ranges to choose settings on, never drawn for training itself."""
    rng = np.random.default_rng(SUITE_SEED + 1)
    suite: dict[str, Condition] = {}
    while len(suite) < 30:
        condition = sample(robot, rng, "train", int(rng.integers(1, 3)))
        suite.setdefault(text(condition), condition)
    return list(suite.values())


SUITES: dict[str, Callable[[SimRobot], list[Condition]]] = {
    "test": test_suite,
    "validation": validation_suite,
}
"""What ``--suite`` takes."""


def usual(robot: SimRobot) -> Condition:
    """What happens where nothing else is asked for: the first leg of the test suite that fails."""
    suite = test_suite(robot)
    texts = [text(condition) for condition in suite]
    failed = [i for i, t in enumerate(texts) if t.startswith("damaged_leg") and "weak" not in t]
    return suite[failed[0] if failed else 0]


def _called_once(robot: SimRobot, condition: Condition) -> Condition:
    """The same by the first of its names."""
    return tuple(p.names(robot)[0] for p in condition)


def _each_once(robot: SimRobot, suite: list[Condition]) -> list[Condition]:
    """Without what is there under another name too."""
    suite = list({text(condition): condition for condition in suite}.values())
    there = {text(condition) for condition in suite}
    return [c for c in suite if text(_called_once(robot, c)) not in there - {text(c)}]


def mirror_trained(robot: SimRobot, condition: Sequence[Perturbation]) -> bool:
    """Whether what keeps it out of training is its side or its name alone.

    Such a condition is held out only in name: training mirrors its data, and a leg of one joint
    fails as that joint does.
    """
    places = [p for p in condition if p.held_out(robot)]

    def trained(place: Perturbation) -> bool:
        same = [q for p in place.names(robot) for q in (p, p.mirrored(robot))]
        return not all(p.held_out(robot) for p in same)

    return all(map(trained, places)) and bool(places)


def _what(perturbation: Perturbation) -> tuple[object, ...]:
    """Place, mode and side; the magnitude too where there is nothing else to tell two apart."""
    values = [getattr(perturbation, f.name) for f in dataclasses.fields(perturbation)]
    named = tuple(v for v in values if isinstance(v, str))
    return named or tuple(values)


def starting(condition: Sequence[Perturbation], onset: float) -> Condition:
    """The same condition from ``onset`` [s] on."""
    return tuple(dataclasses.replace(p, onset=onset) for p in condition)
