"""Episodes on disk, and the windows that training takes from them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbmrl.spec import RobotSpec
from mbmrl.types import Transitions

BRANCH_EVERY = 2
"""Steps of an episode between those at which candidate plans branch off."""
CHANGES = 0.3
"""Share of the windows that are put where the dynamics change within the support. By themselves
they are one in twenty, while an adapting controller is there for the moments after a change."""


class Branches(NamedTuple):
    """Where candidate plans would have led from every other step of e episodes, q steps far.

    Attributes:
        act: what they would have sent.
        obs: what would have been observed; NaN where nobody can say.
    """

    act: Float[np.ndarray, "e k q u"]
    obs: Float[np.ndarray, "e k q o"]


@dataclass(frozen=True)
class Episodes:
    """e episodes of equal length, raw, in SI units.

    Attributes:
        obs: the observations, one more than actions.
        act: the actions really sent.
        onset: the step from which the condition holds; before it the robot is nominal.
        condition: what happened to the robot, e.g. ``"friction:scale=0.3"``; ``""`` nothing.
        branches: what else could have happened; only a simulation knows.
    """

    obs: Float[np.ndarray, "e s o"]
    act: Float[np.ndarray, "e t u"]
    onset: Int[np.ndarray, " e"]
    condition: list[str]
    branches: Branches | None = None

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.condition)

    @property
    def num_transitions(self) -> int:
        """Steps in all."""
        return self.act.shape[0] * self.act.shape[1]

    def transitions(self) -> Transitions:
        """Everything, flat."""
        obs, act = (torch.from_numpy(a).float() for a in (self.obs, self.act))
        return Transitions(*(x.flatten(0, 1) for x in (obs[:, :-1], act, obs[:, 1:])))

    def pick(self, keep: np.ndarray) -> Episodes:
        """Some of them."""
        rows = np.flatnonzero(keep)
        chosen = [self.condition[i] for i in rows]
        branches = self.branches and Branches(*(x[rows] for x in self.branches))
        return Episodes(self.obs[rows], self.act[rows], self.onset[rows], chosen, branches)

    @classmethod
    def joined(cls, parts: Sequence[Episodes]) -> Episodes:
        """Those of all parts; raises ValueError where some have branches and others have none."""
        branches = [p.branches for p in parts if p.branches]
        if len(branches) not in (0, len(parts)):
            raise ValueError(f"only {len(branches)} of {len(parts)} parts have branches")
        return cls(
            np.concatenate([p.obs for p in parts]),
            np.concatenate([p.act for p in parts]),
            np.concatenate([p.onset for p in parts]),
            [c for p in parts for c in p.condition],
            Branches(*map(np.concatenate, zip(*branches, strict=True))) if branches else None,
        )


class Store:
    """A folder of episode files, one a batch of episodes; a file is whole or absent.

    Args:
        folder: made when absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """Names of the batches stored."""
        return sorted(p.stem for p in self.folder.glob("*.npz"))

    def save(self, name: str, episodes: Episodes) -> None:
        """Write a batch; a kill in the middle leaves no half file."""
        part = self.folder / f".{name}.part"
        measured = {"obs": episodes.obs, "act": episodes.act}
        if episodes.branches:
            measured |= {f"branch_{k}": x for k, x in episodes.branches._asdict().items()}
        arrays: dict[str, Any] = {k: x.astype(np.float32) for k, x in measured.items()}
        arrays |= {"onset": episodes.onset, "condition": np.array(json.dumps(episodes.condition))}
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(part, self.folder / f"{name}.npz")

    def load(self, spec: RobotSpec) -> Episodes:
        """All batches as one.

        Raises:
            ValueError: when there are none, or one is not of this robot or damaged.
        """
        names = self.names()
        if not names:
            raise ValueError(f"no episodes in {self.folder}")
        return Episodes.joined([self._read(n, spec) for n in names])

    def _read(self, name: str, spec: RobotSpec) -> Episodes:
        path = self.folder / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                condition = json.loads(str(file["condition"]))
                branches = None
                if "branch_act" in file:
                    branches = Branches(file["branch_act"], file["branch_obs"])
                episodes = Episodes(file["obs"], file["act"], file["onset"], condition, branches)
        except Exception as error:
            raise ValueError(
                f"{path} cannot be read ({error}): delete it and train again"
            ) from error
        if episodes.obs.shape[2:] + episodes.act.shape[2:] != (spec.num_obs, spec.num_act):
            raise ValueError(f"{path} is not of robot {spec.name!r}")
        e, t = episodes.act.shape[:2]
        if episodes.obs.shape[:2] != (e, t + 1) or not len(episodes.onset) == len(episodes) == e:
            raise ValueError(f"{path} is damaged: its arrays do not fit each other")
        if not (np.isfinite(episodes.obs).all() and np.isfinite(episodes.act).all()):
            raise ValueError(f"{path} is damaged: not every number in it is finite")
        return episodes


