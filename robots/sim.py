"""The MuJoCo base of every simulated robot: stepping, perturbations by the clock, true rollouts."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import mujoco
import numpy as np
from jaxtyping import Float
from mujoco import rollout as mj_rollout

from robots.base import Robot
from robots.perturbations.base import Perturbation

STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS
"""All that what the simulation does next follows from, besides its controls."""
TOO_FAST = 1e6
"""No robot's joint has ever had such a speed [m/s, rad/s]."""


class Diverged(RuntimeError):
    """The simulation left the numbers that mean anything."""


@dataclass(frozen=True)
class Leg:
    """A limb, as perturbations address it.

    Attributes:
        body: its root body, whose subtree is the leg.
        joints: its driven joints, the one that swings it first.
        side: ``"left"``, ``"right"`` or ``""`` where the robot has no sides.
    """

    body: str
    joints: tuple[str, ...]
    side: str = ""


class SimRobot(Robot):
    """A simulated robot whose perturbations switch on and off with its own clock.

    A subclass gives the model (:meth:`build`), what it measures (:meth:`observe`) and how an
    action becomes servo commands (:meth:`controls`); all three are pure, so the same code
    serves one step and many true-simulator rollouts at once.

    Args:
        perturb: what happens to the robot, each with its onset [s].
        seed: of the initial state.

    Raises:
        PerturbationError: where a perturbation makes no sense on this robot.
    """

    torso: ClassVar[str]
    legs: ClassVar[dict[str, Leg]]

    def __init__(self, perturb: Sequence[Perturbation] = (), seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nominal = self._nominal()
        self.model = self.nominal
        self.substeps = round(self.spec.dt / self.nominal.opt.timestep)
        self._limits = self.spec.act_low, self.spec.act_high
        self.data = mujoco.MjData(self.nominal)
        self.carry = np.zeros(0)
        self.perturb = tuple(perturb)
        self._active: tuple[Perturbation, ...] = ()
        for perturbation in self.perturb:
            perturbation.check(self)

    @classmethod
    @cache
    def _nominal(cls) -> mujoco.MjModel:
        """One compiled nominal model a class; never written to.

        Its solver starts afresh at every step: what the robot does then follows from its state, to
        the last bit, and rollouts show just what stepping does. Where a simulation diverges it is
        left as it is, and not reset: nobody is to take that for a robot at its start. A robot on
        its floor hangs together, so that no time goes into looking for islands.
        """
        model = cls.build()
        off = mujoco.mjtDisableBit
        model.opt.disableflags |= off.mjDSBL_WARMSTART | off.mjDSBL_AUTORESET | off.mjDSBL_ISLAND
        return model

    @classmethod
    @abstractmethod
    def build(cls) -> mujoco.MjModel:
        """The unperturbed model, by :func:`compiled`."""

    @abstractmethod
    def place(self) -> np.ndarray:
        """Put ``data`` into a random initial state with ``rng``; returns the carry (c,)."""

    @abstractmethod
    def observe(
        self,
        qpos: Float[np.ndarray, "*b q"],
        qvel: Float[np.ndarray, "*b v"],
        carry: Float[np.ndarray, "*b c"],
    ) -> Float[np.ndarray, "*b o"]:
        """The observation of a simulator state."""

    @abstractmethod
    def controls(
        self, carry: Float[np.ndarray, "n c"], acts: Float[np.ndarray, "n h u"]
    ) -> tuple[Float[np.ndarray, "n s a"], Float[np.ndarray, "n h c"]]:
        """Servo commands, and the carry after each act.

        Each of the s commands is held for the same number of simulation steps: there may be one a
        control period, one a step, or anything between. The carry is what the command generator
        itself remembers (gait phase, filters).
        """

    # --- the Robot contract -------------------------------------------------------------

    def connect(self) -> None:
        """Start at an initial state."""
        self.reset()

    def reset(self) -> None:
        """Start a new episode at time 0 from a random initial state."""
        self.model = self.nominal
        self._active = ()
        mujoco.mj_resetData(self.model, self.data)
        self.carry = self.place()
        self.data.time = 0.0
        self._switch()
        mujoco.mj_forward(self.model, self.data)

    def read(self) -> Float[np.ndarray, " o"]:
        """The observation now."""
        return self.observe(self.data.qpos, self.data.qvel, self.carry)

    def write(self, act: Float[np.ndarray, " u"]) -> Float[np.ndarray, " u"]:
        """Apply the action within its limits for one control period of simulated time.

        Raises:
            ValueError: for an action of the wrong size or with a non-finite number.
            Diverged: when the simulation blows up.
        """
        sent = self.within_limits(act)
        ctrl, carry = self.controls(self.carry[None], sent[None, None])
        self.move(ctrl[0])
        self.arrive(carry[0, 0])
        return sent

    def stop(self) -> None:
        """Nothing moves in a simulation that is not stepped."""

    # --- the simulation's own ------------------------------------------------------------

    @property
    def time(self) -> float:
        """Simulated time since the reset [s]."""
        return float(self.data.time)

    @property
    def active(self) -> tuple[Perturbation, ...]:
        """The perturbations that act now."""
        return self._active

    def move(self, ctrl: Float[np.ndarray, "s a"], periods: int = 1) -> None:
        """Simulate so many control periods under these servo commands."""
        hold = periods * self.substeps // len(ctrl)
        for command in ctrl:
            self.data.ctrl[:] = command
            mujoco.mj_step(self.model, self.data, hold)

    def arrive(self, carry: Float[np.ndarray, " c"]) -> None:
        """End a control period, whose steps are done.

        Raises:
            Diverged: when the simulation blew up.
        """
        self.carry = carry
        if not sum(map(abs, self.data.qvel.tolist())) < TOO_FAST:  # NaN is not, either
            raise Diverged(f"{self.spec.name}: the simulation diverged at {self.time:.2f} s")
        if self.perturb:
            self._switch()

    def under(self, condition: Sequence[Perturbation]) -> mujoco.MjModel:
        """A model of the robot with these perturbations, whatever acts on it now."""
        model = copy.copy(self.nominal)
        for perturbation in condition:
            perturbation.apply(model, self)
        mujoco.mj_setConst(model, _scratch(type(self)))
        return model

    def true_rollout(
        self, acts: Float[np.ndarray, "n h u"], model: mujoco.MjModel | None = None
    ) -> Float[np.ndarray, "n h o"]:
        """What the true simulator would show under each candidate, from the state it is in.

        Args:
            acts: candidate actions, within limits.
            model: of the robot; with what acts on it now where none is given.
        """
        n, h = acts.shape[:2]
        model = model or self.model
        ctrl, carry = self.controls(np.broadcast_to(self.carry, (n, self.carry.size)), acts)
        ctrl = np.repeat(ctrl, h * self.substeps // ctrl.shape[1], axis=1)
        start = np.empty(mujoco.mj_stateSize(model, STATE))
        mujoco.mj_getState(model, self.data, start, STATE)
        states, _ = mj_rollout.rollout(
            model, _scratch(type(self)), np.broadcast_to(start, (n, start.size)), ctrl
        )
        at = states[:, self.substeps - 1 :: self.substeps]
        qpos = at[..., 1 : 1 + model.nq]
        qvel = at[..., 1 + model.nq : 1 + model.nq + model.nv]
        return self.observe(qpos, qvel, carry).reshape(n, h, -1)

    def within_limits(
        self, act: Float[np.ndarray, "*r u"], *robots: int
    ) -> Float[np.ndarray, "*r u"]:
        """The action as it is sent, or those of so many robots; raises ValueError for no action."""
        act = np.asarray(act, dtype=np.float64)
        low, high = self._limits
        if act.shape != (*robots, *low.shape):
            raise ValueError(
                f"{self.spec.name} takes {self.spec.num_act} actions, not an array of {act.shape}"
            )
        # of so few numbers Python's own sum is the fast one
        if not math.isfinite(sum(act.ravel().tolist())):
            raise ValueError(f"{self.spec.name}: action {act} is not finite")
        return np.minimum(np.maximum(act, low), high)

    def _switch(self) -> None:
        """Rebuild the model from the nominal one when the set of active perturbations changes."""
        now = self.time + 1e-9
        active = tuple(p for p in self.perturb if p.onset <= now < p.until)
        if active == self._active:
            return
        self._active = active
        self.model = self.under(active) if active else self.nominal


def compiled(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """A robot's model with all that perturbations need of the world."""
    return spec.compile()


@cache
def _scratch(robot: type[SimRobot]) -> mujoco.MjData:
    """Work space for rollouts and constants, so that the robot's own data is left alone."""
    return mujoco.MjData(robot._nominal())
