"""The rollout in C++: built once with the machine's compiler, then loaded from a cache."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.cpp_extension import include_paths, library_paths

from mbmrl.dynamics import CLAMP, Affine, Dynamics, Params, integrate
from mbmrl.engines import base
from mbmrl.engines.base import Engine, EngineError
from mbmrl.types import RolloutFn

SOURCE = Path(__file__).with_name("rollout.cpp")
BLOCK = 128
"""Candidates that go through the whole horizon together: their activations fit into the cache."""
FLAGS = {
    "AVX2": ["-mavx2", "-mfma", "-mf16c"],
    "AVX512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mf16c"],
}
"""Compiler flags, by torch's name of what the processor can do."""


class Native(Engine):
    """C++: a block of candidates at a time through all layers and steps.

    Attributes:
        multiples: inputs, and outputs of each layer, are padded with zeros to a multiple of these.
    """

    name: ClassVar[str] = "native"
    dtype: ClassVar[str] = "float32"

    def __init__(self) -> None:
        extension()
        self.multiples = 1, torch.ops.mbmrl.lanes()

    def rollout(self, dynamics: Dynamics, params: Params) -> RolloutFn:
        """See :class:`Engine`."""
        poses = len(dynamics.pose_at)
        layers, width = [], _padded(dynamics.input_mean.numel(), self.multiples[0])
        for i, layer in enumerate(params):
            last = i == len(params) - 1
            weight, bias = _layer(dynamics, layer.merged(), last=last)
            out = _padded(weight.shape[-1], self.multiples[1])
            layers.append(self._packed(_pad(weight, (width, out)), _pad(bias, (out,))))
            width = out
        spec = (
            dynamics.activation,
            dynamics.input_mean,
            1 / dynamics.input_std,
            CLAMP,
            dynamics.carry_over,
            torch.tensor(dynamics.predicted_at),
            poses,
            BLOCK,
        )

        def roll(obs: Float[Tensor, "r o"], acts: Float[Tensor, "r n h u"]) -> Tensor:
            futures = []
            for r, (now, act) in enumerate(zip(obs[:, dynamics.state_view], acts, strict=True)):
                own = [(w[min(r, len(w) - 1)], b[min(r, len(b) - 1)]) for w, b in layers]
                weights, biases = zip(*own, strict=True)
                state = now.expand(len(act), -1).contiguous()
                futures.append(
                    torch.ops.mbmrl.roll(state, act.contiguous(), weights, biases, *spec)
                )
            motion, states = torch.stack(futures).split([poses, len(dynamics.state_at)], -1)
            if not poses:
                return states[..., dynamics.fields_view]
            pose = integrate(obs[:, None, dynamics.pose_view].expand(-1, acts.shape[1], -1), motion)
            return torch.cat([pose, states], -1)[..., dynamics.fields_view]

        return roll

    def _packed(
        self, weight: Float[Tensor, "r i o"], bias: Float[Tensor, "r o"]
    ) -> tuple[list[Tensor], Float[Tensor, "r o"]]:
        """One layer's weights as the products want them, one or one a robot, and its biases."""
        typed = weight.to(getattr(torch, self.dtype))
        return [torch.ops.mbmrl.pack(w) for w in typed], bias.contiguous()


class NativeBfloat16(Native):
    """The same with products in bfloat16, for processors that have them (AMX, AVX512-BF16).

    The state is summed up in float32.
    """

    name: ClassVar[str] = "native_bfloat16"
    dtype: ClassVar[str] = "bfloat16"

    def __init__(self) -> None:
        base.require_bfloat16()
        super().__init__()
        if not torch.ops.mbmrl.has_bfloat16():
            raise EngineError("this torch packs no bfloat16 weights on this processor")
        self.multiples = 32, 64


def _layer(
    dynamics: Dynamics, layer: Affine, *, last: bool
) -> tuple[Float[Tensor, "r i o"], Float[Tensor, "r o"]]:
    """A layer, one for all robots or one each; the last one gives SI units."""
    weight, bias = layer.weight, layer.bias
    if last:
        weight = weight * dynamics.target_std
        bias = bias * dynamics.target_std + dynamics.target_mean
    return weight.reshape(-1, *weight.shape[-2:]), bias.reshape(-1, weight.shape[-1])


def _pad(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Zeros behind the last axes, up to these sizes."""
    if x.shape[-len(sizes) :] == sizes:
        return x
    more = [
        n for size, have in zip(sizes[::-1], x.shape[::-1], strict=False) for n in (0, size - have)
    ]
    return torch.nn.functional.pad(x, more)


def _padded(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple


@functools.cache
def extension() -> Path:
    """Load the extension, built first where this machine has not built it yet.

    Built with one call of the compiler into a temporary file, which is then renamed: there is no
    lock that a killed process could leave behind, and two processes at once do no harm.

    Raises:
        EngineError: there is no compiler, or it failed; a failure is remembered, with its output.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    known = capability if capability in FLAGS else "DEFAULT"
    flags = ["-std=c++20", "-O3", "-shared", "-fPIC", *FLAGS.get(known, [])]
    flags += [f"-DCPU_CAPABILITY={known}", f"-DCPU_CAPABILITY_{known}"]
    flags += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    mark = hashlib.sha256(SOURCE.read_bytes() + " ".join(flags).encode()).hexdigest()[:12]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mbmrl"
    path = home / f"rollout-{torch.__version__}-{mark}.so"
    failed = path.with_suffix(".failed")
    if failed.exists():
        raise EngineError(f"the compiler failed, see {failed}; delete it to try again")
    if not path.exists():
        _build(flags, path, failed)
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise EngineError(f"{path} cannot be loaded: {error}") from error
    return path


def _build(flags: list[str], path: Path, failed: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise EngineError("no C++ compiler: install g++ for plans that take half as long")
    print("Building the rollout engine, once: about 20 s.", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    command = [compiler, *flags, str(SOURCE), "-o", str(part), "-ltorch", "-ltorch_cpu", "-lc10"]
    command += [f"-I{p}" for p in include_paths()] + [f"-L{p}" for p in library_paths()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            failed.write_text(" ".join(command) + "\n" + done.stderr)
            raise EngineError(f"the compiler failed, see {failed}")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
