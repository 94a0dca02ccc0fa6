"""Sites, other cohorts and few labels: nothing of what is tested is ever known before."""

import numpy as np
import pandas as pd
import pytest

from tests.evaluation.test_tasks import N, cohort
from vitaepp.data.embeddings import Embeddings, control_path
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.budget import nested_order, parse_budget
from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.external import Cohort
from vitaepp.evaluation.features import evaluate_features
from vitaepp.evaluation.folds import by_subject, share_out
from vitaepp.evaluation.harmonize import LEAST, ComBat, Scaling, fit_harmonizer
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.summary import design_text
from vitaepp.evaluation.tasks import read_target


def shared(table, **asked):
    ordered = by_subject(table)
    found = share_out(read_target(ordered, "sick"), ordered, **asked)
    return ordered, found


@pytest.mark.parametrize("leave_one_group_out", [False, True])
def test_no_fold_splits_a_group_or_a_person(leave_one_group_out):
    _, table, _ = cohort()
    # Every tenth person was scanned at two sites, so that these belong together.
    table["participant"] = np.arange(N) // 2
    table["site"] = np.array(list("abcdefgh"))[(np.arange(N) // 10) % 8]
    table.loc[table.index[5], "participant"] = table["participant"].iloc[77]
    ordered, found = shared(table, folds=4, group="site", leave_one_group_out=leave_one_group_out)
    tested = []
    for part in found.folds:
        for column in ("site", "participant"):
            sides = [set(ordered[column].to_numpy()[rows]) for rows in (part.train, part.test)]
            if not (leave_one_group_out and column == "site"):
                assert not sides[0] & sides[1]
        tested += part.test.tolist()
    assert sorted(tested) == list(range(N))
    if leave_one_group_out:
        assert found.groups == sorted(set(table["site"]))
        for name, part in zip(found.groups, found.folds, strict=True):
            assert set(ordered["site"].to_numpy()[part.test]) == {name}
            assert name not in ordered["site"].to_numpy()[part.train]


def test_a_group_that_cannot_be_tested_alone_is_named_and_trained_on():
    _, table, _ = cohort()
    table.loc[table.index[:1], "site"] = "tiny"
    _, found = shared(table, group="site", leave_one_group_out=True)
    assert found.untested == ["tiny"]
    assert "are only trained on: tiny" in found.notes[0]
    assert all(0 in part.train for part in found.folds)


def test_a_site_that_is_called_NA_is_missing_and_the_number_of_those_tested_is_told():
    features, table, _ = cohort()
    table["site"] = pd.Series(np.array(["EU", "AS", None], object)[np.arange(N) % 3], table.index)
    asked = {"group": "site", "leave_one_group_out": True, "draw_map": False}
    without = int(table["site"].isna().sum())
    _, found = shared(table, group="site", leave_one_group_out=True)
    assert found.notes[0].startswith(f"{without} subjects without site")
    assert "NA" in found.notes[0]
    told = design_text(evaluate_features(features, table, "sick", **asked).metrics)
    assert f"2 of {2 + without} groups of site, each left out once" in told
    (line,) = [line for line in told if line.startswith("not tested")]
    assert line.count("subject") == 3


def test_a_site_effect_that_is_a_shortcut_fails_at_another_site():
    """Features that know the site alone: inside they tell the label, at a new site they do not."""
    draw = np.random.default_rng(0)
    sites = np.repeat(["a", "b", "c", "d"], 30)
    shares = {"a": 0.9, "b": 0.1, "c": 0.85, "d": 0.15}
    table = pd.DataFrame(
        {
            "subject": [f"s{i:03d}" for i in range(120)],
            "sick": [int(draw.random() < shares[s]) for s in sites],
            "site": sites,
        }
    )
    features = np.eye(4)[["abcd".index(s) for s in sites]] + 0.1 * draw.normal(size=(120, 4))
    inside = evaluate_features(features, table, "sick")
    outside = evaluate_features(features, table, "sick", group="site", leave_one_group_out=True)
    harmonized = evaluate_features(features, table, "sick", group="site", folds=4, harmonize=True)
    assert inside["mean"]["auc"] > 0.8
    assert outside["mean"]["auc"] < 0.7
    assert outside["group"]["tested_alone"] == ["a", "b", "c", "d"]
    assert harmonized["mean"]["auc"] < 0.7


def test_harmonised_sites_have_the_training_parts_moments_and_no_others():
    draw = np.random.default_rng(0)
    sites = np.array(["a"] * 20 + ["b"] * 20 + ["few"] * (LEAST - 1), object)
    features = draw.normal(size=(len(sites), 3)) * 2 + (sites == "b")[:, None] * 5
    harmonize = Scaling.fit(features, sites)
    for name in ("a", "b"):
        own = harmonize(features[sites == name], sites[sites == name])
        assert np.allclose([own.mean(0), own.std(0)], [[0] * 3, [1] * 3])
    new = np.array(["new", "few"], object)
    whole = (features[:2] - features.mean(0)) / features.std(0)
    assert np.allclose(harmonize(features[:2], new), whole)


@pytest.mark.parametrize("how", ["scale", "combat"])
def test_numbers_of_sites_are_sites_as_texts_are(how):
    site, _, moved = shifted(np.random.default_rng(0), 60)
    number = np.array(["abc".index(s) for s in site], object)
    found = fit_harmonizer(how, moved, number)(moved, number)
    assert np.array_equal(found, fit_harmonizer(how, moved, site)(moved, site))


def test_another_cohort_is_tested_once_by_models_of_all_subjects(tmp_path):
    features, table, noise = cohort()
    others, outside, _ = cohort(seed=1)
    outside["subject"] = "x" + outside["subject"]
    found = evaluate_features(
        features,
        table,
        "sick",
        controls={"untrained": noise},
        external=Cohort(others, outside, {"untrained": noise}, "other"),
    )
    assert found["external"]["n"] == N
    assert found["external"]["mean"]["auc"] > 0.8
    assert abs(found["external"]["controls"]["untrained"]["mean"]["auc"] - 0.5) < 0.27
    # The same models, whatever the other cohort is.
    half = evaluate_features(
        features, table, "sick", external=Cohort(others[::2], outside.iloc[::2])
    )
    both = found.external.merge(half.external, on="subject", suffixes=("", ":half"))
    assert np.allclose(both["method"], both["method:half"])
    written = found.save(tmp_path)
    assert (
        pd.read_parquet(tmp_path / "external.parquet")["subject"].tolist()
        == outside["subject"].tolist()
    )
    assert Evaluation.load(tmp_path).metrics == written.metrics


def test_what_is_doubtful_about_another_cohort_is_said_or_refused(tmp_path, capsys):
    features, table, _ = cohort()

    def saved(name, values, rows, encoder="one"):
        path = tmp_path / f"{name}.parquet"
        facts = {"encoder": encoder}
        Embeddings(rows.assign(split=""), values.astype(np.float32), facts).save(path)
        return path

    path = saved("inside", features, table)
    same = saved("same", features, table)
    evaluate(path, "sick", tmp_path / "a", external=same)
    assert "80 subjects have the name of a person inside" in capsys.readouterr().err
    with pytest.raises(EvaluationError, match="made by another encoder"):
        evaluate(path, "sick", tmp_path / "b", external=saved("other", features, table, "two"))
    renamed = table.assign(sick=table["sick"].replace("yes", "ill"))
    with pytest.raises(EvaluationError, match="the classes ill, no outside, but no, yes inside"):
        evaluate(path, "sick", tmp_path / "c", external=saved("names", features, renamed))
    without = saved("without", features, table.drop(columns="sick"))
    with pytest.raises(EvaluationError, match="no label column"):
        evaluate(path, "sick", tmp_path / "d", external=without)
    short = saved("short", features[:, :3], table)
    with pytest.raises(EvaluationError, match="3 features, but 5 inside"):
        evaluate(path, "sick", tmp_path / "e", external=short)
    assert not control_path(path, "raw").is_file()


@pytest.mark.parametrize(
    ("asked", "outside", "told"),
    [
        ("volume", {"volume": lambda t: t["volume"] / 1000}, "in another unit?"),
        ("volume", {"volume": lambda t: t["volume"].where(t.index % 9 > 0, -999)}, "-999"),
        ("sick", {"participant": lambda t: t["subject"].str[2:]}, "participants have"),
        ("sick", {"participant": lambda t: t["subject"].str[2:].astype(float)}, "participants"),
        ("sick", {"subject": lambda t: t["subject"].str[1:].str.upper() + ".nii.gz"}, "subjects"),
        ("sick", {}, "exactly the same features as a subject inside"),
        ("months", {"months": lambda t: t["months"] * 30}, "in another unit?"),
        ("months", {"months": lambda t: 1 / t["months"]}, "the other way round"),
    ],
)
def test_another_cohort_with_other_units_codes_or_the_same_people_is_asked_about(
    asked, outside, told
):
    tasks = {"volume": {"task": "regression"}}
    if asked == "months":
        pytest.importorskip("sksurv")
        tasks["months"] = {"task": "survival", "time": "months", "event": "died"}
    options = {"draw_map": False, "folds": 3, **tasks.get(asked, {})}
    features, table, _ = cohort()
    other, rows, _ = cohort(seed=0 if not outside else 1)
    table["participant"] = table["subject"].str[1:]
    rows["subject"] = "x" + rows["subject"]

    def doubts(values, changed):
        found = evaluate_features(values, table, asked, external=Cohort(other, changed), **options)
        return " ".join(found["doubts"])

    assert told in doubts(features, rows.assign(**outside))
    if outside:
        assert told not in doubts(features, rows)


def test_another_cohort_is_joined_by_the_same_column_of_the_labels(tmp_path):
    features, table, _ = cohort()
    others, outside, _ = cohort(seed=1)
    outside["subject"] = "x" + outside["subject"]
    every = pd.concat([table, outside])
    # A second column of names that are somebody else's.
    wrong = np.r_[table["subject"], np.roll(outside["subject"], 1)]
    both = pd.DataFrame({"patient": wrong, "scan": every["subject"], "sick": every["sick"]})
    both.to_csv(tmp_path / "labels.csv", index=False)
    for name, values, rows in (("inside", features, table), ("outside", others, outside)):
        own = rows[["subject"]].assign(split="")
        Embeddings(own, values.astype(np.float32), {}).save(tmp_path / f"{name}.parquet")
    found = evaluate(
        tmp_path / "inside.parquet",
        "sick",
        tmp_path / "out",
        labels=tmp_path / "labels.csv",
        id_column="scan",
        external=tmp_path / "outside.parquet",
    )
    told = found.external.set_index("subject")["label"].astype(str)
    assert told.to_dict() == dict(zip(outside["subject"], outside["sick"].astype(str), strict=True))


def test_one_of_several_labels_that_is_coded_the_other_way_round_is_asked_about():
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 6))
    table = pd.DataFrame({"subject": [f"s{i}" for i in range(120)], "a": x[:, 0] > 0})
    table = table.assign(a=table["a"].astype(int), b=(x[:, 1] > 0).astype(int))
    outside = table[60:].assign(a=1 - table["a"][60:])
    found = evaluate_features(
        x[:60], table[:60], "a,b", task="multilabel", external=Cohort(x[60:], outside)
    )
    (line,) = [doubt for doubt in found["doubts"] if "worse than chance" in doubt]
    assert "of a is worse than chance; is it coded the other way round" in line


