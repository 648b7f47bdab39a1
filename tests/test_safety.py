"""What no command may do, whoever asks for it."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbmrl.safety import Age, Envelope, Guard, InARow, Latch, Limits, Stale, Unsafe

PERIOD = 0.1
LIMITS = Limits(low=np.array([-1.0, -2.0]), high=np.array([1.0, 3.0]), rate=np.array([5.0, np.inf]))


def guard() -> Guard:
    return Guard(LIMITS, np.array([0.0, 1.0]), PERIOD)


@given(st.lists(st.tuples(*[st.floats()] * 2), max_size=30))
def test_whatever_comes_what_goes_out_is_finite_in_range_and_slow_enough(
    commands: list[tuple[float, float]],
) -> None:
    it = guard()
    for command in commands:
        before = it.sent.copy()
        try:
            sent = it.pass_on(np.array(command))
        except Unsafe:
            assert not np.isfinite(command).all()
            np.testing.assert_array_equal(it.sent, before)
            continue
        assert np.isfinite(command).all()
        assert (LIMITS.low <= sent).all() and (sent <= LIMITS.high).all()
        assert (np.abs(sent - before) <= LIMITS.rate * PERIOD + 1e-12).all()


def test_what_is_allowed_passes_unchanged() -> None:
    np.testing.assert_array_equal(guard().pass_on(np.array([0.4, -1.5])), [0.4, -1.5])


def test_nan_never_survives_because_a_clamp_let_it_pass() -> None:
    """np.clip(nan, low, high) is nan: only a check before it helps."""
    with pytest.raises(Unsafe, match="not finite"):
        guard().pass_on(np.array([np.nan, 0.0]))


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_command_of_the_wrong_size_is_none(size: int) -> None:
    with pytest.raises(Unsafe, match="2 joints"):
        guard().pass_on(np.zeros(size))


def test_the_safe_command_is_reached_at_the_rate() -> None:
    it = guard()
    for _ in range(5):
        it.pass_on(np.array([1.0, 3.0]))
    steps = 0
    while not it.at_rest():
        it.pass_on(it.safe)
        steps += 1
    assert steps == 2  # 1.0 at 5 a second in steps of 0.1 s


def test_the_rate_counts_from_where_the_joints_are() -> None:
    it = guard()
    it.start(np.array([-0.9, np.nan]))
    np.testing.assert_allclose(it.pass_on(np.array([1.0, 1.0])), [-0.4, 1.0])
    it.start(np.array([7.0, 0.0]))
    np.testing.assert_allclose(it.sent, [1.0, 0.0])


@pytest.mark.parametrize(
    ("low", "high", "rate", "safe", "message"),
    [
        (0.0, math.inf, 1.0, 0.0, "finite lower and upper"),
        (math.nan, 1.0, 1.0, 0.0, "finite lower and upper"),
        (1.0, 0.0, 1.0, 0.0, "not below"),
        (0.0, 1.0, 0.0, 0.0, "rates of change are positive"),
        (0.0, 1.0, 1.0, 2.0, "outside"),
        (0.0, 1.0, 1.0, math.nan, "outside"),
    ],
)
def test_limits_that_limit_nothing_are_refused(
    low: float, high: float, rate: float, safe: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        limits = Limits(low=np.array([low]), high=np.array([high]), rate=np.array([rate]))
        Guard(limits, np.array([safe]), PERIOD)


def test_the_envelope_names_the_joint_and_does_not_judge_what_nobody_measures() -> None:
    inside, nothing = np.zeros(2), np.full(2, np.nan)
    envelope = Envelope(
        position=np.array([[-1.0, -1.0], [1.0, 1.0]]),
        velocity=np.array([2.0, 2.0]),
        effort=np.array([3.0, np.inf]),
    )
    names = ["hip", "knee"]
    envelope.check(names, inside, inside, inside)
    envelope.check(names, nothing, nothing, np.array([0.0, 1e9]))
    for part in ("position", "velocity", "effort"):
        values = {"position": inside, "velocity": inside, "effort": inside}
        values[part] = np.array([-4.0, 0.0])
        with pytest.raises(Unsafe, match=f"the {part} of hip is -4"):
            envelope.check(names, **values)


def test_age() -> None:
    age = Age(0.3)
    with pytest.raises(Stale, match="imu has never come"):
        age.check(5.0, "imu")
    age.fresh(5.0)
    age.check(5.3, "imu")
    with pytest.raises(Stale, match=r"imu is 0\.310 s old"):
        age.check(5.31, "imu")


def test_only_bad_ones_in_a_row_are_too_many() -> None:
    it = InARow(3)
    told = []
    for bad in (1, 1, 0, 1, 1, 1, 1, 0, 1):
        if bad:
            told.append(it.bad())
        else:
            it.good()
    assert told == [False, False, False, False, True, True, False]
    assert it.total == 7


def test_a_latch_keeps_its_first_reason_until_it_is_released() -> None:
    latch = Latch()
    assert not latch.reason
    threads = [threading.Thread(target=latch.trip, args=(f"{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = latch.reason
    assert first
    latch.trip("later")
    assert latch.reason == first
    latch.release()
    assert not latch.reason
