"""The audit as a whole: what was planted is found, and what was not is not."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.auditing.cohorts import write_cohort
from vitaepp.auditing.audit import audit, joined
from vitaepp.auditing.facts import facts_of
from vitaepp.data.embeddings import Embeddings
from vitaepp.data.store import Store
from vitaepp.errors import EvaluationError, SourceError
from vitaepp.evaluation.statistics import holm

N = 60


def ask(paths, folder, **options):
    """An audit of few folds, which saves time."""
    return audit(*paths, "sick", folder / "audit", folds=3, **options)


@pytest.fixture(scope="module")
def label():
    return np.arange(N) % 2


@pytest.fixture(scope="module")
def site():
    """Of two sites, independent of the label."""
    return np.array(["north", "south"])[np.arange(N) // 2 % 2]


@pytest.fixture(scope="module")
def planted(tmp_path_factory, label):
    """The site changes brightness, and most of the sick are from one; the label changes nothing."""
    folder = tmp_path_factory.mktemp("planted")
    south = np.where(np.random.default_rng(1).random(N) < 0.1, 1 - label, label)
    site = np.array(["north", "south"])[south]
    people = [f"p{i}" for i in range(N)]
    columns = {"sick": label, "site": site, "participant": people}
    paths = write_cohort(folder, columns, brighter=15.0 * south)
    return ask(paths, folder), folder


@pytest.fixture(scope="module")
def unrelated(tmp_path_factory, label, site):
    """The site changes brightness and goes with nothing; the scanner does not even that."""
    folder = tmp_path_factory.mktemp("unrelated")
    scanner = np.array(["one", "two"])[np.random.default_rng(5).permutation(N) % 2]
    columns = {"sick": label, "site": site, "scanner": scanner}
    paths = write_cohort(folder, columns, brighter=15.0 * (site == "south"))
    return ask(paths, folder)


def test_a_site_that_goes_with_the_label_is_a_shortcut(planted):
    found, _ = planted
    assert found["site from the embedding"].verdict == "red"
    assert found["site from the embedding"].score > 0.95
    assert "possible shortcut" in found["site from the embedding"].sentence
    assert found["label from site"].verdict == "red"
    assert found["label from all of this metadata"].verdict == "red"
    assert found["label from the embedding without metadata"].verdict == "red"
    assert found["participants"].verdict == "green"


def test_a_site_that_does_not_go_with_the_label_is_told_but_no_shortcut(unrelated):
    assert unrelated["site from the embedding"].verdict == "yellow"
    assert "is not shown to tell sick here: no shortcut is seen" in (
        unrelated["site from the embedding"].sentence
    )
    assert unrelated["label from site"].verdict == "green"
    assert unrelated["participants"].verdict == "yellow"


def test_what_was_not_planted_is_not_found(unrelated):
    asked = ["scanner from the embedding", "label from scanner", "errors by scanner"]
    asked += ["label from all of this metadata", "near-duplicates", "errors by site"]
    assert {what: unrelated[what].verdict for what in asked} == dict.fromkeys(asked, "green")


def test_the_file_is_a_list_with_the_keys_of_the_contract(planted):
    found, folder = planted
    read = json.loads((folder / "audit" / "audit.json").read_text())
    assert read == found.to_json()
    for item in read:
        assert {"what", "score", "verdict", "sentence"} <= set(item)
        assert item["verdict"] in ("green", "yellow", "red")
        assert isinstance(item["score"], int | float)
        assert "s0" not in item["sentence"]  # no subject is named
    table = pd.read_csv(folder / "audit" / "audit.csv")
    assert list(table["what"]) == [item["what"] for item in read]
    lines = (folder / "audit" / "audit.md").read_text().splitlines()
    assert len(lines) == len(read) + 2
    assert not (folder / "audit" / "duplicates.csv").exists()


def test_all_tests_of_an_audit_are_corrected_together(planted):
    found, _ = planted
    tested = [item.more for item in found if "p" in item.more]
    assert len(tested) == found["not asked"].more["tests"] == 3
    assert [m["p_holm"] for m in tested] == pytest.approx(holm([m["p"] for m in tested]))


def test_the_size_of_the_original_is_found(tmp_path, label):
    """As in the crops of the hippocampus: padding, and nothing else, goes with the label."""
    padded = np.random.default_rng(0).integers(0, 3, N) + label
    paths = write_cohort(tmp_path, {"sick": label}, padded=padded)
    found = ask(paths, tmp_path)
    for what in ("original size", "empty border"):
        assert found[f"{what} from the embedding"].verdict == "red"
        assert found[f"label from {what}"].score == pytest.approx(0.78, abs=0.08)


def test_a_number_that_most_share_is_asked_in_fewer_folds_or_named(tmp_path, label, capsys):
    """Of `age`, two parts vary and three do not; of `age_at_scan`, no two parts do."""
    rows = np.arange(20)
    columns = {"sick": label[:20], "age": np.where(rows < 15, 60, rows)}
    columns["age_at_scan"] = np.where(rows < 18, 60, rows)
    found = ask(write_cohort(tmp_path, columns), tmp_path)
    asked = [name for name in columns if f"{name} from the embedding" in {i.what for i in found}]
    assert asked == ["age"]
    assert "evaluate age: 4 of 4" in capsys.readouterr().err  # two folds, two models each
    silent = "age_at_scan (nearly all have the same value)"
    assert silent in found["not asked"].more["not_asked"]


def test_an_image_on_both_sides_of_a_split_is_found(tmp_path, label):
    images = np.arange(N)
    images[1], images[4] = 0, 2  # of another class, and of the same
    split = np.array(["train", "test"])[(np.arange(N) % 3 == 1).astype(int)]
    paths = write_cohort(tmp_path, {"sick": label, "split": split}, images=images)
    found = ask(paths, tmp_path)["near-duplicates"]
    assert (found.verdict, found.score) == ("red", 2)
    assert found.more["of_different_labels"] == 1
    pairs = pd.read_csv(tmp_path / "audit" / "duplicates.csv")
    assert sorted(zip(pairs["first"], pairs["second"], strict=True)) == [
        ("s000", "s001"),
        ("s002", "s004"),
    ]
    assert pairs["both sides"].all()


def test_twins_of_one_participant_are_kept_together(tmp_path, label):
    images = np.arange(N)
    images[2] = 0
    people = [f"p{0 if i == 2 else i}" for i in range(N)]
    paths = write_cohort(tmp_path, {"sick": label, "participant": people}, images=images)
    found = ask(paths, tmp_path)["near-duplicates"]
    assert (found.score, found.more["metric"]) == (0, "pairs across a split")
    assert (found.verdict, found.more["pairs"], found.more["of_one_participant"]) == ("green", 1, 1)


def test_without_metadata_it_says_what_cannot_be_asked(tmp_path, label):
    paths = write_cohort(tmp_path, {"sick": label})
    found = ask(paths, tmp_path)
    assert [item.what for item in found] == ["participants", "near-duplicates", "not asked"]
    last = found["not asked"]
    assert last.verdict == "yellow"
    assert last.sentence.startswith("No metadata varies")
    assert {"site (no column)", "scanner (no column)"} <= set(last.more["not_asked"])
    assert "original size" in last.more["constant"]


def test_bad_columns_are_named_and_not_asked(tmp_path, label):
    paths = write_cohort(
        tmp_path,
        {
            "sick": label,
            "site": [f"only {i}" for i in range(N)],
            "scanner": ["one"] * (N - 1) + ["other"],
            "sex": ["f"] * N,
            "age": [50.0] * 10 + [np.nan] * (N - 10),
        },
    )
    more = ask(paths, tmp_path)["not asked"].more
    assert "sex" in more["constant"]
    reasons = " ".join(more["not_asked"])
    assert "site (no two classes have 5 participants each)" in reasons
    assert "scanner (no two classes" in reasons
    assert "age (known of" in reasons


def test_a_table_of_labels_and_named_columns(tmp_path, label, site, capsys):
    path, store = write_cohort(tmp_path, {"sick": label, "room": site})
    clinical = pd.DataFrame({"subject": [f"s{i:03d}" for i in range(N)], "Gender": site})
    clinical.to_csv(tmp_path / "clinical.csv", index=False)
    found = ask((path, store), tmp_path, labels=tmp_path / "clinical.csv")
    assert "label from Gender" in {item.what for item in found}
    assert found["not asked"].more["unused"] == ["room"]
    assert "not taken for metadata by their names: room" in capsys.readouterr().err
    table, _, _, encoder = joined(path, Store(store), None, None)
    assert encoder == found["participants"].more["encoder"] == "these weights"
    facts = facts_of(table, Store(store), np.zeros((N, 2), int), np.arange(N), "sick", ["room"])
    assert [fact.name for fact in facts.usable] == ["room"]


def test_what_is_refused(tmp_path, label, site):
    columns = {"sick": label, "site": site}
    path, store = write_cohort(tmp_path / "one", columns)
    _, other = write_cohort(tmp_path / "other", columns, seed=1, padded=1)
    _, fewer = write_cohort(tmp_path / "fewer", {"sick": label[:20]})
    out = tmp_path / "audit"
    with pytest.raises(EvaluationError, match="no label column 'sik'"):
        audit(path, store, "sik", out)
    with pytest.raises(EvaluationError, match="40 of its 60 subjects are not in"):
        audit(path, fewer, "sick", out)
    with pytest.raises(EvaluationError, match="no column 'sit'; did you mean site"):
        audit(path, store, "sick", out, metadata=["sit"])
    with pytest.raises(EvaluationError, match="sick is the label"):
        audit(path, store, "sick", out, metadata=["sick"])
    with pytest.raises(EvaluationError, match="no class 'ill'"):
        audit(path, store, "sick", out, positive="ill")
    with pytest.raises(EvaluationError, match="give that, too"):
        audit(path, store, "sick", out, id_column="id")
    with pytest.raises(SourceError, match="no such file"):
        audit(path, store, "sick", out, labels=tmp_path / "none.csv")
    (tmp_path / "file").touch()
    with pytest.raises(EvaluationError, match="is a file; give a folder"):
        audit(path, store, "sick", tmp_path / "file")
    assert not (out / "audit.json").exists()
    assert other != store


def test_the_verb_prints_what_it_writes(tmp_path, label):
    from vitaepp.cli.app import app

    paths = write_cohort(tmp_path, {"sick": label})
    arguments = ["audit", *map(str, paths), "--label", "sick", "--json", "--folds", "3"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "audit")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "audit" / "audit.json").read_text() in result.stdout


def test_values_that_were_corrected_in_the_store_count(tmp_path, label, site, caplog):
    """Embeddings keep the table of their day; as a CSV file, they write it in another way."""
    age = np.where(np.arange(N) % 7, np.arange(N) / 3, np.nan)
    columns = {"sick": label, "site": site, "age": age, "seen": label == 1, "code": "01"}
    path, store = write_cohort(tmp_path, columns)
    Embeddings.load(path).save(tmp_path / "e.csv")
    for file in (path, tmp_path / "e.csv"):
        joined(file, Store(store), None, None)
    assert "differ" not in caplog.text
    table = pd.read_parquet(Path(store) / "table.parquet")
    told = np.where(label == 1, "south", "north")  # a perfect shortcut
    split = np.where(np.arange(N) % 3, "train", "test")
    table = table.assign(site=told, split=split, age=age + 1)
    table.to_parquet(Path(store) / "table.parquet")
    found = ask((path, store), tmp_path)
    assert found["label from site"].score == 1
    assert found["label from site"].verdict == "red"
    count = (told != site).sum()
    assert f"site ({count} subjects)" in caplog.text
    now, *_ = joined(path, Store(store), None, None)
    for name in ("site", "split", "age"):
        assert now[name].equals(table[name])