def test_more_labels_are_nested_balanced_and_better(every_draw):
    strata, persons = np.array([0] * 60 + [1] * 20), np.arange(80) // 2
    order = nested_order(strata, persons, [0])
    assert sorted(order) == list(range(80))
    for size in (4, 8, 20, 40):
        chosen = order[:size]
        counts = np.bincount(strata[chosen], minlength=2)
        assert counts.min() >= 2
        assert abs(counts[1] / size - 0.25) <= max(0.25, 3 / size)
        assert all(len(np.unique(persons[chosen[strata[chosen] == c]])) > 1 for c in (0, 1))
    features, table, noise = cohort(signal=1.0)
    found = evaluate_features(
        np.hstack([features, noise]),
        table,
        "sick",
        folds=3,
        controls={"untrained": noise},
        budget=[8, 40, "all"],
    )
    rows = {(r["labels"], r["features"]): r for r in found["budget"]}
    sizes = sorted({labels for labels, _ in rows})
    means = [rows[size, "method"]["mean"]["auc"] for size in sizes]
    assert means == sorted(means)
    assert rows[8.0, "method"]["trainings"] == 15
    assert rows[sizes[-1], "method"]["mean"]["auc"] == pytest.approx(found["mean"]["auc"])
    assert rows[40.0, "untrained"]["wins"] > 0.8
    assert len(found.budget) == 2 * 3 * (5 + 5 + 1)


