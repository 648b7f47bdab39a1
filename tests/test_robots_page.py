"""The page of the reference robots says what they are."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

from mbmrl import registry

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "robots_page.py"
MADE = runpy.run_path(str(SCRIPT))


@pytest.mark.slow
def test_page_says_what_the_robots_are() -> None:
    again = f"run `python benchmarks/{SCRIPT.name}` again"
    assert MADE["PAGE"].read_text(encoding="utf-8") == MADE["page"](), again


def test_no_robot_is_missing() -> None:
    assert sorted(MADE["REAL"]) == registry.names("robots")


def test_its_pictures_are_there_and_small() -> None:
    shown = re.findall(r"!\[.*?\]\((.*?)\)", MADE["PAGE"].read_text(encoding="utf-8"))
    files = [MADE["PAGE"].parent / name for name in shown]
    assert sorted(files) == sorted(MADE["PICTURES"].iterdir())
    assert {Image.open(file).size for file in files} == {MADE["SIZE"]}
    assert sum(file.stat().st_size for file in files) < 600_000
