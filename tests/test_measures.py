"""How soon a robot recovered."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mbmrl.measures import recovery


def gains(*parts: tuple[float, float]) -> np.ndarray:
    """Constant gains, each (seconds, gain), at 10 Hz."""
    return np.concatenate([np.full(round(10 * seconds), gain) for seconds, gain in parts])


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(10, 1.0)], 0.0),  # nothing lost
        ([(0.3, 1.0), (1.2, 0.1), (8.5, 0.8)], 2.0),  # at once again, seen over half a second
        ([(2, 1.0), (1, 0.0), (7, 0.5)], 3.5),  # it shows late
        ([(10, 0.0)], 10.0),  # it reaches nothing
        ([(10, -0.5)], 10.0),
        ([(2, 0.9), (8, 0.3)], 0.0),  # worse later than at first: that is what it reaches
        ([(5.9, 1.0)], math.nan),  # too short to say
    ],
)
def test_how_long_until_it_is_back(parts: list[tuple[float, float]], expected: float) -> None:
    assert recovery(gains(*parts), 0.1) == pytest.approx(expected, abs=0.05, nan_ok=True)
