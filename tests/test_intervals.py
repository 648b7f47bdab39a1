"""Rows, the intervals over them, and the tables that show both."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mbmrl import intervals, report
from mbmrl.discriminate import Results
from mbmrl.intervals import Interval, bootstrap
from mbmrl.rows import Row, groups, read_rows

WEAK = "motor_strength:scale=0.2"


def row(agent: str, perturbation: str = "none", seed: int = 0, **values: object) -> Row:
    numbers = {
        f.name: 0.0
        for f in dataclasses.fields(Row)
        if f.name not in ("robot", "perturbation", "agent", "path", "seed")
    }
    known = {"fell": False, "mirror_trained": False, "episode": 0, "missed_deadlines": 0}
    return Row(
        robot="hexapod",
        perturbation=perturbation,
        agent=agent,
        path="eight",
        seed=seed,
        **{**numbers, **known, **values},
    )


def test_rows_survive_json() -> None:
    before = row("maml", WEAK, seed=3, return_=-2.5, score=0.5, cross_track_m=math.nan)
    text = json.dumps(before.to_json(), allow_nan=False)
    assert json.loads(text)["return"] == -2.5
    assert json.loads(text)["cross_track_m"] is None
    assert Row.from_json(json.loads(text)).to_json() == before.to_json()


def test_the_issue_names_every_column() -> None:
    named = """robot perturbation agent episode seed return return_after_onset score cross_track_m
    fell tick_ms_p50 tick_ms_p99 missed_deadlines pred_error_prior pred_error_adapted"""
    assert set(named.split()) <= set(row("maml").to_json())


# --- intervals --------------------------------------------------------------------------------


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Conditions and episodes both scatter; the mean over all conditions there might be is 1."""
    rng = np.random.default_rng(0)
    covered = 0
    for k in range(300):
        between = rng.normal(1.0, 0.5, (25, 1, 1))
        values = between + rng.normal(0.0, 0.5, (25, 4, 1))
        found = bootstrap(values, seed=k, resamples=300)
        covered += found.low <= 1.0 <= found.high
    assert 0.90 <= covered / 300 <= 0.99


def test_resampling_episodes_alone_would_be_too_sure() -> None:
    """The interval is as wide as the scatter of conditions demands, however many episodes."""
    rng = np.random.default_rng(1)
    values = rng.normal(0.0, 1.0, (20, 1, 1)) + rng.normal(0.0, 0.01, (20, 50, 1))
    found = bootstrap(values)
    expected = 1.96 * values.mean(1).std() / math.sqrt(20)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.1)


def test_a_difference_is_paired() -> None:
    """The conditions differ by far more than the agents: pairing takes that out."""
    rng = np.random.default_rng(2)
    hard = rng.normal(0.0, 10.0, (20, 3))
    values = np.stack([hard + 1.0 + rng.normal(0, 0.1, hard.shape), hard], -1)
    found = bootstrap(values, lambda m: m[:, 0] - m[:, 1])
    assert 0.9 < found.low < 1.0 < found.high < 1.1


def test_of_one_condition_the_episodes_make_the_interval() -> None:
    values = np.random.default_rng(3).normal(0.0, 1.0, (1, 100, 1))
    found = bootstrap(values)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * values.std() / 10, rel=0.1)


def test_of_one_episode_there_is_no_interval() -> None:
    found = bootstrap(np.full((1, 1, 1), 0.7))
    assert found.estimate == 0.7
    assert math.isnan(found.low) and math.isnan(found.high)
    assert found.text() == "0.70"


def test_equal_episodes_have_an_interval_without_width() -> None:
    assert bootstrap(np.full((4, 3, 1), 0.5)) == Interval(0.5, 0.5, 0.5)


def test_an_interval_is_the_same_every_time() -> None:
    values = np.random.default_rng(4).normal(size=(6, 2, 1))
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values, seed=1) != bootstrap(values)


