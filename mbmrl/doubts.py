"""What is suspicious about a robot's numbers: units, limits, sensors that stand still."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mbmrl.spec import Field, RobotSpec

PLAUSIBLE = {
    "m": 1e4,
    "rad": 8 * math.pi,
    "m/s": 50.0,
    "rad/s": 60.0,
    "m/s²": 200.0,
    "m/s^2": 200.0,
    "N": 1e4,
    "N m": 2e3,
    "A": 300.0,
    "V": 1e3,
    "1": 1e3,
}
"""Sizes that hardly any reading of a robot in these SI units goes beyond: motors seldom turn faster
than 60 rad/s behind a gear, while 60 °/s is a lazy joint."""
NOT_SI = {"deg", "degree", "degrees", "°", "rpm", "mm", "cm", "g", "ms", "%", "ticks", "mA", "mV"}
FACTORS = {180 / math.pi: "degrees for radians", 1000.0: "milli for whole units"}
BESIDE = 1.6
"""A factor that is so near one of :data:`FACTORS` is taken for it."""
SAME = 0.5
"""What is so in a larger share of the readings than this is so most of the time."""
MOVING = 0.01
"""Slower than this [rad/s, m/s], nothing can be said about a rate."""
USUAL = 80
"""The percentile that stands for how fast something moves when it moves."""


class Doubt(NamedTuple):
    """Something suspicious.

    Attributes:
        text: what.
        sure: whether it contradicts the spec, rather than being merely unlikely.
    """

    text: str
    sure: bool = True


def of_spec(spec: RobotSpec) -> list[Doubt]:
    """What is suspicious before anything is measured."""
    found = [
        Doubt(f"{f.name}: the unit {f.unit!r} is none of SI's")
        for f in (*spec.obs, *spec.act)
        if NOT_SI & set(re.split(r"[ /·*^]", f.unit))
    ]
    outside = [f.name for f, x in zip(spec.act, spec.rest, strict=True) if not f.low <= x <= f.high]
    if outside:
        found.append(Doubt(f"the safe action lies outside the limits of {', '.join(outside)}"))
    return found


def of_field(field: Field, values: Float[np.ndarray, " t"]) -> list[Doubt]:
    """What is suspicious about one field by itself; two values at least."""
    return [Doubt(f"{field.name} {text}", sure) for text, sure in _alone(field, values)]


def _alone(field: Field, values: Float[np.ndarray, " t"]) -> Iterator[tuple[str, bool]]:
    finite = values[np.isfinite(values)]
    if len(finite) < len(values):
        yield f"is not finite in {1 - len(finite) / len(values):.1%} of the readings", True
    if not len(finite):
        return
    if len(finite) > 1 and np.ptp(finite) == 0:
        yield f"never changes from {finite[0]:g} {field.unit}", False
    slack = 1e-6 * max(1.0, abs(field.low) if math.isfinite(field.low) else 1.0)
    out = (finite < field.low - slack) | (finite > field.high + slack)
    if out.any():
        limits = f"{field.low:g} to {field.high:g} {field.unit}"
        yield f"leaves its limits of {limits} in {out.mean():.1%} of the readings", True
    size, most = float(np.abs(finite).max()), PLAUSIBLE.get(field.unit, math.inf)
    if size > most:
        yield f"reaches {size:.3g} {field.unit}: is it in another unit?", False


def of_rates(spec: RobotSpec, obs: Float[np.ndarray, "t o"]) -> list[Doubt]:
    """Fields whose change from reading to reading is not what their own rate field says.

    A rate is a field named after another one (``hip`` and ``hip_rate``, ``hip_vel`` or ``dhip``),
    in its unit a second.
    """
    order, found = {f.name: f for f in spec.obs}, list[Doubt]()
    for name, field in order.items():
        for rate in (f"{name}_rate", f"{name}_vel", f"{name}_velocity", f"d{name}"):
            if rate not in order or order[rate].unit != f"{field.unit}/s":
                continue
            of, by = (obs[:, spec.index(n)[0]] for n in (name, rate))
            if not np.isfinite(of[1:] - of[:-1]).any() or not np.isfinite(by[1:] + by[:-1]).any():
                continue
            change, middle = np.diff(of) / spec.dt, (by[1:] + by[:-1]) / 2
            # not the mean: an angle that wraps jumps
            moved, told = (float(np.nanpercentile(np.abs(x), USUAL)) for x in (change, middle))
            if min(moved, told) < MOVING:
                continue
            # what swings to and fro from reading to reading says nothing of its direction
            slow_enough = np.nanmean(np.sign(by[1:] * by[:-1])) > 0
            factor = max(moved / told, told / moved)
            names = [n for f, n in FACTORS.items() if f / BESIDE < factor < f * BESIDE]
            if factor > 8:
                hint = f": {names[0]}?" if names else ""
                text = f"{name} changes {moved / told:.3g} times as fast as {rate} says{hint}"
                found.append(Doubt(text, sure=bool(names)))
            elif slow_enough and np.nanmean(np.sign(change * middle)) < -SAME:
                found.append(Doubt(f"{name} moves against {rate}: is one of them turned round?"))
    return found


def of_readings(spec: RobotSpec, obs: Float[np.ndarray, "t o"]) -> list[Doubt]:
    """Everything suspicious about consecutive readings."""
    if len(obs) < 2:
        return []
    found = [
        doubt for f, values in zip(spec.obs, obs.T, strict=True) for doubt in of_field(f, values)
    ]
    same = float((obs[1:] == obs[:-1]).all(1).mean())
    if same > SAME and np.nanmax(np.ptp(obs, axis=0)) > 0:
        text = f"{same:.0%} of the readings are the last one again: a stale sensor?"
        found.append(Doubt(text, sure=False))
    return found + of_rates(spec, obs)
