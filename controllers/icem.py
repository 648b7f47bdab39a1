"""The improved cross-entropy method."""

from __future__ import annotations

from typing import ClassVar

from controllers.base import Sampling
from controllers.cem import CEM


class ICEM(CEM):
    """Improved CEM: coloured noise, elites kept and carried over, ever fewer candidates.

    Noise of low frequency covers more ground than white noise, the best candidates of an iteration
    are candidates of the next one and, one control period later, of the next call, and the best
    candidate is executed. Source: Pinneri et al. 2020 (arXiv 2008.06389), with its exponent β = 2
    and its decay of the population, 1.25.
    """

    name: ClassVar[str] = "icem"
    defaults: ClassVar[Sampling] = {
        "num_samples": (128, 102, 82),
        "num_knots": None,
        "num_kept": 5,
        "num_carried": 5,
        "noise_beta": 2.0,
        "execute": "best",
    }
