"""Errors name the page of the documentation that helps."""

from pathlib import Path

import pytest

from vitaepp import errors
from vitaepp.cli.app import _page

ROOT = Path(__file__).parents[2]
CLASSES = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]


@pytest.mark.parametrize("error", CLASSES)
def test_the_page_of_an_error_exists(error):
    assert error.page == "" or (ROOT / error.page).is_file()


def test_many_kinds_of_errors_have_a_page():
    assert sum(bool(error.page) for error in CLASSES) > len(CLASSES) / 3


def test_the_page_is_at_the_end_of_the_one_line(vitaepp, tmp_path):
    status, _, err = vitaepp("prepare", tmp_path, tmp_path / "new")
    assert (status, err.count("\n")) == (2, 1)
    assert err.endswith("; see docs/layouts.md\n")
    err = vitaepp("inspect", tmp_path / "nowhere")[2]
    assert "docs/" not in err  # a path to check needs no page


@pytest.mark.parametrize(
    ("error", "page"),
    [
        (errors.RecipeError("optim.lr=x: give a number"), "; see docs/settings.md"),
        (errors.RecipeError("`hours`=0: give more than 0"), ""),
        (errors.RecipeError("loss.*.weight of the model: give one more"), "; see docs/settings.md"),
        (errors.RecipeError("notes.txt: not a text file; a recipe is YAML"), ""),
        (errors.EvaluationError("no label column 'x'; known are a and b"), ""),
        (errors.RecipeError("unknown setting x; did you mean y?"), ""),
        (errors.RecipeError("start it by torchrun (docs/distributed.md)"), ""),
        (errors.StoreNotFoundError("x: no such store"), ""),
        (FileNotFoundError("x"), ""),
    ],
)
def test_a_message_that_has_its_answer_names_no_page(error, page):
    assert _page(error) == page
