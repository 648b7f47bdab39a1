"""One row an episode, as ``mbmrl eval --json`` writes them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEG_AND_MOTOR = ("damaged_leg", "damaged_joint", "motor_strength")


@dataclass(frozen=True)
class Row:
    """One episode; "after the onset" is every tick whose observation the condition shaped.

    Attributes:
        robot: its name.
        perturbation: the condition as text; ``none`` for the undamaged robot.
        mirror_trained: whether its side or its name alone kept the condition out of training.
        agent: what drove.
        path: that was to be followed; empty where there is none.
        episode: its number among those of the same condition, path and agent.
        seed: of the planner and, together with condition and path, of the robot's initial state.
        return_: −Σ cost · dt with the planner's own cost; ``return`` in JSON.
        return_after_onset: the same after the onset.
        score: mean gain after the onset, 1 as wanted.
        cross_track_m: mean distance from the path after the onset [m]; NaN where there is none.
        fell: whether the robot ever fell.
        tick_ms_p50: median time of a decision [ms], see :func:`mbmrl.evaluate.time_alone`.
        tick_ms_p99: its 99th percentile.
        missed_deadlines: how many of the timed decisions took longer than the control period.
        pred_error_prior: mean squared normalised one-step error of θ* after the onset; NaN without
            a learned model.
        pred_error_adapted: the same of the model that planned.
        open_loop_error_prior: mean squared normalised error of θ* over the ten steps it predicts
            open loop.
        open_loop_error_adapted: the same of the model that planned.
        recovery_s: how long after the onset it was back to what it then kept up, see
            :func:`mbmrl.measures.recovery` [s]; NaN where nothing happened, or too late to tell.
    """

    robot: str
    perturbation: str
    mirror_trained: bool
    agent: str
    path: str
    episode: int
    seed: int
    return_: float
    return_after_onset: float
    score: float
    cross_track_m: float
    fell: bool
    tick_ms_p50: float
    tick_ms_p99: float
    missed_deadlines: int
    pred_error_prior: float
    pred_error_adapted: float
    open_loop_error_prior: float
    open_loop_error_adapted: float
    recovery_s: float = math.nan

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; null where a number does not apply."""
        return {
            name.rstrip("_"): None if isinstance(v, float) and not math.isfinite(v) else v
            for name, v in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """The inverse of :meth:`to_json`."""
        values: dict[str, Any] = {k: math.nan if v is None else v for k, v in data.items()}
        row = cls(return_=values.pop("return"), **values)
        kinds = {"str": str, "bool": bool, "int": int, "float": float | int}
        for f in dataclasses.fields(cls):
            if not isinstance(getattr(row, f.name), kinds[str(f.type)]):
                raise TypeError(f"{f.name} is no {f.type}: {getattr(row, f.name)!r}")
        return row


def read_rows(files: Iterable[Path]) -> list[Row]:
    """The rows in files of ``mbmrl eval --json``, or in records of ``mbmrl discriminate``.

    Raises:
        ValueError: where one cannot be read as such, or all are empty.
    """
    rows: list[Row] = []
    for file in files:
        try:
            found = json.loads(file.read_text())
            found = found["rows"] if isinstance(found, dict) else found
            rows += [Row.from_json(row) for row in found]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            told = f"{file} holds no rows of `mbmrl eval --json`: {type(error).__name__}: {error}"
            raise ValueError(told) from error
    if not rows:
        raise ValueError("no rows: name files of `mbmrl eval --json`")
    return rows


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The parts of a suite that a report shows apart, all of it first; none of them empty."""
    kinds = {row.perturbation: _kinds(row.perturbation) for row in rows}
    chosen = {
        "all": kinds,
        "leg and motor damage": [n for n, k in kinds.items() if k <= set(LEG_AND_MOTOR)],
        "mirror image trained": {r.perturbation for r in rows if r.mirror_trained},
        "mirror image not trained": {r.perturbation for r in rows if not r.mirror_trained},
        **{f"without {k}": [n for n in kinds if k not in kinds[n]] for k in _all(kinds)},
    }
    found = {title: [r for r in rows if r.perturbation in some] for title, some in chosen.items()}
    return {t: some for t, some in found.items() if some and (t == "all" or len(some) < len(rows))}


def _kinds(perturbation: str) -> set[str]:
    return {part.partition(":")[0] for part in perturbation.split(" + ")}


def _all(kinds: dict[str, set[str]]) -> list[str]:
    return sorted(set().union(*kinds.values()))
