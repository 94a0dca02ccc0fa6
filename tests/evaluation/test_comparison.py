"""Comparing evaluations: only like with like, and no sentence says more than its test."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

import vitaepp
from vitaepp.cli.app import app
from vitaepp.data.embeddings import Embeddings, control_path
from vitaepp.errors import EvaluationError
from vitaepp.evaluation import evaluate
from vitaepp.evaluation.classifier import outer_folds
from vitaepp.evaluation.comparison import compare
from vitaepp.evaluation.delong import delong_test
from vitaepp.evaluation.difference import difference_between
from vitaepp.evaluation.measures import spread
from vitaepp.evaluation.result import Evaluation, score_columns
from vitaepp.evaluation.scores import fold_scores
from vitaepp.evaluation.statistics import corrected_resampled_t_test


@pytest.fixture
def evaluated(tmp_path):
    """Write an evaluation of decision scores whose signal is as strong as is said.

    Without classifiers, which would take seconds; one test below takes a real one.
    """

    def make(name, signal, *, n=60, split=None, encoder=0, seed=0, classes=2, shift=0, **more):
        codes = np.arange(n) % classes
        codes[: more.get("relabelled", 0)] = 1
        rows = np.arange(n) if split is None else np.flatnonzero(np.array(split) == "test")
        fold_of = np.zeros(n, int)
        if split is None:
            fold_of = outer_folds(codes, folds=5, seed=seed)
        order = rows[np.argsort(fold_of[rows], kind="stable")]
        folds = range(fold_of.max() + 1)
        tested = [int((fold_of[rows] == k).sum()) for k in folds]
        table = {
            "subject": [f"s{i + shift:03d}" for i in order],
            "fold": fold_of[order],
            "label": [str(codes[i]) for i in order],
        }
        parts = {}
        for key, drawn in (("method", [2, encoder]), ("untrained", [3, encoder]), ("raw", [4])):
            noise = np.random.default_rng(drawn).normal(size=(n, classes))
            scores = noise + (signal if key == "method" else 0.3) * np.eye(classes)[codes]
            scores = scores[:, 1] - scores[:, 0] if classes == 2 else scores
            columns = scores[order].reshape(len(order), -1).T
            table |= dict(zip(score_columns(key, tuple(range(classes))), columns, strict=True))
            rows_of = [order[fold_of[order] == k] for k in folds]
            found = [fold_scores(codes[r], scores[r]) for r in rows_of]
            mean, std = spread(found)
            parts[key] = {"folds": found, "mean": mean, "std": std}
        metrics = {
            "protocol": "svm" if split is None else "linear",
            "label": "grade",
            "n": n,
            "classes": list(range(classes)),
            **parts.pop("method"),
            "controls": parts,
            "sizes": [{"train": n - t, "test": t} for t in tested],
            "seed": seed,
        }
        folder = tmp_path / name / "evaluation"
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(table).to_parquet(folder / "predictions.parquet", index=False)
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    return make


TEST = ["test" if i % 5 < 2 else "train" for i in range(90)]


def test_the_difference_over_folds_is_that_of_the_metrics(evaluated):
    strong, weak = Evaluation.load(evaluated("a", 3.0)), Evaluation.load(evaluated("b", 0.5))
    found = difference_between([strong], [weak])
    folds = [np.array([f["auc"] for f in o.metrics["folds"]]) for o in (strong, weak)]
    t = corrected_resampled_t_test(folds[0] - folds[1], train=48, test=12)
    assert found.metric == "auc"
    assert (found.mean, found.p) == pytest.approx((t.mean, t.p))
    assert found.mean == pytest.approx(strong.metrics["mean"]["auc"] - weak.metrics["mean"]["auc"])
    assert (found.test, found.folds, found.seeds) == ("corrected resampled t-test", 5, 1)
    assert found.interval.low < found.mean < found.interval.high
    assert json.loads(json.dumps(found.to_json()))["interval"]["level"] == 0.95
    back = difference_between([weak], [strong])
    assert (back.mean, back.p) == pytest.approx((-found.mean, found.p))


def test_a_method_is_compared_with_its_own_control(evaluated):
    outcome = Evaluation.load(evaluated("a", 3.0))
    found = difference_between([outcome], [outcome], reference_key="untrained", metric="accuracy")
    untrained = outcome.metrics["controls"]["untrained"]["mean"]["accuracy"]
    assert found.mean == pytest.approx(outcome.metrics["mean"]["accuracy"] - untrained)
    assert found.p < 0.05
    itself = difference_between([outcome], [outcome])
    assert (itself.mean, itself.p, itself.interval.low, itself.interval.high) == (0, 1, 0, 0)
    with pytest.raises(EvaluationError, match="has no 'raww'; did you mean raw"):
        difference_between([outcome], [outcome], reference_key="raww")


def test_one_test_split_is_compared_by_who_is_right(evaluated):
    a, b = (
        Evaluation.load(evaluated(name, signal, n=90, split=TEST))
        for name, signal in (("a", 3.0), ("b", 0.8))
    )
    right = [(o.scores("method") > 0) == (o.codes() == 1) for o in (a, b)]
    disagreed = [int((x & ~y).sum()) for x, y in (right, right[::-1])]
    found = difference_between([a], [b], metric="accuracy")
    assert found.p == pytest.approx(stats.binomtest(disagreed[0], sum(disagreed)).pvalue)
    assert (found.metric, found.test, found.folds) == ("accuracy", "McNemar's exact test", 1)
    positive = a.codes() == 1
    only = [int((x & ~y & positive).sum()) for x, y in (right, right[::-1])]
    sensitivity = difference_between([a], [b], metric="sensitivity")
    assert sensitivity.p == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue)
    auc = difference_between([a], [b])
    assert (auc.metric, auc.test) == ("auc", "DeLong's test")
    assert auc.p == delong_test(a.codes(), a.scores("method"), b.scores("method"))["p"]
    assert auc.interval.low <= auc.mean <= auc.interval.high
    # The note under the table says of how many subjects the scores are.
    assert "grade, 90 subjects, 36 of them tested; p: " in str(compare(a, b))
    seeds = [Evaluation.load(evaluated(f"c{i}", 3.0, n=90, split=TEST, encoder=i)) for i in (1, 2)]
    several = difference_between([a, seeds[0]], [b, seeds[1]], metric="accuracy")
    assert (several.seeds, several.test) == (2, "exact sign-flip test over subjects")


def test_the_mean_auc_of_several_seeds_has_delongs_test(evaluated):
    """By the definition: components of each subject, averaged over seeds before the variance."""
    sides = [
        [Evaluation.load(evaluated(f"{s}{i}", s, n=90, split=TEST, encoder=i)) for i in (1, 2, 3)]
        for s in (3.0, 0.8)
    ]
    positive = sides[0][0].codes() == 1
    scores = [np.mean([_components(positive, e.scores("method")) for e in s], 0) for s in sides]
    difference = scores[0] - scores[1]
    parts = [difference[side] for side in (positive, ~positive)]
    z = parts[0].mean() / np.sqrt(sum(np.var(part, ddof=1) / len(part) for part in parts))
    found = difference_between(*sides)
    assert (found.test, found.seeds) == ("DeLong's test", 3)
    assert found.mean == pytest.approx(parts[0].mean())
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(z)))
    # The same seed three times says no more than once.
    once = difference_between(sides[0][:1], sides[1][:1])
    assert difference_between(sides[0][:1] * 3, sides[1][:1] * 3).p == pytest.approx(once.p)


def _components(positive, score):
    """How often each subject stands on the right side of those of the other class."""
    wins = np.sign(score[:, None] - score) / 2 + 0.5
    return np.where(positive, wins[:, ~positive].mean(1), 1 - wins[:, positive].mean(1))


def test_seeds_on_new_folds_are_repetitions_and_on_the_same_folds_they_are_not(evaluated):
    def sides(seeds):
        for signal, name in ((1.5, "strong"), (0.5, "weak")):
            yield [
                Evaluation.load(evaluated(f"{name}{e}{s}", signal, encoder=e, seed=s))
                for e, s in enumerate(seeds)
            ]

    variant, reference = sides((0, 1, 2))
    repeated = difference_between(variant, reference)
    d = [
        x["auc"] - y["auc"]
        for a, b in zip(variant, reference, strict=True)
        for x, y in zip(a.metrics["folds"], b.metrics["folds"], strict=True)
    ]
    expected = corrected_resampled_t_test(np.array(d), train=48, test=12, repetitions=3)
    assert (repeated.p, repeated.seeds) == (pytest.approx(expected.p), 3)
    variant, reference = sides((0, 0, 0))
    shared = difference_between(variant, reference)
    d = [
        x["auc"] - y["auc"]
        for a, b in zip(variant, reference, strict=True)
        for x, y in zip(a.metrics["folds"], b.metrics["folds"], strict=True)
    ]
    assert shared.p > corrected_resampled_t_test(np.array(d), train=48, test=12).p
    for side in (variant, reference):
        side[:] = [Evaluation(o.metrics, None, path=o.path) for o in side]
    assert difference_between(variant, reference).p == shared.p


@pytest.mark.parametrize("classes", [2, 3])
def test_without_predictions_there_is_a_test_and_no_interval(evaluated, classes):
    a, b = evaluated("a", 3.0, classes=classes), evaluated("b", 0.5, classes=classes)
    whole = difference_between([Evaluation.load(a)], [Evaluation.load(b)])
    (b / "predictions.parquet").unlink()
    found = difference_between([Evaluation.load(a)], [Evaluation.load(b)])
    assert (found.p, found.mean) == (whole.p, whole.mean)
    assert whole.interval is not None
    assert found.interval is None
    told = "no predictions.parquet beside evaluation/metrics.json tells whether the same subjects"
    assert told in str(found.reason)
    c = evaluated("c", 0.5, seed=1, classes=classes)
    with pytest.raises(EvaluationError, match=r"seed 1 against 0.*same seed"):
        difference_between([Evaluation.load(c)], [Evaluation.load(b)])
    split = evaluated("d", 1.0, n=90, split=TEST, classes=classes)
    (split / "predictions.parquet").unlink()
    nothing = difference_between([Evaluation.load(split)], [Evaluation.load(split)])
    assert (nothing.p, nothing.interval) == (None, None)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"n": 62}, "subjects 62, but .* has 60"),
        ({"shift": 1}, "the tested subjects differ"),
        ({"seed": 1}, "the tested folds differ; evaluate both with the same seed"),
        (
            {"relabelled": 1},
            "the tested labels differ; evaluate both with the same table of labels",
        ),
        ({"n": 90, "split": TEST}, "protocol 'linear', but .* has 'svm'"),
        ({"classes": 3}, r"classes \[0, 1, 2\], but .* has \[0, 1\]"),
    ],
)
def test_what_is_not_alike_is_refused_by_what_differs(evaluated, other, message):
    paths = [evaluated("a", 1.0), evaluated("b", 1.0, **other)]
    with pytest.raises(EvaluationError, match=message) as caught:
        compare(paths)
    assert "\n" not in str(caught.value)


def edit(folder, **changes):
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: (f / "metrics.json").unlink(),
            "but not an evaluation .no metrics.json in it",
        ),
        (lambda f: (f / "metrics.json").write_text('{"auc": 0.'), "damaged, not JSON"),
        (lambda f: (f / "metrics.json").write_bytes(b"\xff\xfe"), "damaged, not JSON"),
        (lambda f: (f / "metrics.json").write_text("[1]"), "not a metrics.json.*no object"),
        (lambda f: (f / "metrics.json").write_text("{}"), "not a metrics.json.*no 'protocol'"),
        (lambda f: edit(f, folds=[]), "folds of 'method' are not whole"),
        (lambda f: edit(f, folds=[{"auc": float("nan")}]), "auc of fold 0 of 'method' is nan, out"),
        (lambda f: edit(f, folds=[{"auc": "0.5"}]), "auc of fold 0 of 'method' is '0.5', no numb"),
        (lambda f: edit(f, folds=[{"auc": -0.1}]), "auc of fold 0 of 'method' is -0.1, outside 0"),
        (
            lambda f: edit(f, folds=[{"auc": 0.5}]),
            "no 'sensitivity' in fold 0 of 'method': written by another version; evaluate again",
        ),
        (lambda f: edit(f, sizes=[]), "sizes do not fit its folds"),
        (lambda f: edit(f, controls={"raw": {}}), "folds of 'raw' are not whole"),
        (lambda f: edit(f, mean=None), "the mean of 'method' is no object"),
        (lambda f: edit(f, std=None), "the std of 'method' is not whole"),
        (lambda f: (f / "predictions.parquet").write_bytes(b"PAR1"), "predictions.*damaged"),
        (
            lambda f: pd.DataFrame({"subject": []}).to_parquet(f / "predictions.parquet"),
            "no column 'fold'",
        ),
        (
            lambda f: (f / "predictions.parquet").write_bytes(
                (f.parents[1] / "b/evaluation/predictions.parquet").read_bytes()
            ),
            "is of another evaluation",
        ),
    ],
)
def test_what_is_missing_or_damaged_is_named_in_one_line(evaluated, damage, message):
    folder = evaluated("a", 1.0)
    evaluated("b", 2.0)
    damage(folder)
    with pytest.raises(EvaluationError, match=message) as caught:
        Evaluation.load(folder / "metrics.json")
    assert "\n" not in str(caught.value)


def test_a_comparison_has_a_row_each_and_corrects_for_their_number(evaluated, tmp_path):
    paths = [evaluated("weak", 0.5), evaluated("strong", 3.0), evaluated("alike", 0.5, encoder=1)]
    table = vitaepp.compare(paths)
    assert [row.name for row in table.rows] == ["weak", "strong", "alike"]
    strong, alike = table.rows[1:]
    assert table.rows[0].difference is None
    assert strong.p_holm == pytest.approx(2 * strong.difference.p)
    assert alike.p_holm == alike.difference.p > 0.05
    assert table.sentences[0].startswith("strong is ahead of weak: +0.")
    assert table.sentences[1].startswith("alike and weak do not differ significantly: ")
    assert "corrected for 2 comparisons" in table.sentences[0]

    other = compare([p / "metrics.json" for p in paths], reference="strong")
    assert [row.name for row in other.rows] == ["strong", "weak", "alike"]
    assert compare(paths, reference=paths[1]).rows == other.rows
    with pytest.raises(EvaluationError, match="no evaluation 'stong' here; did you mean strong"):
        compare(paths, reference="stong")
    with pytest.raises(EvaluationError, match="no metric 'f1'"):
        compare(paths, metric="f1")
    with pytest.raises(EvaluationError, match="given twice"):
        compare([paths[0], paths[0] / "metrics.json"])
    with pytest.raises(EvaluationError, match="name a second one"):
        compare(paths[:1])


def test_controls_are_rows_and_one_that_is_shared_is_shown_once(evaluated):
    table = compare([evaluated("a", 3.0), evaluated("b", 1.0, encoder=1)], controls=True)
    assert [row.name for row in table.rows] == [
        "a",
        "a: untrained encoder",
        "a: raw intensities (PCA)",
        "b",
        "b: untrained encoder",
    ]
    alone = compare([evaluated("c", 3.0)], controls=True)
    assert [row.scores.key for row in alone.rows] == ["method", "untrained", "raw"]


def test_no_sentence_claims_more_than_its_test(evaluated):
    a, b = evaluated("a", 3.0, n=90, split=TEST), evaluated("b", 0.8, n=90, split=TEST)
    # Three differences, each of which alone would be called one, and together would not.
    (a / "predictions.parquet").unlink()
    (sentence,) = compare([b, a]).sentences
    assert "not tested, no predictions.parquet" in sentence


def test_every_form_of_the_table_holds_the_same_numbers(evaluated, tmp_path):
    table = compare([evaluated("run_1", 0.5), evaluated("run|2", 3.0)])
    found = table.rows[1].difference
    table.save(tmp_path / "out")
    written = {p.suffix: p.read_text() for p in (tmp_path / "out").iterdir()}
    assert set(written) == {".md", ".csv", ".tex", ".json"}
    rows = list(csv.DictReader(io.StringIO(written[".csv"])))
    assert float(rows[1]["difference"]) == found.mean
    assert float(rows[1]["low"]) == found.interval.low
    assert rows[0]["p"] == ""
    content = json.loads(written[".json"])
    assert content["reference"] == "run_1"
    assert content["rows"][1]["difference"] == found.to_json()
    lines = written[".md"].splitlines()
    pipes = {line.replace(r"\|", "").count("|") for line in lines[:4]}
    assert len(pipes) == 1
    assert r"run\_1" in written[".tex"]
    assert written[".tex"].count(r"\\") == 3
    for text in (written[".md"], str(table)):
        assert f"{found.mean:+.3f}" in text
        assert "grade, 60 subjects" in text
    assert str(tmp_path) not in "".join(written.values())
    with pytest.raises(EvaluationError, match="is a file"):
        table.save(tmp_path / "out" / "comparison.md")


@pytest.mark.parametrize(
    ("protocol", "classes", "test"), [("svm", 2, "corrected"), ("linear", 3, "McNemar")]
)
def test_what_evaluate_writes_is_what_compare_reads(tmp_path, protocol, classes, test):
    random = np.random.default_rng(0)
    codes = np.arange(30) % classes
    raw = random.normal(size=(30, 4)).astype(np.float32)
    for name, signal in (("a", 2), ("b", 0.5)):
        features = random.normal(size=(30, 4)) + signal * np.eye(classes, 4)[codes]
        table = pd.DataFrame({"subject": range(30), "grade": codes, "split": TEST[:30]})
        path = tmp_path / f"{name}.parquet"
        Embeddings(table, features.astype(np.float32), {"method": "vitae"}).save(path)
        Embeddings(table, raw, {}).save(control_path(path, "raw"))
        evaluate(path, "grade", tmp_path / name, protocol=protocol)
    table = compare([tmp_path / "a", tmp_path / "b"], controls=True)
    assert [row.name for row in table.rows] == ["a", "a: raw intensities (PCA)", "b"]
    assert all(row.difference.test.startswith(test) for row in table.rows[1:])
    assert all(row.difference.interval is not None for row in table.rows[1:])


def test_the_table_is_written_even_if_nobody_reads_what_is_shown(evaluated, tmp_path, monkeypatch):
    def closed(*_):
        raise BrokenPipeError

    monkeypatch.setattr("vitaepp.cli.verbs.compare.show", closed)
    both = [str(evaluated(name, signal)) for name, signal in (("a", 1.0), ("b", 0.5))]
    CliRunner().invoke(app, ["compare", *both, "--out", str(tmp_path / "t")])
    assert len(list((tmp_path / "t").iterdir())) == 4


def images(evaluation, count=4, persons=True):
    """An evaluation with so many equal images of each subject."""
    table = evaluation.predictions
    person = pd.factorize(table["subject"], sort=True)[0]
    copies = [table.assign(subject=table["subject"] + f"-{i}", person=person) for i in range(count)]
    several = pd.concat(copies, ignore_index=True)
    return Evaluation(evaluation.metrics, several if persons else several.drop(columns="person"))


@pytest.mark.parametrize(("split", "metric"), [(None, "auc"), (TEST, "auc"), (TEST, "accuracy")])
def test_images_of_one_person_are_no_more_people(evaluated, split, metric):
    n = 60 if split is None else 90
    given = [evaluated(name, s, n=n, split=split) for name, s in (("a", 1.5), ("b", 0.8))]
    once = [Evaluation.load(path) for path in given]
    people, pictures = ([images(e, persons=p) for e in once] for p in (True, False))
    one, many, wrong = (
        difference_between([a], [b], metric=metric) for a, b in (once, people, pictures)
    )
    assert many.p == pytest.approx(one.p)
    widths = [d.interval.high - d.interval.low for d in (one, many, wrong)]
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
    assert widths[2] < 0.7 * widths[0]
    if metric == "accuracy":
        assert many.test == "exact sign-flip test over persons"
    if split is not None:
        assert wrong.p < one.p


def test_an_interval_without_width_is_remarked_on(evaluated):
    strong, weak = evaluated("strong", 50.0), evaluated("weak", 1.0)
    same = Evaluation.load(evaluated("same", 50.0))
    (told,) = compare(strong, same).sentences
    assert "do not differ significantly" in told
    assert "the interval has no width: the difference is the same whichever" in told
    assert "no width" not in compare(strong, weak).sentences[0]


def test_names_are_those_of_folders_wherever_there_are_any(evaluated):
    paths = [evaluated("a", 2.0), evaluated("b", 1.0)]
    by_path = [row.name for row in compare(*paths).rows]
    loaded = [Evaluation.load(path) for path in paths]
    assert [row.name for row in compare(*loaded).rows] == by_path == ["a", "b"]
    in_memory = Evaluation(loaded[1].metrics | {"seed": 0}, loaded[1].predictions)
    assert [row.name for row in compare(paths[0], in_memory).rows] == ["evaluation", "embedding"]


@pytest.mark.parametrize(
    ("task", "metric"),
    [("classification", "auc"), ("classification", "accuracy"), ("regression", "mae")],
)
def test_copies_of_everybodys_images_make_nothing_surer(task, metric):
    """Of a person who is there three times, no test and no interval knows more than of one."""
    random = np.random.default_rng(0)
    n = 30
    codes = np.arange(n) % 2
    true = codes.astype(float) if task == "classification" else random.normal(size=n)

    def made(seed, copies, known=True):
        scores = (2 * true - 1) * 0.4 + np.random.default_rng(seed).normal(size=n)
        each = np.repeat(np.arange(n), copies)
        table = pd.DataFrame(
            {
                "subject": [f"s{i:02d} {k}" for k, i in enumerate(each)],
                "fold": 0,
                "label": true[each] if task == "regression" else codes[each].astype(str),
                "method": scores[each],
            }
        )
        if copies > 1 and known:
            table["person"] = each
        rows = len(table)
        fold = Evaluation({"task": task, "classes": [0, 1]}).rescored(table, scores[each])
        metrics = {"task": task, "protocol": "linear", "label": "x", "n": rows, "persons": n}
        metrics |= {"classes": [0, 1] if task == "classification" else [], "folds": [fold]}
        metrics |= {"seed": 0, "sizes": [{"train": rows, "test": rows}]}
        return Evaluation(metrics, table)

    once, thrice = (
        difference_between([made(1, copies)], [made(2, copies)], metric=metric) for copies in (1, 3)
    )
    assert thrice.mean == pytest.approx(once.mean)
    assert thrice.p == pytest.approx(once.p)
    for end in ("low", "high"):
        ends = [getattr(found.interval, end) for found in (once, thrice)]
        assert ends[0] == pytest.approx(ends[1], abs=0.05)
    unknown = difference_between(
        [made(1, 3, known=False)], [made(2, 3, known=False)], metric=metric
    )
    assert (unknown.p, unknown.interval) == (None, None)
    assert "do not tell which subjects are of one person" in str(unknown.reason)


def test_classes_are_the_same_as_numbers_and_as_text(evaluated):
    one, other = (Evaluation.load(evaluated(name, 1.0, encoder=i)) for i, name in enumerate("ab"))
    found = difference_between([other], [one])
    texts = Evaluation({**other.metrics, "classes": ["0", "1"]}, other.predictions)
    assert difference_between([texts], [one]) == found
    flipped = other.predictions.assign(label=lambda t: t["label"].map({"0": "1", "1": "0"}))
    for predictions, told in (
        (flipped, "labels differ; evaluate both with the same table of labels"),
        (other.predictions.assign(subject=lambda t: "x" + t["subject"]), "of the same subjects"),
    ):
        with pytest.raises(EvaluationError, match=told):
            difference_between([Evaluation(other.metrics, predictions)], [one])