def test_what_does_not_apply_is_a_dash() -> None:
    assert bootstrap(np.full((2, 2, 1), np.nan)).text() == "–"


def test_every_condition_counts_alike_however_often_it_was_driven() -> None:
    few, many = np.full((1, 1), 1.0), np.array([[0.0], [0.2], [0.4], [0.2]])
    found = bootstrap([few, many])
    assert found.estimate == pytest.approx((1.0 + 0.2) / 2)
    assert found.low >= 0.0 and found.high == 1.0
    even = np.random.default_rng(5).normal(size=(9, 4, 1))
    uneven = bootstrap([v[: 2 + 2 * (k % 2)] for k, v in enumerate(even)])
    assert uneven.high - uneven.low > 0.9 * (bootstrap(even).high - bootstrap(even).low)


def test_what_one_agent_did_not_drive_is_left_out() -> None:
    rows = [row(a, slip, score=x) for a, x in (("a", 1.0), ("b", 0.5)) for slip in (WEAK, "none")]
    rows += [row("a", "friction:scale=0.1", score=9.0), row("a", WEAK, seed=1, score=1.0)]
    rows += [row("b", WEAK, seed=1, score=0.0)]
    assert intervals.difference(rows, "score", "a", "b").estimate == pytest.approx(0.625)
    assert intervals.difference(rows, "score", "a", "c").text() == "–"


def test_rows_are_paired_by_condition_path_and_seed() -> None:
    """In whatever order they come; here the difference is the same everywhere."""
    rows = [
        row(agent, f"friction:scale={c}", seed=s, score=c + s + (1.0 if agent == "a" else 0.0))
        for agent in ("a", "b")
        for c in range(3)
        for s in range(4)
    ]
    np.random.default_rng(0).shuffle(rows)
    assert intervals.difference(rows, "score", "a", "b") == pytest.approx((1.0, 1.0, 1.0))
    assert intervals.mean(rows, "score", "b").estimate == pytest.approx(2.5)
    assert intervals.ratio(rows, "score", "a", "b").estimate == pytest.approx(3.5 / 2.5)


def test_an_agent_that_drove_less_stands_beside_each_episode_with_its_mean() -> None:
    rows = [row("a", seed=s, score=float(s)) for s in range(4)]
    rows += [row("oracle", seed=s, score=s + 1.0) for s in range(2)]
    assert intervals.difference(rows, "score", "a", "oracle").estimate == pytest.approx(0.0)


def test_a_ratio_to_nothing_is_a_dash() -> None:
    rows = [row(agent, seed=s, score=0.0) for agent in "ab" for s in range(2)]
    assert intervals.ratio(rows, "score", "a", "b").text() == "–"


def test_the_gap_closed_is_paired_from_frozen_to_oracle() -> None:
    scores = {"default": (0.5, 0.9), "frozen": (0.2, 0.4), "oracle": (0.8, 1.0)}
    rows = [row(a, seed=s, score=x) for a, both in scores.items() for s, x in enumerate(both)]
    found = intervals.gap_closed(rows, "default")
    assert found.estimate == pytest.approx(0.8 / 1.2)  # of the means, not the mean of 0.5 and 0.83
    assert (found.low, found.high) == pytest.approx((0.3 / 0.6, 0.5 / 0.6))
    no_gap = [row(a, seed=s, score=0.5) for a in scores for s in range(2)]
    assert intervals.gap_closed(no_gap, "default").text() == "–"


def test_groups_of_a_suite() -> None:
    leg, slip, both = "damaged_leg:leg=L1", "friction:scale=0.1", "slope:angle=0.2 + " + WEAK
    rows = [row("a", leg, mirror_trained=True), row("a", slip), row("a", both)]
    found = {title: [r.perturbation for r in some] for title, some in groups(rows).items()}
    assert found == {
        "all": [leg, slip, both],
        "leg and motor damage": [leg],
        "mirror image trained": [leg],
        "mirror image not trained": [slip, both],
        "without damaged_leg": [slip, both],
        "without friction": [leg, both],
        "without motor_strength": [leg, slip],
        "without slope": [leg, slip],
    }
    assert list(groups(rows[:1])) == ["all"]


