"""The rollout engine contract, and which one this machine gets."""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from typing import ClassVar

from mbmrl.dynamics import Affine, Dynamics, Params
from mbmrl.types import RolloutFn

CHOICE = ("native", "plain")
"""What :func:`best` chooses from, fastest first: float32, and no slower than plain torch."""
ORDER = ("native", "native_bfloat16", "prepacked", "plain")
"""All of them."""
VARIABLE = "MBMRL_ENGINE"
"""Environment variable that asks for an engine by name."""


class EngineError(RuntimeError):
    """An engine that this machine cannot run; the message says why."""


class Engine(ABC):
    """Turns an adapted model into the planner's view of it.

    Packing the weights belongs to :meth:`rollout`, since they change at every tick.

    Raises:
        EngineError: by its constructor, where this machine cannot run it.
    """

    name: ClassVar[str]
    dtype: ClassVar[str] = "float32"

    @abstractmethod
    def rollout(self, dynamics: Dynamics, params: Params) -> RolloutFn:
        """Every candidate of every robot, h steps ahead; in float32, without gradients."""


def of_robot(params: Params, r: int) -> Params:
    """The merged layers of one robot."""
    return [
        Affine(
            layer.weight[r] if layer.weight.dim() == 3 else layer.weight,
            layer.bias[r, 0] if layer.bias.dim() == 3 else layer.bias,
        )
        for layer in params
    ]


def make(name: str) -> Engine:
    """An engine by name.

    Raises:
        EngineError: there is none of that name, or this machine cannot run it.
    """
    # imported here, because each imports this module
    from mbmrl.engines.native import Native, NativeBfloat16
    from mbmrl.engines.plain import Plain
    from mbmrl.engines.prepacked import Prepacked

    engines: dict[str, type[Engine]] = {
        e.name: e for e in (Native, NativeBfloat16, Prepacked, Plain)
    }
    if name not in engines:
        raise EngineError(f"no engine {name!r}: choose from {', '.join(ORDER)}")
    return engines[name]()


@functools.cache
def best() -> Engine:
    """The engine that :data:`VARIABLE` asks for, or the fastest one that runs here.

    Raises:
        EngineError: the one asked for does not run here.
    """
    asked = os.environ.get(VARIABLE)
    if asked:
        return make(asked)
    for name in CHOICE[:-1]:
        try:
            return make(name)
        except EngineError:
            continue
    return make(CHOICE[-1])


def availability() -> dict[str, str]:
    """Each engine's name, and ``yes`` or why not."""
    found = {}
    for name in ORDER:
        try:
            make(name)
            found[name] = "yes"
        except EngineError as error:
            found[name] = str(error)
    return found