def test_what_another_cohort_calls_its_sites_changes_nothing():
    features, table, _ = cohort()
    others, outside, _ = cohort(seed=1)
    asked = {"group": "site", "folds": 4, "harmonize": True}
    found = [
        evaluate_features(
            features, table, "sick", external=Cohort(others, outside.assign(site=name)), **asked
        )
        for name in (outside["site"], "elsewhere " + outside["site"])
    ]
    assert found[0]["external"]["mean"] == found[1]["external"]["mean"]


def test_values_outside_and_inside_have_the_same_metrics():
    features, table, _ = cohort()
    others, outside, _ = cohort(seed=1)
    found = evaluate_features(
        features, table, "volume", task="regression", external=Cohort(others, outside)
    )
    assert found["external"]["mean"]["r2"] > 0.8
    assert found["external"]["controls"]["mean"]["mean"]["pearson"] is None


def test_people_of_several_sites_are_said_and_never_trained_on_where_they_are_tested():
    _, table, _ = cohort()
    table["participant"] = np.arange(N) % 40  # two scans each, mostly at the same site
    table.loc[table.index[:8], "site"] = "d"
    ordered, found = shared(table, group="site", leave_one_group_out=True)
    people = ordered["participant"].to_numpy()
    assert all(not set(people[p.train]) & set(people[p.test]) for p in found.folds)
    assert any("people were scanned in several groups" in note for note in found.notes)


