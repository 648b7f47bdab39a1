"""The table that compares learners says what their rows say."""

from __future__ import annotations

import json
import math
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from mbmrl.checkpoint import SHIPPED
from tests.test_intervals import row

MADE = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "adapter_table.py"))
TRAINED = SimpleNamespace(
    default="maml", training={"validation_loss": {"none": 0.3, "maml": 0.1, "bayes": 0.2}}
)
SCORES = {"maml": 0.7, "pooled": 0.5, "rls": 0.8, "frozen": 0.4, "oracle": 0.9}
ROWS = [row(agent, seed=s, score=x) for agent, x in SCORES.items() for s in range(2)]


def test_every_learner_has_a_line_the_best_first() -> None:
    head, _, *lines = [line.split(" | ") for line in MADE["table"](TRAINED, ROWS).splitlines()]
    cells = [dict(zip(head, line, strict=True)) for line in lines]
    assert [line["| after the onset"][2:] for line in cells] == [
        "oracle",
        "rls",
        "maml",
        "pooled",
        "frozen",
    ]
    assert [line["loss"] for line in cells] == ["–", "0.200", "0.100", "0.300", "–"]
    assert cells[1]["gap closed"] == "0.80 [0.80, 0.80]"
    assert cells[3]["score − maml"] == "-0.20 [-0.20, -0.20]"


def test_columns_need_no_oracle() -> None:
    told = MADE["table"](TRAINED, [r for r in ROWS if r.agent != "oracle"])
    assert "oracle" not in told and "gap" not in told


def test_only_who_follows_a_path_is_told_to_be_off_it() -> None:
    assert "off the path" in MADE["table"](TRAINED, ROWS)
    pathless = [replace(r, cross_track_m=math.nan) for r in ROWS]
    assert "off the path" not in MADE["table"](TRAINED, pathless)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    MADE["draw"](TRAINED, ROWS, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size[0] > 800


@pytest.mark.parametrize(
    ("folder", "told"), [(Path("nowhere"), "nowhere"), (SHIPPED / "hexapod", "latent_bayes")]
)
def test_what_cannot_be_compared_is_refused(
    folder: Path,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([r.to_json() for r in ROWS]))
    monkeypatch.setattr("sys.argv", ["adapter_table.py", str(folder), str(rows)])
    with pytest.raises(SystemExit) as ended:
        MADE["main"]()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
