"""Neighbours: who is similar, whether labels agree, and who is there twice."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

import vitaepp
from vitaepp.data.embeddings import Embeddings, control_path
from vitaepp.errors import EvaluationError, SourceError


def write(path, features, **columns):
    """An embeddings file whose subjects are in another order than that of their names."""
    names = [f"s{(7 * i) % 1000:03d}" for i in range(len(features))]
    table = pd.DataFrame({"subject": names, **columns, "split": ""})
    Embeddings(table, np.asarray(features, np.float32)).save(path)
    return table


def test_similarity_is_the_cosine_of_standardised_features(tmp_path, capsys):
    rng = np.random.default_rng(0)
    features = 50 + rng.normal(size=(40, 6)) * [1, 10, 100, 1, 1, 0]
    table = write(tmp_path / "e.parquet", features)
    found = vitaepp.neighbours(tmp_path / "e.parquet", tmp_path / "out", k=3)
    assert "is not beside it: there are no pictures" in capsys.readouterr().err
    z = StandardScaler().fit_transform(features.astype(np.float32).astype(float))
    distances, rows = NearestNeighbors(n_neighbors=4, metric="cosine").fit(z).kneighbors(z)
    written = pd.read_csv(tmp_path / "out" / "neighbours.csv", keep_default_na=False)
    columns = ["query", "rank", "subject", "similarity", "label", "same_participant"]
    assert list(written) == columns
    assert not written.same_participant.any()
    by_query = written.set_index("query")
    for i, subject in enumerate(table.subject):
        own = by_query.loc[subject]
        assert own["rank"].tolist() == [1, 2, 3]
        assert own.subject.tolist() == table.subject[rows[i, 1:]].tolist()
        assert np.allclose(own.similarity, 1 - distances[i, 1:], atol=1e-5)
    assert str(found).splitlines()[0] == "40 subjects: the 3 nearest others of each"
    assert not list((tmp_path / "out").glob("*.png"))


def test_precision_counts_other_participants_and_stands_beside_chance(tmp_path):
    rng = np.random.default_rng(1)
    kind, participant = np.arange(60) % 3, np.arange(60) // 4
    features = rng.normal(size=(60, 5)) + 1.5 * (kind[:, None] == np.arange(5))
    features += rng.normal(size=(15, 5))[participant] * 3  # images of a person are alike
    path = tmp_path / "e.parquet"
    kinds = pd.Series(kind).map({0: "a", 1: "b", 2: "c"})
    kinds[7] = None
    table = write(path, features, kind=kinds, participant=participant)
    control = Embeddings(table, rng.normal(size=(60, 4)).astype(np.float32))
    control.save(control_path(path, "untrained"))
    found = vitaepp.neighbours(path, tmp_path / "out", label="kind")
    metrics = json.loads((tmp_path / "out" / "neighbours.json").read_text())
    assert metrics == found.metrics
    z = StandardScaler().fit_transform(features.astype(np.float32).astype(float))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    right, chance = [], []
    for i in np.flatnonzero(kinds.notna()):
        others = np.flatnonzero(kinds.notna() & (participant != participant[i]))
        nearest = others[np.argsort(-(z[others] @ z[i]))[:5]]
        right.append(np.mean(kinds[nearest] == kinds[i]))
        chance.append(np.mean(kinds[others] == kinds[i]))
    at = metrics["precision"]["5"]
    assert at["value"] == pytest.approx(np.mean(right))
    assert at["chance"] == pytest.approx(np.mean(chance))
    assert at["low"] < at["value"] < at["high"]
    assert at["value"] > at["chance"] + 0.05
    random = metrics["controls"]["untrained"]["precision"]["5"]
    assert abs(random["value"] - random["chance"]) < 0.15
    assert metrics["labelled"] == 59
    assert metrics["participants"] == 15
    assert found.table.same_participant.mean() > 0.2
    assert f"precision at 5: {at['value']:.3f}" in str(found)


def test_an_interval_over_participants_is_wider_than_over_images(tmp_path):
    rng = np.random.default_rng(2)
    participant = np.repeat(np.arange(12), 6)
    features = rng.normal(size=(12, 4))[participant] + 0.1 * rng.normal(size=(72, 4))
    kind = (np.arange(12) % 2)[participant]
    widths = []
    for name, columns in (("with", {"participant": participant}), ("without", {})):
        write(tmp_path / f"{name}.parquet", features, kind=kind, **columns)
        found = vitaepp.neighbours(tmp_path / f"{name}.parquet", tmp_path / name, label="kind")
        at = found.metrics["precision"]["10"]
        widths.append(at["high"] - at["low"])
    assert widths[0] > 1.5 * widths[1]


def test_near_duplicates_are_found_and_nothing_else(tmp_path):
    by_chance = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        plain = rng.normal(size=(150, 6)) @ rng.normal(size=(6, 40))
        write(tmp_path / "plain.parquet", plain)
        by_chance += len(vitaepp.neighbours(tmp_path / "plain.parquet", tmp_path / "p").duplicates)
    assert by_chance <= 1
    noise = 0.02 * rng.normal(size=(2, 40))
    copies = np.concatenate([plain, plain[:3], plain[3:5] + noise, plain[:1]])
    table = write(tmp_path / "copies.parquet", copies)
    found = vitaepp.neighbours(tmp_path / "copies.parquet", tmp_path / "c")
    pairs = [(0, 150), (1, 151), (2, 152), (3, 153), (4, 154), (0, 155), (150, 155)]
    expected = {frozenset(table.subject[list(pair)]) for pair in pairs}
    assert {frozenset(p) for p in found.duplicates[["subject", "other"]].to_numpy()} == expected
    # Also where every subject is there twice, and where there are few.
    write(tmp_path / "all.parquet", np.concatenate([plain, plain]))
    assert len(vitaepp.neighbours(tmp_path / "all.parquet", tmp_path / "a").duplicates) == 150
    write(tmp_path / "few.parquet", np.concatenate([plain[:5], plain[:1]]))
    found = vitaepp.neighbours(tmp_path / "few.parquet", tmp_path / "f")
    assert len(found.duplicates) == 1
    assert found.table["rank"].max() == 5


def test_a_new_scan_is_held_against_the_cohort(clinic, command, tmp_path):
    known = clinic / "scans" / "p03.png"
    values = 255 - np.asarray(Image.open(known))
    Image.fromarray(values).save(tmp_path / "new.png")
    (tmp_path / "bad.png").write_bytes(b"broken")
    status, out, err = command(
        "neighbours", clinic / "e.parquet", "--out", tmp_path / "out", "--label", "kind",
        "--query", known, "--query", tmp_path / "new.png", "--query", tmp_path / "bad.png",
        "--k", 2,
    )  # fmt: skip
    assert (status, "bad: bad.png: cannot be read" in err) == (1, True)
    assert "p03: p03 (1.00, loud)" in out
    table = pd.read_csv(tmp_path / "out" / "neighbours.csv")
    assert table["query"].tolist() == ["p03", "p03", "new", "new"]
    assert table.iloc[0][["subject", "label"]].tolist() == ["p03", "loud"]
    assert table.similarity[0] == pytest.approx(1, abs=1e-5)
    twice = pd.read_csv(tmp_path / "out" / "near_duplicates.csv")
    assert twice[["subject", "other", "correlation"]].to_numpy().tolist() == [["p03", "p03", 1.0]]
    # The page has a line a query: the scan and two neighbours, each of 144 pixels.
    page = np.asarray(Image.open(tmp_path / "out" / "neighbours.png").convert("L"))
    assert page.shape[1] == 3 * 148 - 4
    pictures = [Image.fromarray(page[68:212, x : x + 144]).resize((16, 16)) for x in (0, 148)]
    assert np.array_equal(*pictures)
    assert (tmp_path / "out" / "near_duplicates.png").is_file()
    # An array in memory is a scan, too, and gives the same.
    found = vitaepp.neighbours(clinic / "e.parquet", tmp_path / "again", query=values, k=2)
    assert found.table.subject.tolist() == table.subject[2:].tolist()
    assert found.metrics["queries"] == 1
    # Of the cohort without new scans, nobody is there twice; pages that were there are gone.
    vitaepp.neighbours(clinic / "e.parquet", tmp_path / "out", subjects=3)
    assert not (tmp_path / "out" / "near_duplicates.png").exists()


def test_what_cannot_be_done_is_said(clinic, tmp_path, capsys):
    e, out = clinic / "e.parquet", tmp_path / "out"
    with pytest.raises(EvaluationError, match="no label column 'kin'; did you mean kind"):
        vitaepp.neighbours(e, out, label="kin")
    with pytest.raises(SourceError, match="is a store; give scans, or embed the store"):
        vitaepp.neighbours(e, out, query=clinic / "store")
    (tmp_path / "bad.png").write_bytes(b"broken")
    capsys.readouterr()
    with pytest.raises(SourceError, match=r"^bad: bad\.png: "):
        vitaepp.neighbours(e, out, query=tmp_path / "bad.png")
    assert "bad:" not in capsys.readouterr().err  # the reason is said once, in the error
    twice = [tmp_path / "bad.png"] * 2
    with pytest.raises(SourceError, match="none of 2 scans can be read; the first is bad: "):
        vitaepp.neighbours(e, out, query=twice)
    with pytest.raises(EvaluationError, match="`k=0`"):
        vitaepp.neighbours(e, out, k=0)
    embedded = Embeddings.load(e)
    other = replace(embedded, table=embedded.table.assign(participant="one"))
    other.save(tmp_path / "one.parquet")
    with pytest.raises(EvaluationError, match="all labelled subjects are of one participant"):
        vitaepp.neighbours(tmp_path / "one.parquet", out, label="kind")
    renamed = replace(embedded, table=embedded.table.replace({"subject": {"p05": "q05"}}))
    renamed.save(tmp_path / "renamed.parquet")
    with pytest.raises(EvaluationError, match=r"has no subject q05 \(1 of 24 subjects"):
        vitaepp.neighbours(tmp_path / "renamed.parquet", out, store=clinic / "store")
    assert not list(out.glob("*"))
    changed = shutil.copytree(clinic / "store", tmp_path / "changed")
    table = pd.read_parquet(changed / "table.parquet").assign(checksum="other")
    table.to_parquet(changed / "table.parquet")
    capsys.readouterr()
    vitaepp.neighbours(e, out, store=changed)
    assert "holds other images than those that were embedded" in capsys.readouterr().err