def test_columns_and_values_that_may_not_be_meant_are_asked_about(capsys):
    features, table, _ = cohort()
    table["coded"] = table["volume"].where(np.arange(N) % 9 > 0, -999.0)
    table["participant"] = [f"p{i}" if i % 5 else None for i in range(N)]
    table["mixed"] = np.where(np.arange(N) % 2, table["site"], table["site"].str.upper())
    evaluate_features(features, table, "coded", task="regression")
    told = capsys.readouterr().err
    assert "-999 is the only value below 0, in 9 of 80 subjects; a code for missing?" in told
    assert "16 subjects of 80 have no participant" in told
    _, found = shared(table.drop(columns="participant"), group="volume", folds=5)
    assert "80 groups in 80 subjects" in found.notes[0]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"budget": [100]}, "budget 100: a training part has 64 labelled subjects"),
        ({"budget": [2]}, "budget 2: a model needs 4 labelled subjects, two of each class"),
        ({"leave_one_group_out": True}, "needs a column of groups"),
        ({"harmonize": True}, "needs a column of sites"),
        ({"sites": "site"}, "names what .* takes out; give that, too"),
        ({"harmonize": "combt", "group": "site", "folds": 4}, "did you mean combat"),
        ({"group": "sit"}, "did you mean site"),
        ({"group": "one"}, "has one group only"),
        ({"group": "site", "folds": 5}, "4 groups with subjects of each class"),
        ({"group": "class", "leave_one_group_out": True}, "0 groups of 2 can be tested alone"),
    ],
)
def test_what_a_cohort_does_not_allow_is_said_in_one_line(asked, message):
    features, table, _ = cohort()
    table = table.assign(one="x", **{"class": table["sick"]})
    with pytest.raises(EvaluationError, match=message) as caught:
        evaluate_features(features, table, "sick", **asked)
    assert "\n" not in str(caught.value)


