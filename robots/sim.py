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
from robots.perturbations.base import TERRAIN, TERRAIN_CELLS, Perturbation

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


@dataclass
class _Acting:
    """A perturbation while it acts.

    Attributes:
        cause: as it was asked for.
        actuators: what its :meth:`~Perturbation.actuate` remembers; None: it has none.
        sensors: the same of :meth:`~Perturbation.sense`.
    """

    cause: Perturbation
    actuators: np.ndarray | None
    sensors: np.ndarray | None


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
        self.noise = np.random.default_rng([seed, 1])  # not rng: it must not move the start
        self.nominal = self._nominal()
        self.model = self.nominal
        self.substeps = round(self.spec.dt / self.nominal.opt.timestep)
        self._limits = self.spec.act_low, self.spec.act_high
        self.data = mujoco.MjData(self.nominal)
        # asked anew, the data would take half a microsecond for each
        self._qpos, self._qvel, self._ctrl = self.data.qpos, self.data.qvel, self.data.ctrl
        self.carry = np.zeros(0)
        self.perturb = tuple(perturb)
        self.came: dict[float, Float[np.ndarray, " 2"]] = {}
        """Where the torso was at each onset so far, x and y [m]."""
        self._acting: dict[int, _Acting] = {}
        self._grown: list[Perturbation] = []
        self._copy: _Copy | None = None
        self._sensed: np.ndarray | None = None
        for perturbation in self.perturb:
            perturbation.check(self)

    @classmethod
    @cache
    def _nominal(cls) -> mujoco.MjModel:
        """One compiled nominal model a class; never written to.

        Its solver starts afresh at every step: what the robot does then follows from its state, to
        the last bit, and rollouts show just what stepping does. Where a simulation diverges it is
        left as it is, and not reset: nobody is to take that for a robot at its start. A robot on
        its floor hangs together and consists of few geoms: no time goes into looking for islands,
        nor into trees of the boxes around geoms.
        """
        model = cls.build()
        off = mujoco.mjtDisableBit
        model.opt.disableflags |= off.mjDSBL_WARMSTART | off.mjDSBL_AUTORESET
        model.opt.disableflags |= off.mjDSBL_ISLAND | off.mjDSBL_MIDPHASE
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
        self._acting, self._grown, self.came = {}, [], {}
        mujoco.mj_resetData(self.model, self.data)
        self.carry = self.place()
        self.data.time = 0.0
        mujoco.mj_kinematics(self.model, self.data)
        self._switch()
        mujoco.mj_forward(self.model, self.data)
        self._sensed = None

    def read(self) -> Float[np.ndarray, " o"]:
        """What the sensors tell now; the same however often it is called.

        A fault of theirs shows from the first control step after its onset on: what is read at the
        onset itself, at the reset too, is still the truth.
        """
        return self.truth() if self._sensed is None else self._sensed.copy()

    def truth(self) -> Float[np.ndarray, " o"]:
        """The observation now, through sensors without a fault."""
        return self.observe(self._qpos, self._qvel, self.carry)

    def measured(self) -> Float[np.ndarray, " p"]:
        """Of the truth, the fields that sensors measure: see :meth:`Perturbation.sense`."""
        return self.truth()[self.spec.index(self.spec.predicted)]

    def write(self, act: Float[np.ndarray, " u"]) -> Float[np.ndarray, " u"]:
        """Apply the action within its limits for one control period of simulated time.

        It returns what a driver knows to have sent: that the actuators hear it late, or with
        play, is not for the driver to know.

        Raises:
            ValueError: for an action of the wrong size or with a non-finite number.
            Diverged: when the simulation blows up.
        """
        sent = self.within_limits(act)
        ctrl, carry = self.controls(self.carry[None], sent[None, None])
        self.move(self.hear(ctrl)[0])
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
        return tuple(acting.cause for acting in self._acting.values())

    @property
    def alone(self) -> bool:
        """Whether what acts on it now has to be looked after within a control period."""
        kept = any(acting.actuators is not None for acting in self._acting.values())
        return kept or any(p.changing for p in self._grown)

    @property
    def misled(self) -> bool:
        """Whether its sensors tell anything but the truth now."""
        return self._sensed is not None

    def hear(self, ctrl: Float[np.ndarray, "1 s a"]) -> Float[np.ndarray, "1 _ a"]:
        """What the actuators hear of one control period's commands, to be moved by next."""
        if not self._acting:
            return ctrl
        heard, memories = self._heard(ctrl, 1)
        for acting, memory in memories:
            acting.actuators = memory[0]
        return heard

    def move(self, ctrl: Float[np.ndarray, "s a"], periods: int = 1) -> None:
        """Simulate so many control periods under what the actuators hear."""
        changing = self._grown and any(p.changing for p in self._grown)
        if changing:
            ctrl = np.repeat(ctrl, periods * self.substeps // len(ctrl), axis=0)
        hold = periods * self.substeps // len(ctrl)
        for k in range(len(ctrl)):  # an array's own iteration ends with an exception, slowly
            self._ctrl[:] = ctrl[k]
            mujoco.mj_step(self.model, self.data, hold)
            if changing:
                self._apply()

    def arrive(self, carry: Float[np.ndarray, " c"]) -> None:
        """End a control period, whose steps are done.

        Raises:
            Diverged: when the simulation blew up.
        """
        self.carry = carry
        if not sum(map(abs, self._qvel.tolist())) < TOO_FAST:  # NaN is not, either
            raise Diverged(f"{self.spec.name}: the simulation diverged at {self.time:.2f} s")
        if self.perturb:
            self._sense()  # by what acted so far: an onset changes nothing that was before it
            self._switch()

    def under(self, condition: Sequence[Perturbation]) -> mujoco.MjModel:
        """A model of the robot with these perturbations, whatever acts on it now."""
        model = copy.copy(self.nominal)
        for perturbation in condition:
            perturbation.at(math.inf).apply(model, self)
        mujoco.mj_setConst(model, _scratch(type(self)))
        return model

    def true_rollout(
        self, acts: Float[np.ndarray, "n h u"], model: mujoco.MjModel | None = None
    ) -> Float[np.ndarray, "n h o"]:
        """What the true simulator would show under each candidate, from the state it is in.

        Sensors tell the truth here.

        Args:
            acts: candidate actions, within limits.
            model: of the robot, with sound actuators; what acts on it now where none is given.
        """
        n, h = acts.shape[:2]
        ctrl, carry = self.controls(np.broadcast_to(self.carry, (n, self.carry.size)), acts)
        if model is None:
            model = self.model
            ctrl, _ = self._heard(ctrl, h)
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
        if act.shape != robots + low.shape:
            raise ValueError(
                f"{self.spec.name} takes {self.spec.num_act} actions, not an array of {act.shape}"
            )
        # of so few numbers Python's own sum is the fast one
        if not math.isfinite(sum(act.ravel().tolist())):
            raise ValueError(f"{self.spec.name}: action {act} is not finite")
        kept = np.maximum(act, low)
        return np.minimum(kept, high, out=kept)

    def _switch(self) -> None:
        """Let act what is due, as far as it has grown."""
        if not self.perturb:
            return
        now = self.time + 1e-9
        acting = {}
        for i, cause in enumerate(self.perturb):
            if cause.onset <= now < cause.until:
                acting[i] = self._acting.get(i) or self._begin(cause)
        self._acting = acting
        grown = [one.cause.at(now) for one in acting.values()]
        if grown != self._grown:
            self._grown = grown
            self._apply()

    def _begin(self, cause: Perturbation) -> _Acting:
        mujoco.mj_kinematics(self.model, self.data)
        self.came.setdefault(cause.onset, self.data.body(self.torso).xpos[:2].copy())
        full = cause.at(math.inf)
        return _Acting(cause, full.actuator_memory(self), full.sensor_memory(self))

    def _apply(self) -> None:
        """Make the model anew from the nominal one."""
        if not self._grown:
            self.model = self.nominal
            return
        mujoco.mj_kinematics(self.model, self.data)  # some perturbations ask where the robot is
        self._copy = self._copy or _Copy(self.nominal)
        self.model = self._copy.restored()
        for perturbation in self._grown:
            perturbation.apply(self.model, self)
        mujoco.mj_setConst(self.model, _scratch(type(self)))

    def _heard(
        self, ctrl: Float[np.ndarray, "n s a"], periods: int
    ) -> tuple[Float[np.ndarray, "n _ a"], list[tuple[_Acting, Float[np.ndarray, "n _"]]]]:
        """What the actuators hear of these commands, and what each perturbation then remembers.

        Where one acts on them it is told the command of every simulation step.
        """
        memories = []
        for acting, grown in zip(self._acting.values(), self._grown, strict=True):
            if acting.actuators is not None:
                ctrl = np.repeat(ctrl, periods * self.substeps // ctrl.shape[1], axis=1)
                memory = np.broadcast_to(acting.actuators, (len(ctrl), acting.actuators.size))
                ctrl, memory = grown.actuate(memory, ctrl)
                memories.append((acting, memory))
        return ctrl, memories

    def _sense(self) -> None:
        """Read the sensors, where they do not tell the truth."""
        self._sensed = None
        for acting, grown in zip(self._acting.values(), self._grown, strict=True):
            if acting.sensors is not None:
                if self._sensed is None:
                    self._sensed = self.truth()
                told = self.spec.index(self.spec.predicted)
                self._sensed[told], acting.sensors = grown.sense(
                    acting.sensors, self._sensed[told], self.noise
                )


def compiled(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """A robot's model with all that perturbations need of the world, none of which acts yet.

    A floor gets a height field beside it, which nothing touches and nobody sees. Cameras and
    sensors of its own, which would be followed at every step, it needs none.
    """
    for thing in (*spec.sensors, *spec.cameras):
        spec.delete(thing)
    plane = mujoco.mjtGeom.mjGEOM_PLANE
    floors = [g for g in spec.worldbody.geoms if g.type == plane and (g.contype or g.conaffinity)]
    if floors:
        spec.add_hfield(
            name=TERRAIN,
            nrow=TERRAIN_CELLS,
            ncol=TERRAIN_CELLS,
            size=[1.0, 1.0, 1.0, 1.0],
            userdata=np.zeros(TERRAIN_CELLS**2),
        )
        spec.worldbody.add_geom(
            name=TERRAIN,
            type=mujoco.mjtGeom.mjGEOM_HFIELD,
            hfieldname=TERRAIN,
            contype=1,  # for now: what never collides at first never can
            conaffinity=1,
            rgba=[0, 0, 0, 0],
        )
    model = spec.compile()
    if floors:
        ground = model.geom(TERRAIN)
        for name in ("friction", "priority", "condim", "solref", "solimp", "matid"):
            of_geom = getattr(model, f"geom_{name}")
            of_geom[ground.id] = of_geom[floors[0].id]
        ground.contype = ground.conaffinity = 0
    return model


def turn_body(body: mujoco.MjsBody, angle: float) -> None:
    """Turn all that a body is made of and carries about its z axis [rad], so that it faces x.

    The body's own frame and joints stay.
    """
    frame = body.add_frame(quat=(math.cos(angle / 2), 0, 0, math.sin(angle / 2)))
    for thing in (*body.geoms, *body.sites, *body.cameras, *body.lights, *body.bodies):
        thing.set_frame(frame)


PHYSICS = tuple("actuator_ body_ dof_ eq_ geom_ hfield_ jnt_ pair_ qpos site_ tendon_".split())
"""How the fields of a model begin that perturbations may write to, beside its options."""


class _Copy:
    """A model that can be made nominal again much faster than by another copy.

    A copy takes along every picture: milliseconds.
    """

    def __init__(self, nominal: mujoco.MjModel) -> None:
        self.model, self.nominal = copy.copy(nominal), nominal
        self.options = [name for name in dir(nominal.opt) if not name.startswith("_")]
        fields = [name for name in dir(nominal) if name.startswith(PHYSICS)]
        self.arrays = [(getattr(self.model, f), getattr(nominal, f)) for f in fields]

    def restored(self) -> mujoco.MjModel:
        """The model with nominal values."""
        for own, nominal in self.arrays:
            own[...] = nominal
        for name in self.options:
            setattr(self.model.opt, name, getattr(self.nominal.opt, name))
        return self.model


@cache
def _scratch(robot: type[SimRobot]) -> mujoco.MjData:
    """Work space for rollouts and constants, so that the robot's own data is left alone."""
    return mujoco.MjData(robot._nominal())