def test_rows_of_several_checkpoints_are_reported_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(2):
        rows = [row(a, WEAK, seed=s, score=0.5 + 0.2 * k) for a in "ab" for s in range(3)]
        (tmp_path / f"{k}.json").write_text(json.dumps([r.to_json() for r in rows]))
    report.main([str(tmp_path / "0.json"), str(tmp_path / "1.json")])
    told = capsys.readouterr().out
    assert "0.60 [" in told and " 6 " in told


def test_a_record_of_discriminate_holds_rows_too(tmp_path: Path) -> None:
    rows = [row("robust", WEAK, seed=s, score=0.25) for s in range(3)]
    (tmp_path / "gaps.json").write_text(Results(4.0, {}, rows).dump())
    assert read_rows([tmp_path / "gaps.json"]) == rows


@pytest.mark.parametrize("held", ["[]", '[{"a": 1}]', '{"seconds": 4}', "[1]", "cut off"])
def test_a_report_of_no_rows_says_so(held: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(held)
    with pytest.raises(SystemExit, match="no rows"):
        report.main([str(file)])
    with pytest.raises(SystemExit, match="no rows"):
        report.main([str(tmp_path / "missing.json")])


def test_a_report_of_what_is_no_text_does_not_print_it(tmp_path: Path) -> None:
    file = tmp_path / "run.png"
    file.write_bytes(bytes(range(256)) * 100)
    with pytest.raises(SystemExit) as end:
        report.main([str(file)])
    assert len(str(end.value)) < 300 + len(str(file))


def test_a_report_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        report.main(["--help"])
    assert end.value.code == 0
    assert "mbmrl eval --json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "why"),
    [({"robot": "ant"}, "several robots: ant, hexapod"), ({"path": "tour"}, "several tasks")],
)
def test_a_report_refuses_scores_that_mean_different_things(
    other: dict[str, str], why: str, tmp_path: Path
) -> None:
    rows = [row("a", score=0.5), dataclasses.replace(row("a", score=0.5), **other)]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([r.to_json() for r in rows]))
    with pytest.raises(SystemExit, match=why):
        report.main([str(file)])


@pytest.mark.parametrize("wrong", [{"score": "x"}, {"fell": "yes"}, {"seed": 0.5}, {"agent": 3}])
def test_a_row_of_the_wrong_kind_is_no_row(wrong: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=next(iter(wrong))):
        Row.from_json(row("a").to_json() | wrong)


def test_tables_tell_agents_apart() -> None:
    rows = [
        row(agent, text, seed=s, score=score, cross_track_m=0.02, fell=agent == "frozen")
        for agent, score in (("default", 0.8), ("frozen", 0.4), ("oracle", 1.0))
        for text in (WEAK, "damaged_leg:leg=L1")
        for s in range(2)
    ]
    console = Console(width=180, record=True)
    console.print(report.agents_table(rows))
    console.print(report.comparison_table(rows))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    told = " ".join(lines)
    assert "default 0.80 [0.80, 0.80] 0.80 [0.80, 0.80] 0.67 [0.67, 0.67] 2.0 [2.0, 2.0]" in told
    slow = "frozen 0.40 [0.40, 0.40] 0.40 [0.40, 0.40] 0.00 [0.00, 0.00]"
    assert f"{slow} 2.0 [2.0, 2.0] 0.0 [0.0, 0.0] 4" in told
    assert "all 2 frozen 0.40 [0.40, 0.40] 2.00 [2.00, 2.00] 1.00 [1.00, 1.00]" in lines
    assert "oracle -0.20 [-0.20, -0.20] 0.80 [0.80, 0.80] 1.00 [1.00, 1.00]" in lines