def test_a_budget_is_numbers_and_all():
    assert parse_budget(" 10, 50,all") == [10, 50, "all"]
    for text in ("", "ten", "10,-5", "0"):
        with pytest.raises(EvaluationError, match="give numbers of labelled subjects and all"):
            parse_budget(text)


def test_thresholds_of_the_cohort_inside_are_applied_outside_and_told():
    features, table, _ = cohort()
    away, others, _ = cohort(1)
    others["subject"] = "x" + others["subject"]
    outside = Cohort(away + 1.0, others, name="elsewhere")  # a shift moves the scores
    asked = {"draw_map": False, "folds": 2, "protocol": "svm"}
    found = evaluate_features(features, table, "sick", external=outside, **asked)
    point = found["external"]["clinical"]["operating"]["specificity_90"]
    ((threshold,),) = point["thresholds"]
    called = found.external["method"].to_numpy() > threshold
    sick = (found.external["label"] == "yes").to_numpy()
    assert point["sensitivity"]["value"] == pytest.approx(called[sick].mean())
    assert point["specificity"]["value"] == pytest.approx((~called)[~sick].mean())
    # Chosen inside, it reaches its goal there, and not where scores are shifted.
    assert point["training"]["specificity"] >= 0.9
    assert point["specificity"]["value"] < 0.8
    line = "outside, at the threshold chosen inside for 90 % specificity: sensitivity "
    assert f"{line}{called[sick].mean():.3f}" in str(found)
    # Nothing of the outside labels is used: turned around, only the result is another.
    turned = others.assign(sick=np.where(others["sick"] == "yes", "no", "yes"))
    again = evaluate_features(
        features, table, "sick", external=Cohort(away + 1.0, turned, name="elsewhere"), **asked
    )
    other = again["external"]["clinical"]["operating"]["specificity_90"]
    assert other["thresholds"] == [[threshold]]


def shifted(random, n=240, features=8):
    """Subjects of three sites, which shift and scale what there is."""
    site = np.array(["a", "b", "c"], object)[np.arange(n) % 3]
    x = random.normal(size=(n, features))
    shift = {name: random.normal(0, 3, features) for name in "abc"}
    scale = {"a": 1.0, "b": 2.5, "c": 0.4}
    moved = np.stack([shift[s] + scale[s] * row for s, row in zip(site, x, strict=True)])
    return site, x, moved


def test_combat_takes_sites_out_of_subjects_that_it_was_not_fitted_to():
    site, x, moved = shifted(np.random.default_rng(0))
    train = np.arange(240) < 150
    combat = ComBat.fit(moved[train], site[train])
    found = combat(moved[~train], site[~train])
    for name in "abc":
        rows = site[~train] == name
        assert np.abs(found[rows].mean(axis=0) - found.mean(axis=0)).max() < 0.8
        # The order of the subjects of a site is that of what there was before.
        assert np.corrcoef(found[rows, 0], x[~train][rows, 0])[0, 1] > 0.99
    spread = [found[site[~train] == name].std() for name in "abc"]
    assert max(spread) / min(spread) < 1.5
    # One subject is moved as it is among others, and nothing of the test part is learned.
    assert np.allclose(combat(moved[~train][:1], site[~train][:1]), found[:1])
    # A site that the training part lacks, or hardly has, stays as it is.
    other = np.array(["z"] * 90, object)
    assert np.array_equal(combat(moved[~train], other), moved[~train])
    few = np.where(np.arange(150) < LEAST - 1, "few", site[train]).astype(object)
    assert [*ComBat.fit(moved[train], few).moves] == ["a", "b", "c"]


