"""The dossier: its numbers can be computed again, and nothing in it is anybody's."""

import ast
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import write_store
from tests.evaluation.test_tasks import cohort
from tests.reporting.test_report import make_run
from vitaepp.data.embeddings import Embeddings, control_path
from vitaepp.data.runfolder import weights_id
from vitaepp.data.storeinfo import Account
from vitaepp.errors import RunError
from vitaepp.evaluation import evaluate
from vitaepp.evaluation.statistics import sign_flip_test
from vitaepp.presentation.names import LOSSES
from vitaepp.recipe.fields import POOLS
from vitaepp.recipe.recipe import Recipe
from vitaepp.recipe.sections import AugmentationSettings, LossSettings
from vitaepp.reporting.contents import RunContents
from vitaepp.reporting.dossier import verify
from vitaepp.reporting.dossier.checklists import CHECKLISTS
from vitaepp.reporting.dossier.dossier import dossier
from vitaepp.reporting.dossier.methods import facts_of
from vitaepp.reporting.report import report

ACCOUNT = {"found": 43, "failed": {"cannot be read: truncated": 3}, "left_out": {"a copy": 2}}


def add(run, place, label, *, protocol=None, controls=("untrained", "raw"), seed=0):
    """An evaluation of random features that know a little of a label."""
    random = np.random.default_rng(seed)
    codes = np.arange(60) % 3
    table = pd.DataFrame(
        {
            "subject": [f"Doe, Jane {i:02d}" for i in range(60)],
            "split": ["test" if i % 4 == 3 else "train" for i in range(60)],
            "grade": np.array(["I", "II", "III & IV"])[codes],
            "50%_or_more": ["yes" if c else "no" for c in codes],
            "participant": [f"Doe {i // 8} {i % 4}" for i in range(60)],
            "site": [f"site {i % 2}" for i in range(60)],
        }
    )
    if protocol == "svm":
        table = table.assign(split="").drop(columns="participant")
    file = run / f"{place}.parquet"
    for name in (None, *controls):
        features = random.normal(size=(60, 6)) + (0.5 if name is None else 0.2) * codes[:, None]
        target = file if name is None else control_path(file, name)
        facts = {"method": name or "vitae++", "encoder": weights_id(run)}
        Embeddings(table, features.astype(np.float32), facts).save(target)
    evaluate(file, label, run / place, protocol)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs, and evaluations of two and three classes, over folds and on a split."""
    home = tmp_path_factory.mktemp("dossier")
    runs = [
        make_run(home / name, reconstructed=False, trained=name == "first_run")
        for name in ("first_run", "second")
    ]
    summary = json.loads((runs[0] / "summary.json").read_text())
    summary["store"]["account"] = ACCOUNT
    (runs[0] / "summary.json").write_text(json.dumps(summary))
    recipe = (runs[0] / "recipe.yaml").read_text()
    recipe = recipe.replace("init: null", "init: /home/jane/weights/mae.pth")
    (runs[0] / "recipe.yaml").write_text(recipe)
    add(runs[0], "grades", "grade", protocol="svm")
    add(runs[0], "split", "50%_or_more")
    add(runs[1], "alone", "50%_or_more", controls=(), seed=1)
    return dossier(runs, home / "out")


def edited(folder, tmp_path, name, change):
    """A copy of a dossier with one file changed."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    edit(copy / name, change)
    return copy


def edit(file, change):
    text = file.read_text(encoding="utf-8")
    changed = change(text)
    assert changed != text
    file.write_text(changed, encoding="utf-8")


