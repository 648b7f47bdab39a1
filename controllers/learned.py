"""The model that learns while the robot moves: adapted at every tick, and judged."""

from __future__ import annotations

from collections import deque

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from controllers.history import History
from controllers.surprise import Surprise
from mbmrl.adapters.base import Adapter, Recursive, State
from mbmrl.dynamics import Dynamics, Params
from mbmrl.engines.base import Engine
from mbmrl.engines.plain import Plain
from mbmrl.meta import HORIZON, normalised
from mbmrl.params import and_prior, gated
from mbmrl.types import RolloutFn, Transitions

GATE_MEMORY = 0.8
"""Share of its record that the gate keeps from tick to tick: a model that comes and goes with every
noisy judgement is hard to plan with."""
GATE_MARGIN = 0.7
"""θ′ must foresee clearly better: where it is as good as θ*, θ* is the steadier one."""
WORST = 10.0
"""Normalised errors count so many deviations at most: a tumble must not outweigh an episode."""


class LearnedModel:
    """The dynamics model, adapted anew at every tick, always from the prior.

    A recursive adapter's state is kept from tick to tick; any other one reads the window.

    The gate: θ′ is used for a robot only where it foresees each transition, BEFORE it is fitted to
    it, clearly better than θ*, on the average over the last ticks. One step ahead, and not more:
    a leg that dies leaves a few tenths of a second until the robot lies there.

    Args:
        dynamics: the prior θ*.
        adapter: window → θ′.
        window: length of the history m.
        engine: rolls θ′ out; plain torch where none is given.
        gate: whether there is one; else θ′ is used from the first transition on.
        cuts: whether the history is cut where a robot surprises as if it had become another.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        adapter: Adapter,
        window: int = 32,
        engine: Engine | None = None,
        *,
        gate: bool = True,
        cuts: bool = False,
    ) -> None:
        self.dynamics, self.adapter = dynamics.dense(), adapter
        self.gate, self.engine = gate, engine or Plain()
        self._looks_back, self._adapts = False, True
        self.history = History(window)
        self.surprise = Surprise() if cuts else None
        self._info: dict[str, Tensor] = {}
        self._record: Tensor | None = None
        self._state: State | None = None
        self._fitted = self.dynamics.prior()
        self._used: deque[Params] = deque(maxlen=HORIZON)

    def look_back(self) -> None:
        """Have :meth:`info` tell the errors over the last :data:`HORIZON` steps too.

        That takes longer than adapting: for reports, not for a robot.
        """
        self._looks_back = True

    def switch(self, adapting: bool) -> None:
        """Plan with θ* alone, or adapt again; it keeps watching either way."""
        self._adapts = adapting

    def reset(self) -> None:
        """Clear the window: nothing survives into the next episode, or over a gap."""
        self.history.clear()
        self._used.clear()
        self._info, self._record, self._state = {}, None, None
        if self.surprise:
            self.surprise.reset()

    @torch.no_grad()
    def observe(self, transition: Transitions) -> None:
        """Add to the window, and ask how well the transition was foreseen."""
        self.history.append(transition)
        self._info = self._foreseen()
        if isinstance(self.adapter, Recursive):
            if self._state is None:
                self._state = self.adapter.begin(self.dynamics, (len(transition.act),))
            self._state = _sound(
                self._state, self.adapter.step(self.dynamics, self._state, transition)
            )
        if self.surprise and self._used:
            self._cut(self.surprise)

    def rollout(self) -> RolloutFn:
        """Adapt and roll out."""
        return self.engine.rollout(self.dynamics, self.adapted())

    @torch.no_grad()
    def adapted(self) -> Params:
        """The layers to plan with now: θ′, or θ* where the gate is shut."""
        prior, self._fitted = self.dynamics.prior(), self._adapted()
        if not self.gate:
            self._used.append(self._fitted)
        elif self._record is None:
            self._used.append(prior)
        else:
            self._used.append(gated(prior, self._fitted, self._info["gate"]))
        return self._used[-1]

    def info(self) -> dict[str, Tensor]:
        """Errors of prior and adapted model on the newest transitions; the gate's state.

        One step ahead; where it looks back, open loop over the last steps with the model of then.
        """
        return self._info

    def doubt(self) -> Float[Tensor, " r"] | None:
        """How badly it has foreseen the last ticks; None until that was judged."""
        if self._record is None:
            return None
        adapted, prior = self._record
        return torch.where(self._info["gate"], adapted, prior)

    def _adapted(self) -> Params:
        if not (self._adapts and len(self.history)):
            return self.dynamics.prior()
        if isinstance(self.adapter, Recursive) and self._state is not None:
            return self.adapter.params(self.dynamics, self._state)
        return self.history.adapted(self.adapter, self.dynamics)

    def _judge(self, newest: Transitions) -> Bool[Tensor, " r"]:
        """Whether θ′ has erred less than θ* lately, by a margin; neither has seen the newest."""
        twice = Transitions(*(torch.cat([x, x]) for x in newest))
        errors = self._error(and_prior(self._fitted, self.dynamics.prior()), twice)
        errors = errors.unflatten(0, (2, -1)).nan_to_num(WORST**2)
        before = errors if self._record is None else self._record
        self._record = GATE_MEMORY * before + (1 - GATE_MEMORY) * errors
        return self._record[0] < GATE_MARGIN * self._record[1]

    def _error(self, params: Params, stretch: Transitions) -> Float[Tensor, " r"]:
        """Open loop from the first observation of a stretch to the end of it."""
        roll = self.engine.rollout(self.dynamics, params)
        future = roll(stretch.obs[:, 0], stretch.act[:, None])
        error = normalised(self.dynamics, future, stretch.next_obs[:, None])
        return _mean_square(error[:, 0])

    def _foreseen(self) -> dict[str, Tensor]:
        """How well the newest transition was foreseen, and what that says of θ′."""
        if not self._used:
            return {}
        prior, newest = self.dynamics.prior(), self.history.newest(1)
        x, y = self.dynamics.inputs(newest.obs, newest.act), self.dynamics.targets(newest)
        both = and_prior(self._used[-1], prior)
        said = self.dynamics.predict(both, torch.cat([x, x])).unflatten(0, (2, -1))
        adapted, unadapted = (_mean_square(s - y) for s in said)
        info = {"pred_error_prior": unadapted, "pred_error_adapted": adapted}
        if self.gate:
            info["gate"] = self._judge(newest)
        if self._looks_back and len(self.history) >= len(self._used) == HORIZON:
            stretch = self.history.newest(HORIZON)
            for which, params in (("prior", prior), ("adapted", self._used[0])):
                info[f"open_loop_error_{which}"] = self._error(params, stretch)
        return info

    def _cut(self, surprise: Surprise) -> None:
        """Drop what was before a change of the dynamics, for each robot that changed."""
        newest = surprise.newest(self._info["pred_error_adapted"])
        self._info["changed"] = newest > 0
        for robot in torch.nonzero(newest).flatten().tolist():
            window = self.history.cut(robot, int(newest[robot]))
            if isinstance(self.adapter, Recursive) and self._state is not None:
                own = self.adapter.follow(self.dynamics, window)
                at = torch.tensor([robot])
                pairs = zip(self._state, own, strict=True)
                self._state = tuple(kept.index_copy(0, at, anew) for kept, anew in pairs)


def _mean_square(error: Float[Tensor, "r m t"]) -> Float[Tensor, " r"]:
    return error.clamp(-WORST, WORST).square().mean((-2, -1))


def _sound(before: State, after: State) -> State:
    """The state after a transition; the one before it where that made no numbers of it."""
    fine = torch.stack([x.flatten(1).isfinite().all(1) for x in after]).all(0)
    pairs = zip(before, after, strict=True)
    return tuple(torch.where(fine[(...,) + (None,) * (b.dim() - 1)], a, b) for b, a in pairs)
