"""Times that can be compared: every rival in turn, in one run, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mbmrl import about

Work = Callable[[], object]


class Time(NamedTuple):
    """How long one rival took.

    Attributes:
        ms_median: [ms].
        ms_iqr: between the quartiles [ms].
        ratio: median of the ratios to the first rival, each run's to that beside it.
    """

    ms_median: float
    ms_iqr: float
    ratio: float


def seconds_in_turn(rivals: Iterable[Work], repeats: int) -> Float[np.ndarray, "k n"]:
    """Time them one after the other, again and again; a first round only warms up."""
    works = list(rivals)
    seconds = np.empty((len(works), repeats + 1))
    for repeat in range(repeats + 1):
        for i, work in enumerate(works):
            start = time.perf_counter()
            work()
            seconds[i, repeat] = time.perf_counter() - start
    return seconds[:, 1:]


def in_turn(rivals: Mapping[str, Work], repeats: int) -> dict[str, Time]:
    """What :func:`seconds_in_turn` comes to, by the rivals' names."""
    seconds = seconds_in_turn(rivals.values(), repeats)
    low, high = np.percentile(seconds, (25, 75), axis=1)
    ratios = np.median(seconds / seconds[0], axis=1)
    return {
        name: Time(1e3 * float(np.median(took)), 1e3 * float(b - a), float(ratio))
        for name, took, a, b, ratio in zip(rivals, seconds, low, high, ratios, strict=True)
    }


def products(weights: Sequence[Tensor], rows: int, times: int) -> Work:
    """Nothing but the products of activations and weights, in float32."""
    inputs = [torch.randn(rows, w.shape[0]) for w in weights]
    outputs = [torch.empty(rows, w.shape[1]) for w in weights]

    def run() -> None:
        with torch.no_grad():
            for _ in range(times):
                for x, weight, y in zip(inputs, weights, outputs, strict=True):
                    torch.mm(x, weight, out=y)

    return run


def machine() -> str:
    """Processor, threads and versions, in a line."""
    libraries = " · ".join(f"{name} {about.version_of(name)}" for name in ("torch", "mujoco"))
    threads = torch.get_num_threads()
    return f"{about.processor()} · {threads} thread{'s'[: threads != 1]} · {libraries}"
