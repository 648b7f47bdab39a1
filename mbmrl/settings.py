"""What is chosen per robot: the network, the window, the planner, how much to train."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from mbmrl.fit import FitConfig


@dataclass(frozen=True)
class Settings:
    """Everything about learning and planning that a robot may want its own value of.

    Attributes:
        adapter: the default adapter.
        network: its kind, ``mlp`` or ``graph``.
        hidden: widths of the network's hidden layers.
        activation: of the network.
        window: transitions of history m that adapting uses.
        planner: name of the planner.
        plan: its keyword arguments, for the learned model.
        true_plan: the same for the true simulator (oracle and nominal), far slower a candidate.
        episode_s: length of a training episode [s].
        babble: episodes of random actions to begin with.
        expert: episodes of the true-simulator planner with noise; 0 where babbling is enough.
        rounds: rounds of collecting with the adapting controller itself.
        on_policy: episodes of each such round.
        lanes: episodes that run side by side.
        fit: the first pooled model; half as many updates in the rounds after it.
        final: how many times as many updates each learner has in the end.
        members: of each learner, trained together as an ensemble; planned with by turns.
        minutes: about how long all this takes on two cores.
        perturbations: what it is trained for and tested on; all that the robot allows when empty.
    """

    adapter: str = "latent_bayes"
    network: str = "mlp"
    hidden: tuple[int, ...] = (128, 128)
    activation: str = "silu"
    window: int = 32
    planner: str = "mppi"
    plan: dict[str, Any] = field(default_factory=dict)
    true_plan: dict[str, Any] = field(default_factory=dict)
    episode_s: float = 12.0
    babble: int = 384
    expert: int = 0
    rounds: int = 3
    on_policy: int = 192
    lanes: int = 48
    fit: FitConfig = field(default_factory=FitConfig)
    final: int = 1
    members: int = 1
    minutes: float = 30.0
    perturbations: tuple[str, ...] = ()

    def scaled(self, minutes: float) -> Settings:
        """The same with data and updates for about so many minutes; raises ValueError if none."""
        if not minutes > 0:
            raise ValueError(f"minutes must be positive, not {minutes:g}")
        share = minutes / self.minutes

        def fewer(count: int, least: int) -> int:
            return max(least, round(count * share)) if count else 0

        return replace(
            self,
            babble=fewer(self.babble, 8),
            expert=fewer(self.expert, 4),
            on_policy=fewer(self.on_policy, 8),
            fit=replace(self.fit, updates=fewer(self.fit.updates, 40)),
        )


BODY = (
    "buoyancy",
    "damaged_joint",
    "damaged_leg",
    "friction",
    "motor_strength",
    "payload",
    "slope",
)
"""What happens to the body of a robot that walks."""
ALL = (
    *BODY,
    "backlash",
    "damping",
    "delay",
    "drift",
    "gravity",
    "medium",
    "miscalibration",
    "sensor_noise",
    "terrain",
    "wind",
)
"""All that there is here: a further kind, registered by whomever, changes no benchmark."""

# Legs swing to and fro within the horizon: a knot a step, and slow noise that is wide enough to
# find a stride at all.
STRIDES = {"horizon": 12, "num_knots": None, "noise_beta": 1.0, "init_std": 1.0}
JOINT_TARGETS = Settings(
    hidden=(256, 256),
    # warm: what is best of all in a model that errs is often the error; the mean of many is not.
    # Five small iterations refine a stride better than three large ones.
    plan=STRIDES | {"horizon": 10, "num_samples": (64, 48, 48, 48, 48), "temperature": 0.3},
    true_plan=STRIDES | {"num_samples": (64, 32, 32, 32, 32)},
    episode_s=10.0,
    babble=192,
    expert=32,
    rounds=2,
    on_policy=144,
    lanes=16,
    fit=FitConfig(updates=5000),
    final=2,
    minutes=45.0,
    perturbations=BODY,
)

GAITS = Settings(
    hidden=(256, 256),
    plan={"num_samples": (64, 48, 32)},
    true_plan={"horizon": 10, "num_samples": (64, 48, 32)},
    rounds=2,
    on_policy=288,
    fit=FitConfig(updates=6000),
    minutes=20.0,
    perturbations=BODY,
)
"""Of robots that walk by themselves, and are told how far each leg steps."""
TORQUES = {"horizon": 12, "num_knots": 6}
FARTHER = {"horizon": 16, "num_knots": 8}

SETTINGS: dict[str, Settings] = {
    "hexapod": replace(
        GAITS,
        plan=GAITS.plan | {"horizon": 20, "num_knots": 5},  # a whole bend of its path
        # ten steps ahead, with weak motors, it sees no way out of standing askew
        true_plan={"horizon": 16, "num_samples": (32, 24)},
        minutes=25.0,
    ),
    "quadruped_gait": GAITS,
    "cheetah": replace(
        JOINT_TARGETS,
        plan=TORQUES | {"num_samples": (96, 64, 64)},
        true_plan=TORQUES | {"num_samples": (64, 48, 48)},
        minutes=35.0,
    ),
    "swimmer": Settings(
        hidden=(256, 256),
        plan=FARTHER | {"num_samples": (96, 64, 64)},
        true_plan=FARTHER | {"num_samples": (64, 64, 64)},
        expert=32,
        rounds=2,
        fit=FitConfig(updates=6000),
        perturbations=ALL,
    ),
    "fish": Settings(
        hidden=(256, 256),
        planner="icem",
        plan={"horizon": 20, "num_samples": (96, 64, 64)},
        true_plan={"horizon": 20, "num_samples": (96, 64, 64)},
        expert=32,
        rounds=2,
        fit=FitConfig(updates=6000),
        perturbations=ALL,
    ),
    "rover": Settings(
        plan={"num_samples": (96, 64, 48)},
        true_plan={"num_samples": (48, 32, 24)},
        perturbations=ALL,
    ),
    "ant": JOINT_TARGETS,
    # farther ahead its model errs too much
    "ant_torque": replace(JOINT_TARGETS, plan=JOINT_TARGETS.plan | {"horizon": 9}),
    # it falls more where it sees less far, or trusts its model more
    "quadruped": replace(
        JOINT_TARGETS,
        plan=STRIDES | {"num_samples": (64, 40, 40, 40, 40), "temperature": 0.45},
    ),
}
SETTINGS["fish_torque"] = SETTINGS["fish"]
# on blocks that give way it takes longer until a stride turns out to have been its last
SETTINGS["pier"] = replace(
    SETTINGS["cheetah"],
    plan=FARTHER | {"num_samples": (96, 64, 64), "temperature": 0.45},
    true_plan=FARTHER | {"num_samples": (64, 48, 48)},
)


def settings_for(robot: str) -> Settings:
    """The robot's own settings, or sensible ones for a robot that has none."""
    return SETTINGS.get(robot, Settings())
