"""The figures in docs/plan.md are those of the files in results/."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("plan_table", ROOT / "results" / "plan_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_makes(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert page.count(script.BEGIN) == page.count(script.END) == 1
    assert script.with_table(page, script.table()) == page, "run results/plan_table.py"


def test_a_choice_without_a_file_has_no_figure(script, tmp_path):
    assert "| `optim.lr` | not measured yet | | |" in script.table(tmp_path)
    found = {
        "metrics": ["auc", "accuracy"],
        "facts": {"data": "x: 9 subjects"},
        "rows": [
            {"name": "1e-3", "control": False, "cells": {"auc": {"mean": 0.9312, "std": 0.1}}},
            {"name": "9", "control": False, "cells": {}},
            {"name": "raw", "control": True, "cells": {"auc": {"mean": 0.5, "std": None}}},
        ],
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "learning-rate.json").write_text(json.dumps(found))
    row = "| `optim.lr` | x: 9 subjects; AUC | 1e-3 0.931; 9 failed | raw 0.500 |"
    assert row in script.table(tmp_path)
    found["metrics"].append("auc@20")
    for one, mean in ((0, 0.8), (2, 0.4)):
        found["rows"][one]["cells"]["auc@20"] = {"mean": mean, "std": None}
    (tmp_path / "mine" / "learning-rate.json").write_text(json.dumps(found))
    cells = "1e-3 0.931 (0.800 with 20 labels); 9 failed | raw 0.500 (0.400 with 20 labels) |"
    assert cells in script.table(tmp_path)
