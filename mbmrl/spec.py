"""What a robot measures and takes: named fields with units and limits, and its control period."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

COMMANDS = ("", "position", "velocity", "effort")


class SpecError(ValueError):
    """Two specs, or a spec and a request, that do not fit each other."""


@dataclass(frozen=True)
class Field:
    """One number that crosses the robot's border.

    Attributes:
        name: unique within its vector, e.g. ``"vx"``.
        unit: SI unit, e.g. ``"m/s"``; ``"1"`` for a pure number.
        low: smallest value the robot takes or can show, in ``unit``.
        high: largest such value, in ``unit``.
        rate: of an action, its largest change a second.
    """

    name: str
    unit: str
    low: float = -math.inf
    high: float = math.inf
    rate: float = math.inf


@dataclass(frozen=True)
class RobotSpec:
    """The interface of a robot, readable while it is disconnected.

    Attributes:
        name: the robot's name.
        dt: control period [s].
        obs: the fields of ``read()``, in order.
        act: the fields of ``write()``, in order, with finite limits.
        pose: names of the obs fields that hold x [m], y [m] and yaw [rad] in the world, or
            empty. The network never sees them: it predicts their change in the body frame,
            and they are integrated outside it.
        known: obs fields whose next value is known exactly because the controller itself
            makes them (gait phase, filtered commands): each is a linear function of obs and
            act fields, ``{field: {obs_or_act_field: coefficient}}``.
        mirror: the left-right symmetry, ``{field: (mirrored field, sign)}`` over obs and act;
            a field that is absent maps to itself. Empty: the robot has no such symmetry.
        tree: the links that joints move, each with the link that carries it, ``""`` for the base.
            A field belongs to the link whose name is part of its own, between underscores.
            Empty: nothing is known of links.
        safe_act: the action that does no harm; zeros when empty.
        command: what an action is to its joint, of :data:`COMMANDS`; ``""`` for anything else.
        stale_after: how old a reading may be before nobody may act on it [s].
    """

    name: str
    dt: float
    obs: tuple[Field, ...]
    act: tuple[Field, ...]
    pose: tuple[str, ...] = ()
    known: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    mirror: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    tree: Mapping[str, str] = field(default_factory=dict)
    safe_act: tuple[float, ...] = ()
    command: str = ""
    stale_after: float = math.inf

    def __post_init__(self) -> None:
        """Refuse a spec that could not be used; raises :class:`SpecError`."""
        names = [f.name for f in (*self.obs, *self.act)]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise SpecError(f"{self.name}: field names must be unique over obs and act: {twice}")
        used = {*self.pose, *self.known, *self.mirror}
        used |= {n for row in self.known.values() for n in row}
        used |= {n for n, _ in self.mirror.values()}
        if used - set(names):
            raise SpecError(f"{self.name}: unknown fields {sorted(used - set(names))}")
        of_obs = {f.name for f in self.obs}
        for name, (other, sign) in self.mirror.items():
            back = self.mirror.get(other, (other, 1.0))
            both_in_one = (name in of_obs) == (other in of_obs)
            if tuple(back) != (name, sign) or abs(sign) != 1 or not both_in_one:
                raise SpecError(f"{self.name}: mirror of {name!r} is not undone by mirroring again")
        above = ["", *self.tree]
        for k, (link, carrier) in enumerate(self.tree.items()):
            if not link or carrier not in above[: k + 1]:
                raise SpecError(f"{self.name}: link {link!r} hangs on {carrier!r}, named before it")
        if len(self.pose) not in (0, 3):
            raise SpecError(f"{self.name}: pose is (x, y, yaw) or empty, not {self.pose}")
        if not (math.isfinite(self.dt) and self.dt > 0):
            raise SpecError(f"{self.name}: dt is a positive number of seconds, not {self.dt}")
        for f in self.act:
            if not (math.isfinite(f.low) and math.isfinite(f.high) and f.low < f.high):
                raise SpecError(f"{self.name}: action {f.name!r} needs finite limits, low < high")
            if not f.rate > 0:
                raise SpecError(f"{self.name}: the rate of {f.name!r} is positive, not {f.rate}")
        if self.safe_act and len(self.safe_act) != len(self.act):
            raise SpecError(f"{self.name}: safe_act has {len(self.safe_act)} values")
        if self.command not in COMMANDS:
            raise SpecError(f"{self.name}: command is one of {COMMANDS}, not {self.command!r}")
        if not self.stale_after > 0:
            raise SpecError(f"{self.name}: stale_after is positive, not {self.stale_after}")

    @property
    def num_obs(self) -> int:
        """Length of the obs vector."""
        return len(self.obs)

    @property
    def num_act(self) -> int:
        """Length of the act vector."""
        return len(self.act)

    @property
    def act_low(self) -> np.ndarray:
        """Lower action limits, shape (u,)."""
        return np.array([f.low for f in self.act], dtype=float)

    @property
    def act_high(self) -> np.ndarray:
        """Upper action limits, shape (u,)."""
        return np.array([f.high for f in self.act], dtype=float)

    @property
    def act_rate(self) -> np.ndarray:
        """Largest changes of the actions a second, shape (u,); inf where there is no limit."""
        return np.array([f.rate for f in self.act], dtype=float)

    @property
    def rest(self) -> np.ndarray:
        """The safe action, shape (u,)."""
        return np.array(self.safe_act or (0.0,) * self.num_act, dtype=float)

    @property
    def state(self) -> list[str]:
        """Names of the obs fields that the network sees: all but the pose."""
        return [f.name for f in self.obs if f.name not in self.pose]

    @property
    def predicted(self) -> list[str]:
        """Names of the obs fields whose change the network predicts: neither pose nor known."""
        return [n for n in self.state if n not in self.known]

    @property
    def turns(self) -> list[str]:
        """Names of the obs fields that go round: the yaw of the pose, and angles from −π to π."""

        def whole(f: Field) -> bool:
            return f.unit == "rad" and math.isclose(f.high - f.low, 2 * math.pi, rel_tol=1e-3)

        return [f.name for f in self.obs if f.name in self.pose[2:] or whole(f)]

    def index(self, names: str | Sequence[str]) -> list[int]:
        """Positions of obs fields; raises :class:`SpecError` with the names there are."""
        order = {f.name: i for i, f in enumerate(self.obs)}
        wanted = [names] if isinstance(names, str) else list(names)
        missing = [n for n in wanted if n not in order]
        if missing:
            raise SpecError(f"{self.name} has no obs field {missing}; it has {list(order)}")
        return [order[n] for n in wanted]

    def link_of(self, name: str) -> str:
        """The link of :attr:`tree` that a field belongs to, the longest that fits; or the base."""
        fits = [link for link in self.tree if f"_{link}_" in f"_{name}_"]
        return max(fits, key=len, default="")

    def mirror_maps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The symmetry as (obs order, obs sign, act order, act sign): ``obs[order] * sign``."""

        def one(fields: tuple[Field, ...]) -> tuple[np.ndarray, np.ndarray]:
            at = {f.name: i for i, f in enumerate(fields)}
            pairs = [self.mirror.get(f.name, (f.name, 1.0)) for f in fields]
            return np.array([at[n] for n, _ in pairs]), np.array([s for _, s in pairs])

        return *one(self.obs), *one(self.act)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that :meth:`from_json` turns back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RobotSpec:
        """The inverse of :meth:`to_json`; raises :class:`SpecError` on anything else."""
        try:
            spec = dict(data)
            for key in ("obs", "act"):
                spec[key] = tuple(Field(**f) for f in spec[key])
            for key in ("pose", "safe_act"):
                spec[key] = tuple(spec[key])
            spec["mirror"] = {k: (v[0], float(v[1])) for k, v in spec["mirror"].items()}
            return cls(**spec)
        except SpecError:
            raise
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise SpecError(f"not a robot spec: {error!r}") from error

    def check_fits(self, other: RobotSpec, what: str = "the recording") -> None:
        """Raise :class:`SpecError`, saying what differs, unless what is for ``other`` fits."""
        for vector in ("obs", "act"):
            mine = [f"{f.name} [{f.unit}]" for f in getattr(self, vector)]
            theirs = [f"{f.name} [{f.unit}]" for f in getattr(other, vector)]
            if mine != theirs:
                here = ", ".join(f for f in mine if f not in theirs) or "nothing else"
                there = ", ".join(f for f in theirs if f not in mine) or "nothing else"
                told = f"has {here} here and {there} there"
                if set(mine) == set(theirs):
                    told = "has its fields in another order"
                raise SpecError(
                    f"{what} is for robot {other.name!r} and does not fit {self.name!r}: "
                    f"{vector} {told}"
                )
        if abs(self.dt - other.dt) > 1e-9:
            raise SpecError(f"{what} has dt = {other.dt} s, {self.name!r} runs at {self.dt} s")


def view(places: Sequence[int]) -> slice | list[int]:
    """The same places as a slice where they follow one another: faster, for nothing is copied."""
    first = places[0] if places else 0
    end = first + len(places)
    return slice(first, end) if list(places) == list(range(first, end)) else list(places)
