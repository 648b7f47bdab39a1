"""The rollout engine contract, and which one this machine gets."""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from mbmrl.dynamics import Affine, Dynamics, Params
from mbmrl.spec import Field, RobotSpec
from mbmrl.types import RolloutFn

CHOICE = ("native", "plain")
"""What :func:`best` chooses from in float32, fastest first; ``prepacked`` is slower than either."""
CHOICE_BFLOAT16 = ("native_bfloat16", "prepacked_bfloat16", *CHOICE)
"""The same where rounded weights do no harm."""
ORDER = ("native_bfloat16", "native", "prepacked_bfloat16", "prepacked", "plain")
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


def prove(engine: Engine) -> Engine:
    """The engine, after a small rollout that agrees with plain torch's.

    What a compiler or torch's private operators really compute is worth a millisecond's look.

    Raises:
        EngineError: it does not agree, or fails.
    """
    spec = RobotSpec("proof", 0.1, (Field("v", "m/s"),), (Field("f", "N", -1, 1),))
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(0)
        dynamics = Dynamics(spec, (7, 70), "silu")
        obs, acts = torch.randn(1, 1), torch.randn(1, 9, 3, 1)
        expected = dynamics.rollout(dynamics.prior())(obs, acts)
        try:
            said = engine.rollout(dynamics, dynamics.prior())(obs, acts)
        except RuntimeError as error:
            raise EngineError(f"the engine fails on this machine: {error}") from error
    tolerance = 1e-4 if engine.dtype == "float32" else 0.05
    if not torch.allclose(said, expected, rtol=0, atol=tolerance):
        raise EngineError(f"the engine computes something else on this machine: {said - expected}")
    return engine


def require_bfloat16() -> None:
    """Raise :class:`EngineError` where the processor has no instructions for bfloat16 products."""
    if not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        raise EngineError("the processor has no bfloat16 products (AMX or AVX512-BF16)")


def make(name: str) -> Engine:
    """An engine by name.

    Raises:
        EngineError: there is none of that name, or this machine cannot run it.
    """
    # imported here, because each imports this module
    from mbmrl.engines.native import Native, NativeBfloat16
    from mbmrl.engines.plain import Plain
    from mbmrl.engines.prepacked import Prepacked, PrepackedBfloat16

    kinds: tuple[type[Engine], ...] = (
        NativeBfloat16,
        Native,
        PrepackedBfloat16,
        Prepacked,
        Plain,
    )
    engines = {kind.name: kind for kind in kinds}
    if name not in engines:
        raise EngineError(f"no engine {name!r}: choose from {', '.join(ORDER)}")
    return prove(engines[name]())


@functools.cache
def best(*, bfloat16: bool = False) -> Engine:
    """The engine that :data:`VARIABLE` asks for, or the fastest one that runs here.

    Args:
        bfloat16: whether products may be in bfloat16: see :mod:`mbmrl.precision`.

    Raises:
        EngineError: the one asked for does not run here.
    """
    asked = os.environ.get(VARIABLE)
    if asked:
        return make(asked)
    choice = CHOICE_BFLOAT16 if bfloat16 else CHOICE
    for name in choice[:-1]:
        try:
            return make(name)
        except EngineError:
            continue
    return make(choice[-1])


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
