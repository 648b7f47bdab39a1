"""Recordings as training data: episodes of equal length, whose conditions are known or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from mbmrl.data import Episodes
from mbmrl.log import Run
from mbmrl.recording import Recording, RecordingError

BLOCK = 2
"""Unlabelled recordings are cut into blocks of at least so many episodes, which are held out for
validation as a whole."""


def episodes(recordings: Sequence[Recording], window: int, labels: int) -> Episodes:
    """Cut recordings into episodes twice as long as a window; every window of a block is in one.

    Each window is a task of its own (arXiv 1803.11347, section 4.1): the robot's condition need not
    be known, only be the same for the short time of a window. What the condition is called matters
    to what is held out alone: conditions, where there are many, else blocks of time.

    Args:
        recordings: of one robot.
        window: transitions to adapt on, and those to predict after them.
        labels: from how many different conditions on they are told apart.

    Raises:
        RecordingError: where no two stretches without a gap are long enough.
    """
    length = 2 * window
    labelled = len({r.condition for r in recordings}) >= labels
    obs, act, condition = [], [], []
    for r in recordings:
        for stretch in r.stretches():
            steps = stretch.stop - 1 - stretch.start
            blocks = max(1, steps // (BLOCK * length))
            edges = stretch.start + np.linspace(0, steps, blocks + 1).astype(int)
            for first, end in pairwise(edges):
                if end - first < length:
                    continue
                for start in (*range(first, end - length, window), end - length):
                    obs.append(r.obs[start : start + length + 1])
                    act.append(r.act[start : start + length])
                    block = f"{r.condition} {r.name} from row {first}"
                    condition.append(r.condition if labelled else block)
    if len(set(condition)) < 2:
        seconds = BLOCK * length * 2 * recordings[0].spec.dt
        raise RecordingError(
            f"too little to train on and to validate with: record {seconds:.0f} s without a gap "
            "at least"
        )
    return Episodes(np.array(obs), np.array(act), np.zeros(len(obs), dtype=int), condition)


def of_run(run: Run) -> Recording:
    """What ``mbmrl run`` wrote, as one recording."""
    return Recording(
        spec=run.spec,
        robot=run.robot,
        stamps=run.time,
        obs=run.log.obs[:, 0].astype(float),
        act=run.log.act[:, 0].astype(float),
    )


def by_condition(run: Run) -> list[Recording]:
    """The same, a recording for each of the robot's conditions in turn."""
    whole = of_run(run)
    onsets = [round(onset / run.spec.dt) for onset in run.onsets]
    edges = sorted({0, *onsets, len(whole)})
    return [
        replace(
            whole,
            condition=" + ".join(
                text for text, at in zip(run.perturbations, onsets, strict=True) if at <= first
            ),
            **{name: getattr(whole, name)[first:end] for name in ("stamps", "obs", "act")},
        )
        for first, end in pairwise(edges)
        if end - first > 1
    ]