def test_verify_runs_by_itself_and_finds_every_number_right(folder):
    done = subprocess.run(
        [sys.executable, "-I", "verify.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 300
    tree = ast.parse((folder / "verify.py").read_text(encoding="utf-8"))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else name.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    standard = {"collections", "functools", "itertools", "json", "math", "pathlib", "re", "sys"}
    standard |= {"typing"}
    assert imported <= standard | {"numpy", "pandas", "scipy", "sklearn", "sksurv"}


def test_the_exact_sign_flip_test_is_that_of_the_program():
    random = np.random.default_rng(0)
    for _ in range(20):
        differences = random.integers(-3, 4, size=random.integers(1, 15))
        assert verify.sign_flip(differences) == pytest.approx(sign_flip_test(differences))


def raised(text):
    """The text with one more in the last digit of its last decimal number."""
    *_, last = re.finditer(r"\d\.\d+", text)
    digit = str((int(last[0][-1]) + 1) % 10)
    return text[: last.end() - 1] + digit + text[last.end() :]


def raised_whole(text):
    """The text with another last whole number."""
    *_, last = re.finditer(r"\b\d+\b", text)
    return text[: last.start()] + str(int(last[0]) + 1) + text[last.end() :]


def in_row(change):
    """A change of the last row that holds numbers, and not of the sentences below."""

    def apply(text):
        table, sign, rest = text.partition("\n\n- ")
        return change(table) + sign + rest

    return apply


def csv_digit(text):
    """A CSV with its first decimal number changed in the third digit."""
    found = re.search(r"\d\.\d{3}", text)
    other = str((int(found[0][-1]) + 1) % 10)
    return text[: found.end() - 1] + other + text[found.end() :]


#: Of which table what is changed, a number each.
CHANGES = (
    ("results-1.csv", csv_digit),
    ("results-2.md", raised),
    ("results-2.tex", raised),
    ("comparison-1.csv", csv_digit),
    ("comparison-1.md", in_row(raised)),
    ("comparison-2.md", lambda text: text.replace("p = 0.", "p = 9.", 1)),
    ("comparison-1.md", lambda text: text.replace("interval [", "interval [9")),
    ("comparison-2.tex", raised),
    ("subjects-1.csv", raised_whole),
    ("subjects-2.md", lambda text: text.replace("| 2 |", "| 7 |", 1)),  # the number of a fold
    ("subjects-2.csv", lambda text: text.replace("\n1,", "\n3,")),
    ("../README.md", lambda text: re.sub(r"(?<=\| )0\.", "5.", text, count=1)),
    ("../README.md", lambda text: re.sub(r"(?<=p = )0\.", "5.", text, count=1)),
    ("subjects-2.tex", lambda text: re.sub(r"& (\d+)", r"& 9\1", text, count=1)),
)


def test_every_number_that_was_changed_is_named_and_no_other(folder, tmp_path, capsys):
    """All at once: what takes seconds is to compute the right numbers, whatever stands there."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    for name, change in CHANGES:
        edit(copy / "tables" / name, change)
    assert verify.main(copy) == 1
    *named, told = capsys.readouterr().err.splitlines()
    changed = [Path(name).name for name, _ in CHANGES]
    assert sorted(line.partition(",")[0] for line in named) == sorted(changed)
    assert re.fullmatch(rf"{len(CHANGES)} of \d+ numbers differ", told)


def test_changed_predictions_are_found_and_missing_ones_are_told(folder, tmp_path, capsys):
    copy = edited(folder, tmp_path, "data/index.json", lambda text: text + "\n")
    table = pd.read_parquet(copy / "data" / "predictions-1-1.parquet")
    table["method"] = -table["method"]
    table.to_parquet(copy / "data" / "predictions-1-1.parquet", index=False)
    assert verify.main(copy) == 1
    (copy / "data" / "predictions-1-1.parquet").unlink()
    assert verify.main(copy) == 2
    assert "predictions-1-1.parquet" in capsys.readouterr().err


def test_no_file_holds_a_path_or_the_name_of_a_subject(folder):
    for file in filter(Path.is_file, folder.rglob("*")):
        content = file.read_bytes()
        for secret in (b"/home", b"jane", b"Doe", str(folder.parent).encode()):
            assert secret not in content, (file.name, secret)
    assert "mae.pth" in (folder / "recipes" / "first_run.yaml").read_text()
    ids = pd.read_parquet(folder / "data" / "predictions-2-1.parquet")["subject"]
    assert ids.str.fullmatch(r"s\d+").all()


def test_latex_tables_are_whole_and_escaped(folder):
    for file in [*folder.glob("tables/*.tex"), folder / "methods.tex"]:
        text = "".join(
            line for line in file.read_text().splitlines(True) if not line.startswith("%")
        )
        assert text.count("{") == text.count("}")
        bare = re.sub(r"\\[&%$#_{}\\]", "", text)
        assert not re.search(r"[#^~%<>_]", re.sub(r"\$[^$]*\$", "", bare)), file.name
        assert bare.count("$") % 2 == 0
        assert not re.search(r"[^\x00-\x7f]", text.replace("°", "")), file.name
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        counts = {len(re.findall(r"(?<!\\)&", row)) for row in rows}
        assert len(counts) <= 1


def test_runs_that_were_asked_the_same_stand_in_one_table(folder):
    index = json.loads((folder / "data" / "index.json").read_text())
    titles = {q["title"]: q for q in index["questions"]}
    both = index["questions"][0]
    names = [row["name"] for row in both["rows"]]
    assert any("first_run" in name for name in names)
    assert {"grade, linear SVM, 40 subjects", "grade, linear SVM, 60 subjects"} <= titles.keys()
    split = titles["50%_or_more, linear probe"]
    assert {row["predictions"] for row in split["rows"]} == {
        f"predictions-{split['number']}-{i}.parquet" for i in (1, 2)
    }
    assert len(split["compared"]) == len(split["rows"]) == 4


def test_methods_say_what_the_recipe_says(folder):
    text = (folder / "methods.md").read_text(encoding="utf-8")
    for part in (
        "43 subjects, of which 3 could not be prepared (3: cannot be read: truncated)",
        "2 images of the source were not used (2: a copy)",
        "75% of the patches were hidden",
        "started from the weights mae.pth",
        "5,400,000 parameters",
        "resampled once by linear interpolation to a spacing of 1×1×3 mm",
        "5-fold cross-validation, stratified by class",
        "given training split of 45 subjects and tested on the given test split of 15",
        "corrected resampled t-test",
        "DeLong's test",
    ):
        assert part in text, part
    assert not re.search(r"None|nan|\{|  ", text)


def sentences(*settings):
    """The facts of a run that has these settings and nothing else."""
    values = Recipe.load(settings=settings).model_dump(mode="json")
    run = RunContents("run", Path("run"), values, "", {}, None, None, [], [], [])
    return facts_of([run], [], {})


@pytest.mark.parametrize("term", LossSettings.model_fields)
def test_methods_name_every_loss_that_has_a_weight(term):
    assert term in LOSSES, "the report draws no loss without a title"
    on, off = (sentences(f"loss.{term}.weight={weight}")["losses"] for weight in (37, 0))
    assert "37" in on
    assert len(off) < len(on)
    assert " 0 times" not in off


@pytest.mark.parametrize("part", POOLS)
def test_methods_name_what_features_are_pooled_from(part):
    one, two = (
        sentences(f"model.pool={pool}", "model.pool_block=3")["features"]
        for pool in (part, f"{part}+{'mean' if part != 'mean' else 'cls'}")
    )
    assert len(one) < len(two)
    assert one.endswith("after 3 blocks.")


@pytest.mark.parametrize("name", [n for n in AugmentationSettings.model_fields if n != "aspect"])
def test_methods_name_every_augmentation_of_a_view(name):
    values = {"crop": ("0.3", "1"), "flip": ("all", "none")}.get(name, ("0.7", "0"))
    on, off = (sentences(f"views.second.{name}={value}")["views"] for value in values)
    assert len(off) < len(on)


@pytest.mark.parametrize(
    ("about", "setting"),
    [
        ("model", "model.mask_ratio=0.6"),
        ("losses", "loss.reconstruction.normalize_targets=true"),
        ("losses", "loss.reconstruction.patches=all"),
        ("losses", "loss.edge.blur=2"),
        ("losses", "loss.edge.decay=none"),
        ("losses", "loss.contrastive.features=tokens"),
        ("optimisation", "optim.lr=0.37"),
        ("optimisation", "optim.weight_decay=0.37"),
        ("optimisation", "optim.batch_size=37"),
        ("optimisation", "optim.warmup_updates=37"),
        ("optimisation", "optim.clip_norm=3"),
        ("optimisation", "model.drop_path=0.37"),
    ],
)
def test_methods_tell_of_settings_that_are_not_the_default(about, setting):
    assert sentences(setting)[about] != sentences()[about]


def test_the_flow_is_drawn_with_what_was_left_out(folder):
    drawn = [file.read_text(encoding="utf-8") for file in folder.glob("figures/flow-*.svg")]
    (svg,) = [text for text in drawn if "Found in the source" in text]
    for text in ("43 subjects", "3 subjects not prepared", "3: cannot be read: truncated"):
        assert text in svg
    assert "var(" not in svg
    for stem in ("flow-1-1", "roc-1-1", "map-1-1", "training-first_run-1"):
        assert (folder / "figures" / f"{stem}.pdf").read_bytes().startswith(b"%PDF")


def test_checklists_have_every_item_and_name_the_open_ones(folder):
    assert len(CHECKLISTS["claim"].items) == 44
    assert [item.number for item in CHECKLISTS["claim"].items] == [str(i) for i in range(1, 45)]
    tripod = [item.number for item in CHECKLISTS["tripod-ai"].items]
    assert len(set(tripod)) == len(tripod)
    assert {re.sub(r"\D", "", number) for number in tripod} == {str(i) for i in range(1, 28)}
    for stem in CHECKLISTS:
        text = (folder / "checklists" / f"{stem}.md").read_text(encoding="utf-8")
        assert "**open**" in text
        assert "| answered |" in text
        rows = [line for line in text.splitlines() if re.match(r"\| \d", line)]
        unanswered = [row.split("|")[1].strip() for row in rows if "| answered |" not in row]
        assert f"in part: {', '.join(unanswered)}." in text


def test_what_kept_persons_apart_is_what_the_design_does(tmp_path):
    run = make_run(tmp_path / "run", reconstructed=False, evaluated=False)
    add(run, "split", "50%_or_more")
    asked = {"group": "site", "protocol": "svm", "task": "classification"}
    evaluate(run / "split.parquet", "50%_or_more", run / "drawn", "svm", repeats=1, folds=3)
    evaluate(run / "split.parquet", "50%_or_more", run / "sites", leave_one_group_out=True, **asked)
    titles = re.findall(
        "^## (.*)", (dossier(run, tmp_path / "all") / "README.md").read_text(), re.MULTILINE
    )
    assert any(title.endswith(", 3 folds") for title in titles)
    assert any(title.endswith(", each site left out once") for title in titles)
    methods = {}
    for place, others in (("sites", ("drawn", "split")), ("split", ("drawn", "sites"))):
        alone = shutil.copytree(run, tmp_path / place)
        for other in others:
            shutil.rmtree(alone / other)
        methods[place] = (dossier(alone, tmp_path / f"{place}-out") / "methods.md").read_text()
        assert "Folds were drawn" not in methods[place]
        assert "in the same fold." not in methods[place]
    assert "images of a tested person at other groups were left out of" in methods["sites"]
    assert "no person was in both the training and the test split" in methods["split"]
    assert "on the same split had as controls" in methods["split"]


def test_harmonised_and_plain_features_are_two_questions(tmp_path):
    run = make_run(tmp_path / "run", reconstructed=False, evaluated=False)
    add(run, "plain", "50%_or_more", protocol="svm")
    evaluate(run / "plain.parquet", "50%_or_more", run / "h", "svm", sites="site", harmonize=True)
    metrics = json.loads((run / "h" / "metrics.json").read_text())
    (run / "h" / "metrics.json").write_text(json.dumps(metrics | {"doubts": ["9 may be missing"]}))
    folder = dossier(run, tmp_path / "out")
    assert "numbers are used:\n\n> 9 may be missing\n" in (folder / "README.md").read_text()
    assert verify.main(folder) == 0
    titles = re.findall("^## (.*)", (folder / "README.md").read_text(), re.MULTILINE)
    plain, harmonised = sorted(titles[:2], key=len)
    assert harmonised == f"{plain}, centred and scaled for each site"
    methods = (folder / "methods.md").read_text()
    assert "It was repeated with 2 draws of the folds (seeds 0 and 1)" in methods
    assert "Before, features" in methods
    assert "Folds were drawn with the seeds 0 and 1." in methods
    # Raw intensities by themselves are reduced as where they are the control, and it is said.
    alone = make_run(tmp_path / "alone", reconstructed=False, evaluated=False)
    raw = Embeddings.load(control_path(run / "plain.parquet", "raw"))
    facts = {"method": "raw", "encoder": weights_id(alone)}
    replace(raw, provenance=facts).save(alone / "raw.parquet")
    evaluate(alone / "raw.parquet", "50%_or_more", alone / "raw", "svm")
    methods = (dossier(alone, tmp_path / "raw") / "methods.md").read_text()
    assert "features, reduced by PCA on the training part." in methods
    page = report(run, tmp_path / "r.html").read_text()
    assert page.count("Probabilities and decisions, in the first draw of the folds") == 2


def test_a_store_tells_what_an_older_run_does_not_know(tmp_path):
    run = make_run(tmp_path / "run", reconstructed=False)
    store = write_store(tmp_path / "store", subjects=40, size=(4, 4, 4))
    account = Account(41, {"all its voxels are the same": 1}, {})
    (tmp_path / "store" / "account.json").write_text(json.dumps(asdict(account)))
    out = dossier(run, tmp_path / "out", store=store.path)
    assert "41 subjects" in (out / "figures" / "flow-1.svg").read_text()
    other = write_store(tmp_path / "other", subjects=4, size=(4, 4, 4))
    with pytest.raises(RunError, match="has 4 subjects, but run was trained on a store with 40"):
        dossier(run, tmp_path / "again", store=other.path)
    assert not (tmp_path / "again").exists()


def test_what_cannot_be_written_about_is_refused(folder, tmp_path):
    bare = make_run(tmp_path / "bare", evaluated=False, reconstructed=False)
    with pytest.raises(RunError, match="no evaluation with its predictions"):
        dossier(bare, tmp_path / "out")
    with pytest.raises(RunError, match="no run to write about"):
        dossier([], tmp_path / "out")
    with pytest.raises(RunError, match="a dossier, in which somebody may have written"):
        dossier(bare, folder)
    with pytest.raises(RunError, match="holds files"):
        dossier(bare, bare)
    with pytest.raises(RunError, match="is a file"):
        dossier(bare, bare / "recipe.yaml")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """A run that was asked for a value, grades, several labels and survival."""
    pytest.importorskip("sksurv")
    home = tmp_path_factory.mktemp("outcomes")
    run = make_run(home / "run", evaluated=False, reconstructed=False)
    features, table, noise = cohort()
    split = np.where(np.arange(len(table)) % 4 == 0, "test", "train")
    asked = {
        "value": ("volume", {"task": "regression", "folds": 3}),
        "value-split": ("volume", {"task": "regression", "protocol": "linear"}),
        "grade": ("grade", {"task": "ordinal", "folds": 3}),
        "labels": ("sick,old", {"task": "multilabel", "folds": 3}),
        "time": (None, {"task": "survival", "time": "months", "event": "died", "folds": 3}),
        "time-split": (None, {"task": "survival", "time": "months", "event": "died"}),
    }
    for place, (label, options) in asked.items():
        given = table.assign(split="")
        if place.endswith("-split"):  # two images of each person
            rows = np.arange(len(table))
            given = table.assign(split=split, participant=rows // 8 * 4 + rows % 4)
        file = run / f"{place}.parquet"
        for method, values in (("untrained", noise), ("vitae++", features)):
            path = control_path(file, method) if method == "untrained" else file
            facts = {"method": method, "encoder": weights_id(run)}
            Embeddings(given, values.astype(np.float32), facts).save(path)
        evaluate(file, label, run / place, **options)
    return dossier(run, home / "out")


def test_verify_computes_the_numbers_of_every_task_again(outcomes):
    done = subprocess.run(
        [sys.executable, "-I", "verify.py"],
        cwd=outcomes,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert int(first.split()[0]) > 400
    # Of a split, the times of the training part are in no predictions.
    index = json.loads((outcomes / "data" / "index.json").read_text())
    (split,) = [q for q in index["questions"] if q["task"] == "survival" and len(q["train"]) == 1]
    unknown = {part.strip() for part in second.split(": ", 1)[1].split(";")}
    stem = f"results-{split['number']}.csv"
    assert unknown == {
        f"{stem}, {row['name']}, {metric}" for row in split["rows"] for metric in ("c_uno", "auc")
    }
    assert len({q["task"] for q in index["questions"]}) == 4


def test_a_changed_number_of_every_task_is_named(outcomes, tmp_path, capsys):
    copy = shutil.copytree(outcomes, tmp_path / "copy")
    names = sorted(file.name for file in copy.glob("tables/*.csv"))
    for name in names:
        edit(copy / "tables" / name, in_first_row)
    assert verify.main(copy) == 1
    *named, _ = capsys.readouterr().err.splitlines()
    assert sorted(line.partition(",")[0] for line in named) == names


def in_first_row(text):
    """A CSV with the first number of its first row changed in a digit that counts."""
    head, first, *rows = text.rstrip("\n").split("\n")
    found = re.search(r"(?<=,)-?\d+(\.\d{2})?", first)
    number = found[0][:-1] + str((int(found[0][-1]) + 1) % 10)
    first = first[: found.start()] + number + first[found.end() :]
    return "\n".join([head, first, *rows]) + "\n"


def test_methods_tell_of_every_task(outcomes):
    text = (outcomes / "methods.md").read_text(encoding="utf-8")
    for part in (
        "ridge regression",
        "Cox regression",
        "threshold model of ordered classes",
        "linear SVM on 5 features, one for each label",
        "Its alpha was chosen among",
        "3-fold cross-validation, stratified by event",
        "balanced over ranges of the value",
        "the mean of the training part",
        "MAE, RMSE, R², Pearson's r and Spearman's ρ are given",
        "Harrell's C-index, Uno's C and AUC are given",
        "Wilcoxon's signed-rank test",
        "2,000 resamples, trained models held fixed",
        "follow-up in the unit of months",
        "80 subjects with values in the columns sick, old were evaluated",
    ):
        assert part in text, part
    assert not re.search(r"None|nan|\{|  ", text)
    assert list((outcomes / "figures").glob("survival-*.pdf"))


@pytest.mark.parametrize("split", [False, True])
def test_verify_draws_and_tests_persons_where_they_have_several_images(tmp_path, split):
    run = make_run(tmp_path / "run", reconstructed=False)
    features, table, noise = cohort()
    table["split"] = np.where(np.arange(len(table)) // 2 % 3 == 0, "test", "train") if split else ""
    table["participant"] = [f"Doe {i // 2}" for i in range(len(table))]
    for name, values in ((None, features + 2 * features[:, :1]), ("untrained", noise)):
        file = run / "e.parquet"
        file = file if name is None else control_path(file, name)
        facts = {"method": name or "vitae++", "encoder": weights_id(run)}
        Embeddings(table, values.astype(np.float32), facts).save(file)
    evaluate(run / "e.parquet", "sick", run / "sick", folds=3)
    evaluate(run / "e.parquet", "volume", run / "volume", folds=3, task="regression")
    folder = dossier([run], tmp_path / "out")
    assert verify.main(folder) == 0
    known = 0
    for file in (folder / "data").glob("*.parquet"):
        rows = pd.read_parquet(file)
        if "person" in rows:
            assert rows["person"].nunique() == rows["subject"].nunique() // 2
            assert ("draw" in rows) == (not split)
            rows.drop(columns="person").to_parquet(file)
            known += 1
    assert known == 2
    assert verify.main(folder) == 1


def test_verify_agrees_where_only_those_trained_on_have_several_images(tmp_path):
    run = make_run(tmp_path / "run", reconstructed=False)
    features, table, noise = cohort()
    test = np.arange(len(table)) % 3 == 0
    table["split"] = np.where(test, "test", "train")
    table["participant"] = [f"Doe {i}" if t else f"Roe {i // 6}" for i, t in enumerate(test)]
    facts = {"encoder": weights_id(run)}
    for name, values in (("vitae++", features + features[:, :1]), ("untrained", noise)):
        file = run / "e.parquet" if name == "vitae++" else control_path(run / "e.parquet", name)
        Embeddings(table, values.astype(np.float32), facts | {"method": name}).save(file)
    evaluate(run / "e.parquet", "sick", run / "sick")
    folder = dossier([run], tmp_path / "out")
    made = [pd.read_csv(file) for file in sorted((folder / "tables").glob("comparison-*.csv"))]
    assert len(made) == 2
    assert all(table[["low", "high", "p"]][1:].notna().all(axis=None) for table in made)
    assert verify.main(folder) == 0
