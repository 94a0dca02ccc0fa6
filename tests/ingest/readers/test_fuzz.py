"""Damaged files of every kind: a short run always, and a long one on demand."""

import sys

import numpy as np
import pytest

from tests.ingest import fuzz

#: What a run of thousands found once, so that it does not come back.
FOUND = [
    ("bmp", 24),  # a matrix of the picture's width squared
    ("bmp", 84),  # no pixels
    ("bmp", 155),  # written beyond the end of memory
    ("bmp", 191),  # one row short, so that all became one
    ("mha", 408),  # compressed without a size: memory that nobody filled
    ("mha", 2094),  # compressed, and of another size
    ("mhd", 305),  # axes below zero
    ("mhd", 414),  # 1e308 mm away
    ("nii.gz", 307),  # an unknown type of voxel
    ("npz", 27),  # a header that is no Python
    ("tif", 324),  # white is zero
    ("tsv", 83),  # an infinite label
    ("xlsx", 9),  # broken compression within
    ("zip", 11),  # a place that cannot be
]


def test_what_was_found_once_and_some_of_every_format_do_no_harm(tmp_path):
    cases = [*FOUND, *fuzz.spread(2 * len(fuzz.FORMATS))]
    outcomes = fuzz.run(cases, tmp_path)
    assert fuzz.problems(outcomes) == []
    assert len(outcomes) == len(set(cases))
    ends = [found[0].partition(" ")[0] for found in outcomes.values()]
    assert {"taken", "refused"} == set(ends)


@pytest.mark.slow
def test_two_thousand_damaged_files_do_no_harm(tmp_path):
    outcomes = fuzz.run(fuzz.spread(2090, first=100), tmp_path)
    print(fuzz.summary(outcomes))
    assert fuzz.problems(outcomes) == []


CHILD = """
import json, os, signal, sys, time
from pathlib import Path
from tests.ingest import fuzz

def run_case(name, number, folder):
    if number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 2:
        time.sleep(600)
    return ["taken 2"]

fuzz.run_case = run_case
fuzz.child([tuple(case) for case in json.loads(sys.stdin.read())], Path(sys.argv[1]))
"""


def test_a_crash_and_a_hang_are_noticed_and_cost_one_case(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 3.0)
    monkeypatch.setattr(fuzz, "CHILD", (sys.executable, "-c", CHILD))
    outcomes = fuzz.run([("nii", number) for number in range(4)], tmp_path)
    assert outcomes["nii", 0] == outcomes["nii", 3] == ["taken 2"]
    assert outcomes["nii", 1] == ["crash: SIGSEGV"]
    assert outcomes["nii", 2] == ["hang: over 3 s"]
    assert len(fuzz.problems(outcomes)) == 2


@pytest.mark.parametrize("name", ["nii", "png"])
def test_a_wrong_image_and_a_name_are_noticed(tmp_path, monkeypatch, name):
    monkeypatch.setattr(fuzz, "mutated", lambda data, kind, chance: data)
    assert fuzz.run_case(name, 0, tmp_path / "a") == ["taken 2"]
    other = np.random.default_rng(9).integers(0, 255, fuzz.PICTURE if name == "png" else fuzz.SHAPE)
    affine = None if name == "png" else np.eye(4)
    monkeypatch.setattr(fuzz, "independent", lambda path: (other, affine))
    assert [line[:6] for line in fuzz.run_case(name, 0, tmp_path / "b")[1:]] == ["wrong:"] * 2
    monkeypatch.setattr(fuzz, "SECRET", "a folder of")
    assert "leak: in an error or a log" in fuzz.run_case(name, 0, tmp_path / "c")