class Windows:
    """Draws windows of consecutive transitions of one episode.

    The dynamics may change within a support, as they do on a robot that is being adapted to; what
    is asked about belongs to the newest of them.

    Every window is as likely as any other, but for :data:`CHANGES`; and the windows of one draw are
    spread over the conditions, so that none rules a batch by chance, or is missing from it.

    Where a candidate plan branched off at the end of a support, its query is that branch and not
    what happened: a planner asks what else could be done, and a model that fits what was done may
    answer that worse than its prior.

    Args:
        episodes: to draw from.
        spec: gives the mirror symmetry.
        mirror: whether half of the windows are mirrored, where the robot has the symmetry.
    """

    def __init__(self, episodes: Episodes, spec: RobotSpec, *, mirror: bool = True) -> None:
        self.obs = torch.from_numpy(episodes.obs).float()
        self.act = torch.from_numpy(episodes.act).float()
        self.onset = torch.from_numpy(episodes.onset).long()
        happens = np.array([bool(c) for c in episodes.condition]) & (episodes.onset > 0)
        self.changing = torch.from_numpy(np.flatnonzero(happens))
        self.branches = episodes.branches
        of_a_kind = np.argsort(np.array(episodes.condition), kind="stable")
        self.by_condition = torch.from_numpy(of_a_kind)
        order_o, sign_o, order_a, sign_a = spec.mirror_maps()
        self.mirror = mirror and bool(spec.mirror)
        self._obs_map = torch.from_numpy(order_o), torch.from_numpy(sign_o).float()
        self._act_map = torch.from_numpy(order_a), torch.from_numpy(sign_a).float()

    def sample(
        self, rng: torch.Generator, batch: int, support: int, query: int
    ) -> tuple[Transitions, Transitions]:
        """``batch`` windows: their first ``support`` transitions, and ``query`` that follow.

        Raises:
            ValueError: when no episode is long enough.
        """
        length, steps = support + query, self.act.shape[1]
        if steps < length:
            raise ValueError(f"episodes of {steps} steps hold no window of {length}")
        episode, start = self._places(rng, batch, support, length)
        if support > 1 and len(self.changing):
            self._to_changes(rng, episode, start, support, length)
        at = start[:, None] + torch.arange(length + 1)
        obs = self.obs[episode[:, None], at]
        act = self.act[episode[:, None], at[:, :-1]]
        self._branch_off(obs[:, support + 1 :], act[:, support:], episode, start + support)
        if self.mirror:
            flip = torch.rand(batch, generator=rng) < 0.5
            obs[flip] = _mirrored(obs[flip], *self._obs_map)
            act[flip] = _mirrored(act[flip], *self._act_map)
        whole = Transitions(obs[:, :-1], act, obs[:, 1:])
        return (
            Transitions(*(x[:, :support] for x in whole)),
            Transitions(*(x[:, support:] for x in whole)),
        )

    def _branch_off(
        self,
        next_obs: Float[Tensor, "b q o"],
        act: Float[Tensor, "b q u"],
        episode: Int[Tensor, " b"],
        step: Int[Tensor, " b"],
    ) -> None:
        """Put what else could have happened in the place of what did, where that is known."""
        if self.branches is None or self.branches.act.shape[2] < act.shape[1]:
            return
        at = step // BRANCH_EVERY
        found = [torch.from_numpy(x[episode, at, : act.shape[1]]).float() for x in self.branches]
        known = (step % BRANCH_EVERY == 0) & found[1].isfinite().flatten(1).all(1)
        act[known], next_obs[known] = (x[known] for x in found)

    def _places(
        self, rng: torch.Generator, batch: int, support: int, length: int
    ) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
        """Episodes and first steps, drawn until no query holds dynamics that its support lacks.

        Episodes of one condition lie side by side, and each window comes from a part of its own.
        """
        starts = self.act.shape[1] - length + 1
        share = (torch.arange(batch) + torch.rand(batch, generator=rng)) / batch
        last = len(self.onset) - 1
        episode = self.by_condition[(share * len(self.onset)).long().clamp(max=last)]
        start = torch.randint(starts, (batch,), generator=rng)
        for _ in range(1000):
            onset = self.onset[episode]
            told = (start >= onset) | (start + support > onset) | (start + length <= onset)
            if told.all():
                return episode, start
            again = int((~told).sum())
            episode[~told] = torch.randint(len(self.onset), (again,), generator=rng)
            start[~told] = torch.randint(starts, (again,), generator=rng)
        raise ValueError(f"every window of {length} transitions has an onset within its query")

    def _to_changes(
        self,
        rng: torch.Generator,
        episode: Int[Tensor, " b"],
        start: Int[Tensor, " b"],
        support: int,
        length: int,
    ) -> None:
        """Put some of the windows where the dynamics change, anywhere within the support."""
        batch = len(episode)
        other = self.changing[torch.randint(len(self.changing), (batch,), generator=rng)]
        first = self.onset[other] - torch.randint(1, support, (batch,), generator=rng)
        fits = (first >= 0) & (first + length <= self.act.shape[1])
        put = fits & (torch.rand(batch, generator=rng) < CHANGES)
        episode[put], start[put] = other[put], first[put]


def _mirrored(rows: Tensor, order: Tensor, sign: Tensor) -> Tensor:
    return rows[..., order] * sign
