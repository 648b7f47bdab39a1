"""Trained priors and adapters on disk: a config.json and a weights.safetensors, never a pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from mbmrl import registry
from mbmrl.adapters.base import Adapter
from mbmrl.adapters.none import NoAdapter
from mbmrl.dynamics import Dynamics
from mbmrl.graph import NETWORKS
from mbmrl.spec import RobotSpec, SpecError

FORMAT = 1
SAME_ORDER = 0.995
"""Rank correlation of candidates from which on rounding counts as harmless."""
Learner: TypeAlias = tuple[Dynamics, Adapter]
"""A prior, and what adapts it."""
SHIPPED = Path(__file__).parent / "checkpoints"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or not for this robot."""


@dataclass
class Checkpoint:
    """Every learner that was trained on one body of data.

    Attributes:
        spec: of the robot.
        default: name of the default adapter.
        window: longest history that the learners were trained on.
        learners: adapter name → its prior and its adapter; ``none`` is the pooled model. Further
            members of an ensemble are ``bayes#1``, ``bayes#2`` and so on.
        training: how it was made: command, seed, data, updates, losses.
        bfloat16_rank: how well candidate plans keep their order in bfloat16, see
            :mod:`mbmrl.precision`; 0 where nobody looked.
    """

    spec: RobotSpec
    default: str
    window: int
    learners: dict[str, Learner]
    training: dict[str, Any] = field(default_factory=dict)
    bfloat16_rank: float = 0.0

    @property
    def takes_bfloat16(self) -> bool:
        """Whether products in bfloat16 do it no harm."""
        return self.bfloat16_rank >= SAME_ORDER

    def learner(self, adapter: str) -> Learner:
        """The prior and adapter of that name; of an ensemble, its first member.

        An adapter without a prior of its own (``rls``) takes the one that it names.

        Raises:
            UnknownName: for an adapter that does not exist.
            CheckpointError: for one that this checkpoint was not trained for.
        """
        return self.members(adapter)[0]

    def members(self, adapter: str) -> list[Learner]:
        """All members of that name's ensemble, or its one learner; raises as :meth:`learner`."""
        if adapter in self.learners:
            names = (member_name(adapter, i) for i in range(len(self.learners)))
            return [self.learners[name] for name in names if name in self.learners]
        cls = registry.load("adapters", adapter)
        if cls.trained_as in self.learners:
            return [_borrowed(cls, *pair) for pair in self.members(cls.trained_as)]
        raise CheckpointError(
            f"this checkpoint has no learner for adapter {adapter!r}, only "
            f"{', '.join(sorted(self.learners))}: "
            f"train one with --adapter {cls.trained_as or adapter}"
        )

    def frozen(self) -> list[Learner]:
        """The default adapter's prior, or all members' priors, with adaptation off."""
        return [(prior, NoAdapter(prior)) for prior, _ in self.members(self.default)]

    def save(self, folder: Path) -> None:
        """Write both files; a kill in the middle leaves the old ones."""
        folder.mkdir(parents=True, exist_ok=True)
        some = next(iter(self.learners.values()))[0]
        config = {
            "format": FORMAT,
            "spec": self.spec.to_json(),
            "default": self.default,
            "window": self.window,
            "network": some.kind,
            "hidden": some.hidden,
            "activation": some.activation,
            "learners": sorted(self.learners),
            "training": self.training,
            "bfloat16_rank": self.bfloat16_rank,
        }
        tensors = {
            f"{name}/{part}/{key}": value.contiguous()
            for name, modules in self.learners.items()
            for part, module in zip(("prior", "adapter"), modules, strict=True)
            for key, value in module.state_dict().items()
        }
        # its own way to write a file makes one that nobody else may read
        (folder / ".weights.part").write_bytes(save(tensors))
        (folder / ".config.part").write_text(json.dumps(config, indent=1))
        os.replace(folder / ".weights.part", folder / "weights.safetensors")
        os.replace(folder / ".config.part", folder / "config.json")


def load(folder: Path, robot: str = "NAME") -> Checkpoint:
    """Read a checkpoint.

    Args:
        folder: of the checkpoint.
        robot: name in its spec, where that is known: for the error's sake.

    Raises:
        CheckpointError: when it is missing or damaged, saying which file and what to do.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"no checkpoint in {folder}: make one with {_making(robot, folder)}")
    try:
        config = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "weights.safetensors")
        if config["format"] != FORMAT:
            raise CheckpointError(
                f"{folder} has format {config['format']}, this version reads {FORMAT}"
            )
        spec = RobotSpec.from_json(config["spec"])
        learners = {}
        for name in config["learners"]:
            network = NETWORKS[config.get("network", Dynamics.kind)]
            dynamics = network(spec, tuple(config["hidden"]), config["activation"])
            adapter = registry.load("adapters", name.partition("#")[0])(dynamics)
            for part, module in (("prior", dynamics), ("adapter", adapter)):
                _fill(module, tensors, f"{name}/{part}/")
            learners[name] = (dynamics, adapter)
        made = Checkpoint(
            spec,
            str(config["default"]),
            int(config["window"]),
            learners,
            dict(config["training"]),
            float(config.get("bfloat16_rank", 0.0)),
        )
        made.learner(made.default)
        return made
    except CheckpointError:
        raise
    except (
        OSError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        SafetensorError,
        SpecError,
    ) as error:
        raise CheckpointError(f"the checkpoint in {folder} is damaged: {error}") from error


def member_name(adapter: str, member: int) -> str:
    """``bayes``, ``bayes#1``, ``bayes#2`` and so on."""
    return f"{adapter}#{member}" if member else adapter


def _borrowed(cls: type[Adapter], dynamics: Dynamics, trained: Adapter) -> Learner:
    adapter = cls(dynamics)
    adapter.load_state_dict(trained.state_dict())
    return dynamics, adapter


def _fill(module: nn.Module, tensors: dict[str, Any], prefix: str) -> None:
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    module.load_state_dict(own)
    bad = [k for k, v in own.items() if not v.isfinite().all()]
    if bad:
        raise ValueError(f"{prefix}{bad[0]} is not finite")


def shipped() -> list[str]:
    """Robots that a reference checkpoint is shipped for."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))


def for_robot(spec: RobotSpec, folder: Path | None) -> Checkpoint:
    """The checkpoint in ``folder``, or the shipped one, checked to fit the robot.

    Raises:
        CheckpointError: when there is none, or it does not fit.
    """
    if folder is None and spec.name not in shipped():
        raise CheckpointError(
            f"no reference checkpoint is shipped for {spec.name!r}, only for {_listed(shipped())}: "
            f"make one with {_making(spec.name, 'DIR')} and pass --checkpoint DIR"
        )
    checkpoint = load(folder if folder is not None else SHIPPED / spec.name, spec.name)
    try:
        spec.check_fits(checkpoint.spec, "the checkpoint")
    except SpecError as error:
        raise CheckpointError(str(error)) from error
    return checkpoint


def _making(robot: str, out: Path | str) -> str:
    """The command that makes a checkpoint; a robot that no name leads to is recorded first."""
    if robot == "NAME" or robot in registry.names("robots"):
        return f"`mbmrl train --robot {robot} --out {out}`"
    return f"`mbmrl record` and then `mbmrl train --data RECORDINGS --out {out}`"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