def by_the_formulas(x, site):
    """What sva's ComBat gives for those that it is fitted to, cell by cell as in its paper."""
    n, width = x.shape
    rows = {name: [i for i in range(n) if site[i] == name] for name in sorted(set(site))}
    z, center, spread = np.empty(x.shape), np.empty(width), np.empty(width)
    for g in range(width):
        alpha = {name: np.mean(x[own, g]) for name, own in rows.items()}
        center[g] = sum(len(own) / n * alpha[name] for name, own in rows.items())
        spread[g] = np.sqrt(sum((x[i, g] - alpha[site[i]]) ** 2 for i in range(n)) / n)
        z[:, g] = (x[:, g] - center[g]) / spread[g]
    found = np.empty(x.shape)
    for own in rows.values():
        gamma = [np.mean(z[own, g]) for g in range(width)]
        delta = [np.var(z[own, g], ddof=1) for g in range(width)]
        bar, tau = np.mean(gamma), np.var(gamma, ddof=1)
        v, s = np.mean(delta), np.var(delta, ddof=1)
        a, b = (2 * s + v**2) / s, (v * s + v**3) / s
        for g in range(width):
            shift, scale = gamma[g], delta[g]
            for _ in range(500):
                shift = (tau * len(own) * gamma[g] + scale * bar) / (tau * len(own) + scale)
                squares = sum((z[i, g] - shift) ** 2 for i in own)
                scale = (squares / 2 + b) / (len(own) / 2 + a - 1)
            found[own, g] = (z[own, g] - shift) / np.sqrt(scale) * spread[g] + center[g]
    return found


def test_combat_is_that_of_its_paper_whatever_the_units_and_the_order_of_features():
    random = np.random.default_rng(3)
    site, _, moved = shifted(random, 45, 6)
    site[:6] = "few but enough"
    found = ComBat.fit(moved, site)(moved, site)
    assert np.allclose(found, by_the_formulas(moved, site), rtol=0, atol=1e-6)
    units, order = 10.0 ** random.integers(-9, 9, 6), random.permutation(6)
    other = (moved * units)[:, order]
    again = ComBat.fit(other, site)(other, site)
    assert np.allclose(again / units[order], found[:, order], rtol=0, atol=1e-6)


def test_combat_leaves_features_without_variance_as_they_are():
    site, _, moved = shifted(np.random.default_rng(4), 60, 5)
    flat = np.stack([np.full(60, 0.1), 0.1 + 1e-16 * moved[:, 0], 1e-200 * moved[:, 0]], axis=1)
    at_one = np.where(site == "b", 7.0, moved[:, 0])[:, None]
    mixed = np.hstack([flat, moved, at_one])
    found = ComBat.fit(mixed, site)(mixed, site)
    assert np.array_equal(found[:, [0, 1, 2, -1]], mixed[:, [0, 1, 2, -1]])
    assert np.allclose(found[:, 3:-1], ComBat.fit(moved, site)(moved, site))
    assert np.array_equal(ComBat.fit(flat, site)(flat, site), flat)
    # A single feature has no others to be like: it gets the moments that all have.
    alone = ComBat.fit(moved[:, :1], site)(moved[:, :1], site)
    spread = [alone[site == name].std() for name in "abc"]
    assert np.ptp([alone[site == name].mean() for name in "abc"]) < 1e-9
    assert np.ptp(spread) < 1e-9


@pytest.mark.parametrize("how", ["scale", "combat"])
def test_a_signal_that_sites_hide_is_found_where_folds_mix_sites(how, caplog):
    site, x, moved = shifted(np.random.default_rng(1), 150)
    table = pd.DataFrame(
        {
            "subject": [f"s{i:03d}" for i in range(150)],
            "sick": (x[:, 0] > 0).astype(int),
            "site": site,
        }
    )
    # Only one feature knows, and sites move it far more than the illness does.
    features = moved[:, :2] * [1.0, 1e-3]
    asked = {"folds": 3, "draw_map": False}
    plain = evaluate_features(features, table, "sick", **asked)
    found = evaluate_features(features, table, "sick", sites="site", harmonize=how, **asked)
    assert found["harmonized"] == {"column": "site", "how": how}
    assert found["mean"]["auc"] > max(0.95, plain["mean"]["auc"] + 0.1)
    assert "ComBat" not in caplog.text
    if how == "combat":
        evaluate_features(
            features, table, "sick", group="site", leave_one_group_out=True, harmonize=how
        )
        assert "ComBat is not told of 3 groups of site" in caplog.text
        with pytest.raises(EvaluationError, match="has 1 group of 5 subjects or more"):
            ComBat.fit(moved[:6], np.array(["a"] * 6, object))
