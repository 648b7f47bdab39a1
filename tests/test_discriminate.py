"""Which perturbations tell controllers apart, and what is kept of hours of driving."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from rich.console import Console

from mbmrl import cli, conditions, discriminate, evaluate, registry, settings
from mbmrl.compose import ON_THE_SIMULATOR, faults
from mbmrl.discriminate import Results
from mbmrl.rows import Row
from tests.dummy import SETTINGS, SimPointMass
from tests.test_intervals import row

SIM = "tests.dummy:SimPointMass"
LOCKED, SLIPPERY, KNOWN = (
    "damaged_leg:leg=L1,mode=locked",
    "friction:scale=0.1",
    "damaged_leg:leg=L0",
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.SETTINGS, "pointmass", SETTINGS)
    monkeypatch.setattr(evaluate, "TIMED_TRUE", 2)


def record(**scores: tuple[float, float, float]) -> Results:
    """Scores of oracle, nominal and robust, around which five episodes scatter by 0.02."""
    names = {"locked": LOCKED, "slippery": SLIPPERY, "known": KNOWN, "none": "none"}
    rows = [
        row(agent, names[name], seed=s, score=score + 0.01 * (s - 2), fell=agent == "nominal")
        for name, three in scores.items()
        for agent, score in zip(ON_THE_SIMULATOR, three, strict=True)
        for s in range(5)
    ]
    return Results(10.0, {"hexapod": [KNOWN]}, rows)


def test_disjoint_intervals_discriminate_and_others_do_not() -> None:
    found = discriminate.gaps(
        record(locked=(0.8, 0.3, 0.79), slippery=(0.8, 0.795, 0.8), known=(0.8, 0.3, 0.4)),
        "hexapod",
    )
    told = {g.perturbation: (g.discriminates, g.defeats_robust, g.known) for g in found}
    assert told == {
        LOCKED: (True, False, False),
        SLIPPERY: (False, False, False),
        KNOWN: (True, True, True),
    }
    locked = found[0]
    assert locked.over_nominal == pytest.approx((0.5, 0.5, 0.5))  # seeds are paired
    assert locked.scores["oracle"].low < 0.8 < locked.scores["oracle"].high
    assert locked.falls == {"oracle": 0, "nominal": 5, "robust": 0}


def test_of_one_episode_nothing_is_decided() -> None:
    one = record(locked=(0.9, 0.1, 0.1))
    one.rows = [r for r in one.rows if r.seed == 0]
    (gap,) = discriminate.gaps(one, "hexapod")
    assert not gap.discriminates and not gap.defeats_robust


def test_a_perturbation_waits_for_oracle_and_nominal_and_can_do_without_robust() -> None:
    cut_off = record(locked=(0.9, 0.1, 0.1), slippery=(0.9, 0.1, 0.1))
    missing = [("robust", LOCKED), ("nominal", SLIPPERY)]
    cut_off.rows = [r for r in cut_off.rows if (r.agent, r.perturbation) not in missing]
    (gap,) = discriminate.gaps(cut_off, "hexapod")
    assert gap.perturbation == LOCKED
    assert gap.discriminates and not gap.defeats_robust
    assert gap.cells()[3] == gap.cells()[5] == "–" and gap.cells()[6] == "0 / 5 / – of 5"
    assert gap.episodes == 5
    assert "robust gets" not in discriminate.summary(cut_off, "hexapod")
    assert discriminate.gaps(cut_off, "cheetah") == []


def test_what_robust_knows_is_told_apart_from_what_it_does_not() -> None:
    told = discriminate.summary(
        record(none=(0.9, 0.9, 0.8), locked=(0.8, 0.2, 0.4), known=(0.8, 0.2, 0.72)), "hexapod"
    )
    assert "1 of 1 held-out perturbations discriminate. 1 defeat robust planning." in told
    assert "held out, robust gets 0.50 [" in told
    assert "that it knows, robust gets 0.90 [" in told


def test_table_and_page_say_the_same() -> None:
    some = record(locked=(0.8, 0.3, 0.4), known=(0.8, 0.3, 0.79))
    page = discriminate.markdown(some)
    console = Console(width=200, record=True)
    console.print(discriminate.table(some, "hexapod"))
    shown = console.export_text()
    for gap in discriminate.gaps(some, "hexapod"):
        assert f"| {' | '.join(gap.cells())} |" in page.splitlines()
        assert all(cell in shown for cell in gap.cells())
    assert page.startswith("# Where knowing") and "hexapod, 10 s an episode: " in page
    assert "\n## hexapod\n" in page
    assert "discriminates, defeats robust |" in page
    assert f"| {KNOWN} (known to robust) |" in page


def test_a_page_keeps_what_another_record_told(tmp_path: Path) -> None:
    first, other = record(locked=(0.8, 0.3, 0.4)), record(slippery=(0.8, 0.3, 0.4))
    other.rows = [dataclasses.replace(row, robot="rover") for row in other.rows]
    other.seconds = 4.0
    page = discriminate.markdown(other, discriminate.markdown(first))
    assert page.index("## hexapod") < page.index(LOCKED) < page.index("## rover")
    assert page.index("## rover") < page.index("rover, 4 s an episode") < page.index(SLIPPERY)
    assert discriminate.markdown(first, page) == discriminate.markdown(other, page) == page
    file = tmp_path / "gaps.md"
    for wrong in (b"# My notes\n", b"\xff"):
        file.write_bytes(wrong)
        args = ["--robot", SIM, "--seconds", "0.5", "--markdown", str(file)]
        assert cli.main(["discriminate", *args]) == 2
        assert file.read_bytes() == wrong


def test_a_record_survives_and_is_not_mixed(tmp_path: Path) -> None:
    file = tmp_path / "gaps.json"
    before = record(locked=(0.8, 0.3, 0.4))
    file.write_text(before.dump())
    assert Results.load(file, 10.0).dump() == before.dump()
    assert Results.load(tmp_path / "absent", 10.0).rows == []
    with pytest.raises(ValueError, match="holds episodes of 10 s, not 8"):
        Results.load(file, 8.0)
    file.write_text("[]")
    with pytest.raises(ValueError, match="is no record of `mbmrl discriminate`"):
        Results.load(file, 10.0)


@pytest.mark.parametrize("name", ["cheetah", "hexapod"])
def test_every_kind_is_driven_by_itself(name: str) -> None:
    robot = registry.load("robots", name)()
    suite = discriminate.suite(robot)
    kinds = {p.name for c in suite for p in c}
    assert kinds == {kind.name for kind in conditions.kinds_for(robot)}
    assert suite[0] == () and all(len(c) == 1 for c in suite[1:])
    assert suite[-4:] == faults(robot)
    names = [c[0].name for c in suite[1:-4]]
    fewer = discriminate.suite(robot, 2)
    assert [c for c in suite if c in fewer] == fewer and fewer[-4:] == faults(robot)
    assert [c[0].name for c in fewer[1:-4]].count("damaged_leg") == 2 < names.count("damaged_leg")
    assert {c[0].name for c in fewer[1:-4]} == set(names)


def test_what_misleads_sensors_alone_is_left_out() -> None:
    """No planner on the true simulator looks at any."""
    robot = registry.load("robots", "rover")()
    held_out = [c[0] for c in conditions.test_suite(robot) if len(c) == 1]
    driven = [c[0] for c in discriminate.suite(robot) if c]
    left_out = {conditions.text((p,)) for p in held_out if p not in driven}
    assert left_out and all(t.startswith("sensor_noise") or "of=sensors" in t for t in left_out)
    assert {"delay", "drift", "backlash"} <= {p.name for p in driven}


def test_it_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, page = tmp_path / "gaps.json", tmp_path / "gaps.md"
    args = ["discriminate", "--robot", SIM, "--seconds", "0.5", "--json", str(file)]
    drive, driven = evaluate._drive, []

    def cut_off(what: object, batch: evaluate._Batch, *rest: object) -> list[Row]:
        if len(driven) == 3:
            raise KeyboardInterrupt
        driven.append(batch)
        return drive(what, batch, *rest)

    monkeypatch.setattr(evaluate, "_drive", cut_off)
    assert cli.main([*args, "--episodes", "2"]) == 130
    kept = json.loads(file.read_text())["rows"]
    assert len(kept) == sum(len(batch.lanes) for batch in driven) > 0
    monkeypatch.setattr(evaluate, "_drive", drive)
    assert cli.main([*args, "--episodes", "2", "--markdown", str(page)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert rows[: len(kept)] == kept
    suite = [conditions.text(c) or "none" for c in discriminate.suite(SimPointMass())]
    drove = [(r["agent"], r["seed"], r["perturbation"]) for r in rows]
    every = [(a, s, c) for a in ON_THE_SIMULATOR for s in (0, 1) for c in dict.fromkeys(suite)]
    assert sorted(drove) == sorted(every)
    assert "## pointmass" in page.read_text()
    assert "held-out perturbations discriminate" in capsys.readouterr().out

    monkeypatch.setattr(evaluate, "_drive", None)  # nothing is left to drive
    assert cli.main([*args, "--episodes", "2"]) == 0


def test_the_page_is_there_when_robust_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, drive = tmp_path / "gaps.md", evaluate._drive

    def cut_off(what: object, batch: evaluate._Batch, *rest: object) -> list[Row]:
        if batch.agent == "robust":
            raise KeyboardInterrupt
        return drive(what, batch, *rest)

    monkeypatch.setattr(evaluate, "_drive", cut_off)
    args = ["--robot", SIM, "--seconds", "0.5", "--episodes", "2", "--markdown", str(page)]
    assert cli.main(["discriminate", *args]) == 130
    assert "held-out perturbations discriminate" in page.read_text()


def test_robust_can_be_spared_where_nothing_is_at_stake(tmp_path: Path) -> None:
    file = tmp_path / "gaps.json"
    args = ["--robot", SIM, "--seconds", "0.8", "--episodes", "2", "--json", str(file)]
    assert cli.main(["discriminate", *args, "--robust-where-it-matters"]) == 0
    found = discriminate.gaps(Results.load(file, 0.8), "pointmass")
    driven = {g.perturbation for g in found if g.cells()[3] != "–"}
    assert driven == {g.perturbation for g in found if g.discriminates}
    assert 0 < len(driven) < len(found)


def test_robust_is_spared_altogether_where_nothing_discriminates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one episode nothing is decided."""
    file = tmp_path / "gaps.json"
    args = ["--robot", SIM, "--seconds", "0.5", "--episodes", "1", "--json", str(file)]
    assert cli.main(["discriminate", *args, "--robust-where-it-matters"]) == 0
    assert {row.agent for row in Results.load(file, 0.5).rows} == {"oracle", "nominal"}
    assert "pointmass, 0.5 s an episode: 0 of" in " ".join(capsys.readouterr().out.split())
