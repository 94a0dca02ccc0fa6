"""Options: settings are defined once, OUT is the last argument, names are spelled as typed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints
from unittest.mock import ANY

import pytest
import typer
from pydantic.fields import FieldInfo

import vitaepp as library
from tests.ingest.trees import scan
from tests.interop.test_public import published
from vitaepp.cli.app import app
from vitaepp.cli.verb import Verb, as_options
from vitaepp.data.inspection import inspect
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import unlike
from vitaepp.errors import RecipeError, StoreError
from vitaepp.ingest.prepare import prepare
from vitaepp.recipe.recipe import Recipe, describe_settings
from vitaepp.recipe.sections import OF_IMAGES, PrepareSettings

COMMANDS = typer.main.get_command(app).commands


@pytest.fixture
def new_field(monkeypatch):
    """A setting of prepare that shapes images, added by its definition alone."""
    field = FieldInfo(
        annotation=float | None, default=None, description="Denoising.", json_schema_extra=OF_IMAGES
    )

    def rebuild():
        PrepareSettings.model_rebuild(force=True)
        Recipe.model_rebuild(force=True)

    PrepareSettings.__pydantic_fields__["denoise_level"] = field
    rebuild()
    yield
    del PrepareSettings.__pydantic_fields__["denoise_level"]
    rebuild()


def test_a_setting_is_one_field(new_field, vitaepp, tmp_path):
    scan(tmp_path / "x" / "a.nii.gz")
    call = ("prepare", tmp_path / "x", tmp_path / "s", "--size", 8)
    help_text = vitaepp("prepare", "--help")[1]
    assert "--denoise-level" in help_text
    assert "Denoising." in help_text
    assert "prepare.denoise_level = unset\n    Denoising." in vitaepp("settings")[1]
    schema = json.loads(vitaepp("settings", "--schema")[1])
    found = schema["$defs"]["PrepareSettings"]["properties"]["denoise_level"]
    assert found["description"] == "Denoising."
    told = vitaepp(*call, "--denoise-level", "0.5", "--debug")
    assert told[0] == 0, told[2]
    first = Store(tmp_path / "s").info
    assert first.facts["denoise_level"] == first.settings["denoise_level"] == 0.5
    status, _, err = vitaepp(*call)
    assert status == 2
    assert "holds a different store (denoise_level 0.5 there, none asked)" in err
    prepare(tmp_path / "x", tmp_path / "t", size=8, denoise_level=0.6)
    assert unlike(first, Store(tmp_path / "t").info) == ["denoise_level 0.5 instead of 0.6"]
    (tmp_path / "run").mkdir()
    Recipe().changed(prepare=first.settings).save(tmp_path / "run" / "recipe.yaml")
    assert vitaepp("prepare", tmp_path / "x", tmp_path / "u", "--recipe", tmp_path / "run")[0] == 0
    assert Store(tmp_path / "u").info == first


def test_a_setting_may_be_given_by_name_or_as_settings_or_as_an_object(tmp_path):
    scan(tmp_path / "x" / "a.nii.gz")
    for i, given in enumerate(
        (
            {"size": 8, "dtype": "uint8"},
            {"settings": ["prepare.size=8", "prepare.dtype=uint8"]},
            {"settings": {"prepare": {"size": 8}}, "dtype": "uint8"},
            {"settings": PrepareSettings(size=8, dtype="float16"), "dtype": "uint8"},
        )
    ):
        prepare(tmp_path / "x", tmp_path / f"s{i}", workers=1, **given)
        assert Store(tmp_path / f"s{i}").info == Store(tmp_path / "s0").info
    with pytest.raises(RecipeError, match="no setting or argument sise; did you mean size"):
        prepare(tmp_path / "x", tmp_path / "t", sise=8)
    assert not (tmp_path / "t").exists()


def verbs_with_out():
    for name, command in COMMANDS.items():
        if any(param.name == "out" for param in command.params):
            yield name


@pytest.mark.parametrize("name", verbs_with_out())
def test_every_verb_that_writes_takes_out_last_or_by_name(monkeypatch, name):
    """The same words, with the place to write at the end or as --out anywhere."""
    command = COMMANDS[name]
    others = [p for p in command.params if p.name != "out"]
    arguments = [p for p in others if p.param_type_name == "argument"]
    words = [f"w{i}" for i in range(len(arguments))]
    options = [p for p in others if p.param_type_name == "option" and p.required]
    words += [word for p in options for word in (p.opts[0], "x")]
    spellings = [["--out", "there", *words], [*words, "--out=there"]]
    if (arguments and arguments[-1].nargs == 1) or not arguments:
        spellings.append([*words, "there"])
    found = [command.make_context(name, [*words]).params for words in spellings]
    assert {str(params["out"]) for params in found} == {"there"}
    assert all(params == found[0] for params in found)


def test_out_is_given_once_and_with_a_value(vitaepp):
    status, _, err = vitaepp("embed", "run", "store", "--out", "a", "--out", "b")
    assert (status, err.count("\n")) == (2, 1)
    assert "--out is given more than once" in err
    assert "'--out' requires an argument" in vitaepp("embed", "run", "store", "--out")[2]
    assert "unexpected extra argument" in vitaepp("embed", "run", "store", "a", "--out", "b")[2]


def test_an_option_means_one_thing_in_all_verbs():
    """Of one type in all verbs; None is where it may be left out."""
    kinds = {}
    for verb in app.registered_commands:
        for name, hint in get_type_hints(verb.callback).items():
            members = frozenset(get_args(hint) or (hint,)) - {type(None)}
            kinds.setdefault(name, set()).add(members)
    arguments = {"out", "metrics", "return"}  # a place to write may be a URL
    assert not [k for k, found in kinds.items() if len(found) > 1 and k not in arguments]


@pytest.mark.parametrize(
    ("verb", "option", "setting"),
    [("pretrain", "watch", "trainer.watch"), ("plan", "keep", "views.keep")],
)
def test_an_option_that_is_a_setting_is_described_by_it(verb, option, setting):
    command = COMMANDS[verb]
    params = command.get_params(command.make_context(verb, ["a", "b"]))
    [text] = [s.description for s in describe_settings() if s.name == setting]
    assert [param.help for param in params if param.name == option] == [text]


def test_former_spellings_still_work():
    context = COMMANDS["pretrain"].make_context("pretrain", ["s", "r", "--subjects", "list.txt"])
    assert str(context.params["subject_list"]) == "list.txt"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a larger `size` helps", "a larger --size helps"),
        ("`keep_masks` and `resume=True`", "--keep-masks and --resume"),
        ("with `recipe=RUN` or `labels=my file.csv`", "with --recipe RUN or --labels my file.csv"),
        ("`settings` and `out`", "--set and --out"),
        ("a file `no_such_argument` stays", "a file `no_such_argument` stays"),
        ("what `embed` wrote", "what vitaepp embed wrote"),
        ("`prepare(SOURCE, 'a')` or `nothing(a)`", "vitaepp prepare SOURCE a or `nothing(a)`"),
        (
            "`fit('my, \"e\".csv', label=COLUMN, out='m')`",
            "vitaepp fit 'my, \"e\".csv' --label COLUMN --out m",
        ),
    ],
)
def test_arguments_are_shown_as_options(text, shown):
    assert as_options(text, COMMANDS) == shown


def test_lower_floors_name_arguments_and_no_options():
    """Every backticked `name` in their messages is one that the command line can spell."""
    package = Path(library.__file__).parent
    option = re.compile(r"(?<![\w-])--[a-z]")
    for room in ("data", "ingest", "recipe"):
        for file in sorted((package / room).rglob("*.py")):
            assert not option.search(file.read_text(encoding="utf-8")), file


def test_messages_and_errors_are_spelled_for_who_reads_them(vitaepp, make_store, tmp_path):
    store = make_store(subjects=2, size=(8, 8)).path
    with pytest.raises(StoreError, match="`subjects` needs `pictures`"):
        inspect(store, subjects=1)
    err = vitaepp("inspect", store, "--subjects", 1)[2]
    assert "--subjects needs --pictures; name a file: --pictures x.png" in err


def test_results_are_json_where_a_script_reads_them(vitaepp, make_store, tmp_path):
    scan(tmp_path / "x" / "a.nii.gz")
    call = ("prepare", tmp_path / "x", "--size", 8, "--json")
    dry = json.loads(vitaepp(*call, "--dry-run")[1])
    assert (dry["subjects"], dry["store"]["size"]) == (1, [8, 8, 8])
    made = json.loads(vitaepp(*call, "--out", tmp_path / "s")[1])
    assert (made["store"], made["prepared"], made["failures"]) == (str(tmp_path / "s"), 1, [])
    told = json.loads(vitaepp("inspect", tmp_path / "s", "--json")[1])
    assert (told["subjects"], told["modalities"]) == (1, dry["store"]["modalities"])
    names = [setting["name"] for setting in json.loads(vitaepp("settings", "--json")[1])]
    assert {"seed", "prepare.size", "optim.epochs"} <= {*names}


def test_help_needs_no_settings_and_names_complete(tmp_path):
    script = """
import sys
from vitaepp.cli.app import main
sys.argv = ["vitaepp", "--help"]
try:
    main()
except SystemExit:
    heavy = {"torch", "pandas", "pydantic", "numpy"} & sys.modules.keys()
    sys.exit(f"imported {heavy}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    complete = {
        "_VITAEPP_COMPLETE": "complete_bash",
        "COMP_WORDS": "vitaepp prepare x s --center f",
        "COMP_CWORD": "5",
    }
    code = "import sys; sys.argv = ['vitaepp']; from vitaepp.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | complete,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["foreground"]


def test_every_command_is_of_the_projects_kind():
    assert all(isinstance(command, Verb) for command in COMMANDS.values())


def test_a_public_encoder_stands_for_the_run(vitaepp, clinic, tmp_path):
    published(tmp_path / "vit")
    given = ("embed", "--encoder", tmp_path / "vit", clinic / "store")
    assert vitaepp(*given, tmp_path / "e.parquet") == (0, f"{tmp_path / 'e.parquet'}\n", ANY)
    assert vitaepp(*given, "--out", tmp_path / "e.parquet", "--batch-size", 2)[0] == 0
    assert "Missing argument 'OUT.parquet'" in vitaepp(*given)[2]
    assert "unexpected extra argument" in vitaepp(*given, "run", "x")[2]
    assert "--last are of a RUN" in vitaepp(*given, "x.parquet", "--last")[2]
    assert "--slices is of --encoder" in vitaepp("embed", "r", "s", "x.parquet", "--slices", 2)[2]
