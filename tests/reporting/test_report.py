"""The report: one file that fetches nothing, hides nothing and is the same every time."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from vitaepp.data.embeddings import Embeddings, control_path
from vitaepp.data.runfolder import weights_id
from vitaepp.errors import RunError
from vitaepp.evaluation import evaluate
from vitaepp.evaluation.bootstrap import Interval
from vitaepp.evaluation.difference import Difference
from vitaepp.evaluation.scores import mean_roc
from vitaepp.recipe.recipe import Recipe
from vitaepp.reporting import report
from vitaepp.reporting.dossier.methods import facts_of
from vitaepp.reporting.images import KINDS, explained, sheets
from vitaepp.reporting.reading import read_run
from vitaepp.system.files import file_stem
from vitaepp.system.paths import unique_names

EVIL = "<script>alert(1)</script>"


def make_run(path, *, evaluated=True, reconstructed=True, trained=True, ndim=3, method="vitae++"):
    (path / "encoder").mkdir(parents=True)
    (path / "encoder" / "model.safetensors").write_text(f"the weights of {path.name}")
    Recipe.parse({"method": method, "model": {"size": "tiny"}}).save(path / "recipe.yaml")
    if trained:
        summary = {
            "method": method,
            "store": {
                "subjects": 40,
                "modalities": ["flair", f"t1{EVIL}"],
                "size": [16] * ndim,
                "spacing": [1.0, 1.0, 3.0] if ndim == 3 else None,
                "label_columns": ["grade"],
            },
            "trained_on": 40,
            "parameters": {"encoder": 5_400_000, "decoder": 2_000_000},
            "epochs": 20,
            "seconds": 200.0,
            "device": "CPU",
        }
        (path / "summary.json").write_text(json.dumps(summary))
        epoch = np.arange(20)
        table = {"epoch": epoch, "step": 10 * epoch, "lr": 1e-3, "loss": 3.0 * 0.8**epoch}
        for term in ("reconstruction", "perceptual", "edge", "contrastive"):
            table[f"loss/{term}"] = np.exp(-epoch / 3) - (term == "contrastive")
            table[f"weighted/{term}"] = 0.01 * table[f"loss/{term}"]
        pd.DataFrame(table).to_csv(path / "metrics.csv", index=False)
        Image.new("RGB", (90, 40), "orange").save(path / "prepared.png")
    if evaluated:
        add_evaluation(path, method=method)
    if reconstructed:
        add_reconstruction(path / "reconstruction", ndim, weights=weights_id(path))
    return path


def add_evaluation(path, method="vitae++", n=40, place="evaluation"):
    random = np.random.default_rng(0)
    codes = np.arange(n) % 2
    subjects = [f"s{i:02d}" for i in range(n - 1)] + [EVIL]
    labels = [("high", f"low{EVIL}")[c] for c in codes]
    table = pd.DataFrame({"subject": subjects, "grade": labels, "split": ""})
    file = path / "embeddings.parquet"
    for name, signal in ((None, 1.0), ("untrained", 0.3), ("raw", 0.0)):
        features = random.normal(size=(n, 8)) + signal * codes[:, None]
        target = file if name is None else control_path(file, name)
        facts = {"method": name or method, "encoder": weights_id(path)}
        Embeddings(table, features.astype(np.float32), facts).save(target)
    evaluate(file, "grade", path / place, repeats=1)


def add_reconstruction(folder, ndim, subjects=("a", "b/2"), weights=None):
    folder.mkdir()
    (folder / "reconstruction.json").write_text(json.dumps({"encoder": weights}))
    random = np.random.default_rng(1)
    frame = {"subject": list(subjects), "psnr": [20.0, 24.0], "ssim": [0.5, 0.7]}
    pd.DataFrame(frame).to_csv(folder / "metrics.csv", index=False)
    for subject in subjects:
        images = {k: random.integers(0, 255, (2, *[16] * ndim), dtype=np.uint8) for k in KINDS}
        np.savez(folder / f"{file_stem(subject)}.npz", channels=np.array(["flair", "t1"]), **images)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report") / "demo")


@pytest.fixture(scope="module")
def page(run):
    return report([run], run.parent / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Every tag with its attributes, and every text outside of script and style."""

    VOID = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without its start"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def test_the_page_is_well_formed_and_fetches_nothing(page):
    parsed = Tags(page)
    assert parsed.open == []
    for tag, attributes in parsed.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            value = attributes.get(name, "#")
            allowed = ("#", "data:image/", "data:text/csv;")
            assert value.startswith(allowed), (tag, name, value)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp", page)
    policy = next(a["content"] for t, a in parsed.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert len(page) < 6_000_000
    links = [a["href"] for t, a in parsed.tags if t == "a"]
    anchors = {link[1:] for link in links if link.startswith("#")}
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert anchors <= set(ids)
    assert len(set(ids)) == len(ids)


def test_strangers_text_is_never_markup(page):
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert sum(tag == "script" for tag, _ in Tags(page).tags) == 1


def test_the_page_says_what_was_trained_and_what_came_out(run, page):
    words = Tags(page).words
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert "ViT-AE++ on 40 subjects" in words
    assert "ViT-Tiny encoder (5.4 million parameters) was trained on 40 subjects" in words
    assert "16×16×16 voxels of 1×1×3 mm" in words
    assert "in 3 min on CPU" in words
    for part in (metrics, *metrics["controls"].values()):
        assert f"{part['mean']['auc']:.3f} ± {part['std']['auc']:.3f}" in words
    for name in ("untrained encoder", "raw intensities (PCA)", "Perceptual (VGG-16), raw"):
        assert name in words
    assert "22.00 ± 2.83 dB" in words
    assert "mask_ratio: 0.75" in page
    assert "<option>b/2</option>" in page
    assert "No evaluation" not in words
    assert 'class="missing"' not in page
    assert page.count('class="dot ') == 40


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("rows", "seconds", "told", "fact"),
    [
        (57, None, "has been trained on 40 subjects", "57 of 1,000"),
        (0, None, "has been trained on 40 subjects", "0 of 1,000"),
        (1000, 200.0, "was trained on 40 subjects", "1,000"),
        (1000, None, "was trained on 40 subjects", "1,000"),
    ],
)
def test_the_epochs_are_those_that_were_trained(tmp_path, rows, seconds, told, fact):
    run = make_run(tmp_path / "run", evaluated=False, reconstructed=False)
    summary = json.loads((run / "summary.json").read_text()) | {"epochs": 1000}
    del summary["seconds"]
    if seconds:
        summary["seconds"] = seconds
    (run / "summary.json").write_text(json.dumps(summary))
    table = pd.DataFrame({"epoch": np.arange(rows), "loss": 1.0})
    table.to_csv(run / "metrics.csv", index=False)
    words = Tags(report(run, tmp_path / "r.html").read_text(encoding="utf-8")).words
    assert told in words
    so_far = " so far" if rows < 1000 else ""
    assert f"for {fact} epochs{so_far}" in words
    assert f"Epochs {fact}" in words
    assert ("so far" in words) == (rows < 1000)


@pytest.mark.parametrize(
    ("method", "counted", "shown"),
    [
        ("vitae++", {"encoder": 7, "decoder": 5, "heads": 2}, {"encoder", "decoder", "heads"}),
        ("vitae", {"encoder": 7, "decoder": 5}, {"encoder", "decoder"}),
        ("mocov3", {"encoder": 7, "heads": 2}, {"encoder", "heads"}),
        # Those of an older version, which counted heads with the decoder.
        ("vitae++", {"encoder": 7, "decoder": 7}, {"encoder"}),
        ("mocov3", {"encoder": 7, "decoder": -35_504}, {"encoder"}),
    ],
)
def test_parameters_are_those_of_a_decoder_only_where_there_is_one(
    tmp_path, method, counted, shown
):
    run = make_run(tmp_path / "run", evaluated=False, reconstructed=False, method=method)
    summary = json.loads((run / "summary.json").read_text()) | {"parameters": counted}
    (run / "summary.json").write_text(json.dumps(summary))
    contents = read_run(run, "run")
    assert contents.parameters == {part: counted[part] for part in shown}
    told = facts_of([contents], [], {})["model"]
    assert ("A decoder with 5 parameters" in told) == ("decoder" in shown)


def test_words_fit_one_subject_one_epoch_and_what_was_not_measured(tmp_path):
    run = make_run(tmp_path / "run")
    store = json.loads((run / "summary.json").read_text())["store"] | {"subjects": 1}
    change(run / "summary.json", trained_on=1, epochs=1, store=store)
    scores = pd.DataFrame({"subject": ["a"], "psnr": [20.0], "ssim": [np.nan]})
    scores.to_csv(run / "reconstruction" / "metrics.csv", index=False)
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    one = {"n": 1, "folds": metrics["folds"][:1], "std": dict.fromkeys(metrics["std"])}
    change(run / "evaluation" / "metrics.json", **one, members={}, classes=[])
    pages = [report(run, tmp_path / "r.html").read_text(encoding="utf-8")]
    del metrics["n"]
    (run / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    pages.append(report(run, tmp_path / "r.html").read_text(encoding="utf-8"))
    for page in pages:
        words = Tags(page).words
        assert "was trained on 1 subject (" in words
        assert "for 1 epoch," in words
        assert "of 1 subject 20.00 dB" in words
        assert "a 20.00 –" in words
        for wrong in ("1 subjects", "1 epochs", "nan", ".;", ";.", "; ;", " ; "):
            assert wrong not in words, wrong
    assert "1 outer fold; positive class" in Tags(pages[0]).words


def test_the_same_runs_give_the_same_bytes(run, page, tmp_path):
    assert report([run], tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path):
    bare = make_run(tmp_path / "my run", evaluated=False, reconstructed=False, trained=False)
    words = Tags(report(bare, tmp_path / "r.html").read_text(encoding="utf-8")).words
    quoted = f"'{bare}'"
    for command in (
        f"vitaepp embed {quoted} STORE {quoted}/embeddings.parquet",
        f"vitaepp evaluate {quoted}/embeddings.parquet --label COLUMN",
        f"vitaepp reconstruct {quoted} STORE {quoted}/reconstruction",
        f"vitaepp pretrain STORE {quoted} --resume",
    ):
        assert command in words
    for what in ("No evaluation yet", "No loss curves", "No reconstruction of this run"):
        assert what in words


def test_an_evaluation_without_controls_or_tables_says_so(tmp_path):
    run = make_run(tmp_path / "run", reconstructed=False)
    for name in ("untrained", "raw"):
        control_path(run / "embeddings.parquet", name).unlink()
    evaluate(run / "embeddings.parquet", "grade", run / "evaluation")
    (run / "evaluation" / "map.csv").unlink()
    (run / "evaluation" / "predictions.parquet").unlink()
    words = Tags(report(run, tmp_path / "r.html").read_text(encoding="utf-8")).words
    assert "No control stands beside this result" in words
    assert "whether training helped cannot be said" in words
    assert "The curves need predictions.parquet" in words
    assert "The map needs map.csv" in words


def test_damaged_files_are_named_and_the_rest_is_shown(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "summary.json").write_text("{")
    (run / "evaluation" / "predictions.parquet").write_bytes(b"PAR1")
    (run / "reconstruction" / "a.npz").write_bytes(b"PK")
    (run / "other").mkdir()
    (run / "other" / "metrics.json").write_text(json.dumps({"protocol": "svm"}))
    words = Tags(report(run, tmp_path / "r.html").read_text(encoding="utf-8")).words
    for file in ("summary.json", "evaluation/predictions.parquet", "reconstruction/a.npz"):
        assert f"{file} cannot be read" in words
    assert "other/metrics.json lacks parts" in words
    assert "Map of the embedding" in words


def test_several_runs_stand_side_by_side(run, tmp_path):
    other = make_run(tmp_path / "vanilla", reconstructed=False, method="vitae")
    parsed = Tags(report([run, other], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "2 runs compared" in parsed.words
    assert "ViT-AE++ demo" in parsed.words
    assert "ViT-AE vanilla" in parsed.words
    assert parsed.words.count("untrained encoder demo") == 1
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(set(ids)) == len(ids)


def test_an_evaluation_that_lies_twice_in_a_run_is_shown_once(tmp_path):
    run = make_run(tmp_path / "run", reconstructed=False)
    copy = run / "evaluation" / "grade-svm"
    copy.mkdir()
    for name in ("metrics.json", "predictions.parquet", "map.csv"):
        (copy / name).write_bytes((run / "evaluation" / name).read_bytes())
    page = report(run, tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count('aria-label="ROC of') == 1


def copy_evaluation(source, target, weights, seed=0):
    """An evaluation as it would be of other weights."""
    shutil.copytree(source / "evaluation", target)
    metrics = json.loads((target / "metrics.json").read_text()) | {"seed": seed}
    metrics["provenance"]["encoder"] = weights
    (target / "metrics.json").write_text(json.dumps(metrics))


def test_evaluations_are_found_wherever_they_lie_and_named_by_folder(run, tmp_path):
    mine = make_run(tmp_path / "mine", evaluated=False, reconstructed=False)
    places = ("evaluation", "evaluation_grade", "deep/er")
    for seed, place in enumerate(places):
        copy_evaluation(run, mine / place, weights_id(mine), seed)
    add_reconstruction(mine / "rec of a store", 2, weights=weights_id(mine))
    words = Tags(report(mine, tmp_path / "r.html").read_text(encoding="utf-8")).words
    for place in places:
        assert f"grade, linear SVM · {place} " in words
        assert f"ViT-AE++ {place} 0." in words
    assert "22.00 ± 2.83 dB" in words


def maps_of_a_volume():
    """Arrays as `explain` keeps them; the body and the largest value are in the upper half."""
    image = np.zeros((8, 8, 16), np.uint8)
    image[2:6, 2:6, 10:] = 180
    image[1:7, 1:7, 13] = 180
    values = np.zeros((2, 2, 4), np.float32)
    values[..., 3], values[..., 0] = -1.0, 8.0
    lesion = np.zeros(image.shape, bool)
    lesion[3:6, 3:6, 12:15] = True
    regions = np.tile(np.arange(1, 5, dtype=np.uint8), (2, 2, 1))
    parts = np.arange(16).reshape(2, 2, 4)
    return {
        "image": image,
        "parts": parts,
        "shapley": values,
        "shapley_error": abs(values),
        "regions": regions,
        "lesion": lesion,
    }


def test_a_sheet_of_maps_has_each_map_beside_the_image_with_its_lesion(tmp_path):
    np.savez(tmp_path / "a.npz", **maps_of_a_volume())
    made, broken = sheets({"a": tmp_path / "a.npz"}, None, True, 10**6, explained)
    assert broken == []
    assert [s.channel for s in made] == ["Shapley values", "regions"]
    for sheet in made:
        assert (sheet.slices, sheet.first, sheet.heads) == (16, 13, ("Image", "Map"))
        assert sheet.aspect == pytest.approx(2)
    content = base64.b64decode(made[0].source.partition(",")[2])
    shown = np.asarray(Image.open(io.BytesIO(content))).astype(int).reshape(16, 8, 2, 8, 3)
    image, map_ = shown[13, :, 0], shown[13, :, 1]
    red = image[..., 0] - image[..., 2]
    assert red[2:5, 2:5].mean() > 40  # the outline, as one looks at scans
    assert abs(red[0]).max() < 40
    assert (map_[..., 2] - map_[..., 0]).mean() > 5  # against the score: blue


def add_maps(run):
    """The folder `maps`; returns its facts, and the file of the one subject."""
    numbers = {"insertion": 0.5, "deletion": -0.25, "beats_random": 0.75}
    numbers |= {"untrained_correlation": None, "lesion_auc": None}
    told = {"subject": f"a{EVIL}", "explained": "decision score for grade = high"}
    told |= {"total": 1.5, "sum": 1.0, "baseline": 0.5, "error": None, "maps": {"shapley": numbers}}
    facts = {"encoder": weights_id(run), "explained": [told["explained"]], "subjects": [told]}
    facts |= {"taken_away": "left out", "maps": told["maps"]}
    facts |= {"patch_maps": {"variance": [0.3, 0.1, 0.1], "position": [None] * 3}}
    (run / "maps").mkdir()
    (run / "maps" / "explain.json").write_text(json.dumps(facts))
    file = run / "maps" / f"{file_stem(told['subject'])}.npz"
    np.savez(file, **maps_of_a_volume())
    return facts, file


def test_maps_that_lie_in_a_run_are_shown_with_their_numbers(tmp_path):
    run = make_run(tmp_path / "run", evaluated=False, reconstructed=False)
    facts, file = add_maps(run)
    page = report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert EVIL not in page
    assert '<a href="#maps-1">' in page
    assert re.search(r'type="range" min="0" max="15" value="13"', page)
    assert [a["data-channel"] for _, a in Tags(page).tags if a.get("class") == "sheet"] == [
        "Shapley values",
        "regions",
    ]
    assert "<td>+0.50</td><td>-0.25</td><td>75%</td></tr>" in page
    second = facts["subjects"][0] | {
        "maps": {"shapley": facts["maps"]["shapley"] | {"deletion": 0.0}}
    }
    both = facts | {"subjects": [*facts["subjects"], second | {"subject": "b"}]}
    (run / "maps" / "explain.json").write_text(json.dumps(both))
    of_two = report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<td>+0.50 ± 0.00</td><td>-0.25 ± 0.18</td><td>75% ± 0%</td></tr>" in of_two
    (run / "maps" / "explain.json").write_text(json.dumps(facts))
    assert "sum to 1.00, from 0.500 on</li><li>Shapley values: insertion +0.50" in page
    np.savez(file, parts=np.zeros((2, 2, 2)))
    old = report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "holds no image, as of an earlier version; run vitaepp explain again" in old
    (run / "maps" / "explain.json").write_text(json.dumps(facts | {"encoder": "another"}))
    other = report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<a href="#maps-1">' not in other
    assert "maps is not shown: it was made with another encoder" in other
    (run / "maps" / "explain.json").write_text('{"shap": 1}')
    foreign = report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "explain.json lacks parts of what explain writes" in foreign


def test_results_of_other_weights_are_not_shown_as_the_run_s(run, tmp_path):
    mine = make_run(tmp_path / "mine", evaluated=False, reconstructed=False)
    copy_evaluation(run, mine / "evaluation", weights_id(run))
    copy_evaluation(run, mine / "strict", [weights_id(mine), weights_id(run)])
    add_reconstruction(mine / "old", 2)
    add_reconstruction(mine / "unfinished", 2, weights=weights_id(mine))
    (mine / "unfinished" / "metrics.csv").unlink()
    words = Tags(report(mine, tmp_path / "r.html").read_text(encoding="utf-8")).words
    assert "No evaluation yet" in words
    assert "No reconstruction of this run yet" in words
    assert "evaluation is not shown: it was made with another encoder than the run has now" in words
    assert "strict is not shown: it was made with 2 encoders, one a fold" in words
    assert "old is not shown: it does not say which encoder made it" in words
    assert "unfinished holds a reconstruction that did not end" in words


def test_what_is_given_stands_with_its_run_or_by_itself(run, tmp_path):
    one, other = (
        make_run(tmp_path / name, evaluated=False, reconstructed=False) for name in ("a", "b")
    )
    copy_evaluation(run, tmp_path / "of a", weights_id(one))
    add_reconstruction(tmp_path / "of b", 2, weights=weights_id(other))
    given = {
        "evaluations": [tmp_path / "of a", run / "evaluation" / "metrics.json"],
        "reconstructions": [tmp_path / "of b"],
    }
    page = report([one, other], tmp_path / "r.html", **given).read_text(encoding="utf-8")
    sections = dict(re.findall(r'<section id="([^"]*)">(.*?)</section>', page, re.DOTALL))
    assert f"linear SVM · {tmp_path / 'of a'}" in sections["run-1"]
    assert "22.00 ± 2.83 dB" in sections["run-2"]
    assert f"linear SVM · {run / 'evaluation'}" in sections["others"]
    assert "with another encoder" in sections["others"]
    with pytest.raises(
        RunError,
        match=r"is a reconstruction, and not an evaluation; make one",
    ):
        report(one, tmp_path / "r.html", evaluations=[tmp_path / "of b"])
    with pytest.raises(RunError, match=r"no such reconstruction; check the path"):
        report(one, tmp_path / "r.html", reconstructions=[tmp_path / "nowhere"])


def test_what_is_no_run_is_refused(run, tmp_path):
    with pytest.raises(RunError, match="not a run"):
        report([tmp_path], tmp_path / "r.html")
    with pytest.raises(RunError, match="no such run"):
        report([tmp_path / "none"], tmp_path / "r.html")
    with pytest.raises(RunError, match="`out` is an HTML file"):
        report([run], tmp_path)
    with pytest.raises(RunError, match="no run"):
        report([], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def pixels(sheet):
    content = base64.b64decode(sheet.source.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("L")).astype(int)


def test_a_sheet_holds_each_slice_of_original_masked_and_reconstruction(tmp_path):
    volume = np.zeros((1, 16, 32, 100), np.uint8)
    volume[0, :8, 16:, 60:] = 200
    images = {kind: volume // (i + 1) for i, kind in enumerate(KINDS)}
    np.savez(tmp_path / "a.npz", channels=np.array(["t1"]), **images)
    (sheet,), broken = sheets({"a": tmp_path / "a.npz"}, (1.0, 1.0, 5.0), True, 10**6)
    assert broken == []
    assert (sheet.slices, sheet.step) == (34, 3)
    assert sheet.aspect == pytest.approx(3 * 16 / 32)
    shown = pixels(sheet).reshape(34, 32, 3, 16)
    for k in (0, 19, 20, 33):
        for i in range(3):
            # Front is up, and the right of the patient is on the left.
            expected = volume[0, ::-1, ::-1, k * 3].T.astype(int) // (i + 1)
            assert np.abs(shown[k, :, i] - expected).mean() < 6


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_budget_limits_subjects_but_never_below_one(tmp_path, ndim):
    add_reconstruction(tmp_path / "r", ndim)
    files = {name: tmp_path / "r" / f"{file_stem(name)}.npz" for name in ("a", "b/2")}
    assert {s.subject for s in sheets(files, None, False, 10**7)[0]} == {"a", "b/2"}
    assert {s.subject for s in sheets(files, None, False, 1)[0]} == {"a"}


def test_an_archive_with_pickled_objects_is_not_opened(tmp_path):
    np.savez(tmp_path / "a.npz", original=np.array([{}], dtype=object), channels=np.array(["x"]))
    made, broken = sheets({"a": tmp_path / "a.npz"}, None, False, 10**6)
    assert made == []
    assert "a.npz cannot be read" in broken[0]


def test_flat_images_and_panels_are_shown(tmp_path):
    flat = make_run(tmp_path / "flat", evaluated=False, ndim=2)
    folder = flat / "reconstruction"
    table = pd.read_csv(folder / "metrics.csv")
    pd.concat([table, table[:1].assign(subject="c")]).to_csv(folder / "metrics.csv", index=False)
    Image.new("L", (30, 10)).save(folder / "c.png")
    page = report(flat, tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'class="viewer"' not in page
    assert page.count("<figure><div") == 4
    assert "2 of 3 reconstructed subjects are shown" in page
    for file in folder.glob("*.npz"):
        file.unlink()
    page = report(flat, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "data:image/png" in page


@pytest.mark.parametrize("ties", [False, True])
def test_the_roc_of_a_fold_is_scikit_learns(ties):
    random = np.random.default_rng(0)
    label = np.array(["n", "p"])[random.integers(0, 2, 200)]
    score = random.normal(size=200) + (label == "p")
    if ties:
        score = np.round(score)
    frame = pd.DataFrame({"fold": 0, "label": label, "method": score})
    grid, (curve,) = mean_roc(frame, ["method"], ["n", "p"])
    false, hits, _ = roc_curve(label == "p", score)
    assert curve[1:] == pytest.approx(np.interp(grid, false, hits)[1:])
    area = np.trapezoid(curve, grid)
    assert area == pytest.approx(roc_auc_score(label == "p", score), abs=0.01)


def test_names_of_runs_are_distinct(tmp_path):
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c"]
    assert unique_names(paths) == ["a/run", "b/run", "c"]
    assert len(unique_names([tmp_path, tmp_path])) == 2


def lede(page):
    """The first paragraph of the page."""
    return re.search(r'<p class="lede">(.*?)</p>', page, re.S)[1]


def set_scores(folder, **scores):
    """Give each set of features its AUC in every fold."""
    file = folder / "metrics.json"
    metrics = json.loads(file.read_text())
    for key, values in scores.items():
        part = metrics if key == "method" else metrics["controls"][key]
        for fold, value in zip(part["folds"], values, strict=True):
            fold["auc"] = value
        part["mean"]["auc"] = float(np.mean(values))
    file.write_text(json.dumps(metrics))


@pytest.mark.parametrize(
    ("raw", "begins", "advised"),
    [
        ([0.70, 0.72, 0.71, 0.69, 0.70], "The encoder beats its controls: the AUC of grade", False),
        ([0.90, 0.70, 0.95, 0.80, 0.99], "It is not shown that the encoder beats", True),
        ([0.99, 0.97, 0.98, 0.99, 0.98], "Raw intensities beat the encoder: the AUC", True),
    ],
)
def test_the_first_sentence_says_whether_the_encoder_beats_its_controls(
    run, tmp_path, raw, begins, advised
):
    run = shutil.copytree(run, tmp_path / "run")
    method = [0.90, 0.89, 0.91, 0.90, 0.90]
    untrained = [0.60, 0.59, 0.62, 0.61, 0.60]
    set_scores(run / "evaluation", method=method, untrained=untrained, raw=raw)
    page = report(run, tmp_path / "r.html").read_text(encoding="utf-8")
    first = lede(page)
    assert first.startswith(begins)
    assert "0.900 against" in first
    assert "of the untrained encoder (p &lt; 0.001)" in first
    assert first.endswith("by corrected resampled t-test.")
    assert ("What to try:" in page) == advised
    assert ("take raw intensities for this label" in page) == begins.startswith("Raw")


def test_what_to_try_follows_from_the_recipe(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    set_scores(run / "evaluation", method=[0.5] * 5, raw=[0.4, 0.6, 0.5, 0.5, 0.6])
    summary = json.loads((run / "summary.json").read_text()) | {"steps": 300}
    (run / "summary.json").write_text(json.dumps(summary))
    settings = {"optim": {"base_lr": 1e-3}, "views": {"first": {"crop": 1.0}}}
    Recipe.parse(settings).save(run / "recipe.yaml")
    page = report(run, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "this one made 300 steps" in page
    assert "a higher learning rate than 1.6e-05" in page
    assert "views.first.crop=0.4" in page
    assert "views.keep=size,side" in page
    assert "ten draws of the folds (--repeats 10 of evaluate)" in page


def test_several_draws_of_the_folds_are_what_the_page_begins_with(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    file, test = run / "evaluation" / "metrics.json", "corrected resampled t-test"
    leads = {
        key: Difference("auc", 0.871 - auc, p, test, Interval(0.01, 0.2, 0.95), 5, 3)
        for key, auc, p in (("untrained", 0.704, 0.012), ("raw", 0.853, 0.31))
    }
    metrics = json.loads(file.read_text())

    def part(auc, std, **more):
        mean, spread = metrics["mean"] | {"auc": auc}, metrics["std"] | {"auc": std}
        return {"mean": mean, "std": spread, **more}

    controls = {key: part(0.871 - d.mean, 0.05, difference=d.to_json()) for key, d in leads.items()}
    metrics["repeats"] = part(0.871, 0.06, number=3, metric="auc", controls=controls)
    file.write_text(json.dumps(metrics))
    page = report_text(run, tmp_path)
    assert lede(page).startswith(
        "It is not shown that the encoder beats its controls: the AUC of grade is 0.871 over 3 "
        "draws of the folds against 0.853 of raw intensities (p = 0.31) and 0.704 of the untrained "
    )
    words = Tags(page).words
    assert "0.871 ± 0.060 AUC, grade, 3 draws of the folds" in words
    assert "AUC 0.704 ± 0.050; the lead over it is +0.167 [0.010, 0.200], p = 0.012" in words
    assert "--repeats 10" not in words
    assert "5 outer folds, drawn 3 times" in words
    assert "over 3 draws of the folds: not significant (p = 0.31)" in words


def test_a_watched_label_has_a_curve(tmp_path):
    run = make_run(tmp_path / "run", evaluated=False, reconstructed=False)
    table = pd.read_csv(run / "metrics.csv")
    table["knn/grade"] = [0.5 + e / 100 if e % 5 == 0 else np.nan for e in table.epoch]
    table.to_csv(run / "metrics.csv", index=False)
    words = Tags(report(run, tmp_path / "r.html").read_text(encoding="utf-8")).words
    assert "Neighbours that share grade" in words
    assert "not for choosing between models" in words


def test_the_flow_of_subjects_is_shown_from_the_source_to_the_folds(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    assert "does not say what prepare left out" in Tags(report_text(run, tmp_path)).words
    summary = json.loads((run / "summary.json").read_text())
    reasons = {f"reason {i}{EVIL}": 9 - i for i in range(8)}
    summary["store"]["account"] = {"found": 84, "failed": reasons, "left_out": {}}
    (run / "summary.json").write_text(json.dumps(summary))
    words = Tags(report_text(run, tmp_path)).words
    assert "84 subjects" in words
    assert "44 subjects not prepared" in words
    assert "5: other reasons" in words
    assert "Fold 5" in words
    assert "32 to train" in words


def report_text(run, folder):
    return report(run, folder / "r.html").read_text(encoding="utf-8")


def test_figures_can_be_taken_as_svg_and_csv(page):
    links = {a["download"]: a for tag, a in Tags(page).tags if tag == "a" and "download" in a}
    assert {"total-loss.svg", "total-loss.csv", "roc.svg", "roc.csv"} <= links.keys()
    content = base64.b64decode(links["total-loss.csv"]["href"].partition(",")[2])
    table = pd.read_csv(io.BytesIO(content))
    assert table["loss"].tolist() == pytest.approx((3.0 * 0.8 ** np.arange(20)).tolist())
    svg = base64.b64decode(links["roc.svg"]["href"].partition(",")[2]).decode()
    ElementTree.fromstring(svg)
    assert "untrained encoder" in svg
    assert "var(" not in svg


def test_sections_of_other_verbs_are_there_only_with_their_files(run, page, tmp_path):
    assert "Checks and explanations" not in page
    run = shutil.copytree(run, tmp_path / "run")
    item = {"what": f"size{EVIL}", "score": 0.71, "metric": "AUC", "interval": [0.6, 0.8]}
    item |= {"verdict": "red", "sentence": "Size alone tells the label."}
    (run / "audit").mkdir()
    (run / "audit" / "audit.json").write_text(json.dumps([item]))
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    metrics.pop("clinical")  # as of an earlier version
    (run / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    assert "Probabilities and decisions" not in report_text(run, tmp_path)
    value = {"value": 0.9, "low": 0.8, "high": 1.0, "level": 0.95}
    curve = {"predicted": [0.2, 0.8], "observed": [0.3, 0.7], "n": [20, 20]}
    metrics["clinical"] = {
        "brier": value,
        "calibration": {"slope": value, "intercept": None, "classes": {"low": {"curve": curve}}},
        "decision_curve": {
            "threshold": [0.1, 0.5],
            "classes": {"low": {"model": [0.4, 0.3], "all": [0.4, -1.0]}},
        },
    }
    (run / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    words = Tags(report_text(run, tmp_path)).words
    for text in ("0.710 AUC [0.600, 0.800]", "Size alone tells", "Calibration slope 0.900 [0.800"):
        assert text in words
    assert "Decision curve" in words
    assert "audit/audit.json is shown, although it does not say which encoder made it" in words
    item |= {"encoder": weights_id(run), "label": "grade"}
    (run / "audit" / "audit.json").write_text(json.dumps([item]))
    words = Tags(report_text(run, tmp_path)).words
    assert "audit/audit.json is" not in words
    assert words.index("The audit has 1 red answer") < words.index("What was prepared", 900)
    (run / "audit" / "audit.json").write_text(json.dumps([item | {"label": "age"}]))
    assert "red answer" not in Tags(report_text(run, tmp_path)).words
    (run / "audit" / "audit.json").write_text(json.dumps([item | {"encoder": "another"}]))
    words = Tags(report_text(run, tmp_path)).words
    assert "audit/audit.json is not shown: it was made with another encoder" in words
    assert "Size alone tells" not in words
    for damaged in ([{"what": "size"}], {"what": "size"}, "size", 3):
        (run / "audit" / "audit.json").write_text(json.dumps(damaged))
        words = Tags(report_text(run, tmp_path)).words
        assert "audit/audit.json cannot be read" in words


def test_groups_of_a_calibration_have_their_intervals(page):
    links = {a["download"]: a for tag, a in Tags(page).tags if tag == "a" and "download" in a}
    content = base64.b64decode(links["calibration.csv"]["href"].partition(",")[2])
    table = pd.read_csv(io.BytesIO(content))
    assert len(table) > 1
    for row in table.itertuples():
        # Wilson 1927: where a normal test of the share just fails.
        for end in (row.low, row.high):
            z = (row.observed - end) / np.sqrt(end * (1 - end) / row.n) if 0 < end < 1 else 1.96
            assert abs(z) == pytest.approx(1.96, abs=0.01)


def test_what_fit_keeps_of_an_evaluation_is_not_another_one(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    (run / "a model").mkdir()
    for name in ("model.json", "classifier.skops"):
        (run / "a model" / name).write_text("{}")
    kept = json.loads((run / "evaluation" / "metrics.json").read_text())
    kept["provenance"]["embeddings"] = {}  # its folder lies elsewhere
    kept["clinical"]["brier"]["value"] += 1e-15  # and rounding differs from call to call
    (run / "a model" / "metrics.json").write_text(json.dumps(kept))
    words = Tags(report_text(run, tmp_path)).words
    assert "a model" not in words
    assert "predictions.parquet" not in words
    shutil.rmtree(run / "evaluation")
    assert "linear SVM · a model" in Tags(report_text(run, tmp_path)).words


def test_the_first_sentence_is_of_the_encoder_and_not_of_what_was_fine_tuned(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    before = Tags(report_text(run, tmp_path)).words
    shutil.copytree(run / "evaluation", run / "a finetune")
    (run / "a finetune" / "map.csv").unlink()
    change(run / "a finetune" / "metrics.json", classifier="finetune", C=[])
    words = Tags(report_text(run, tmp_path)).words
    assert words.index("grade, linear SVM") < words.index("grade, fine-tuning")
    assert words[: words.index("Results")] == before[: before.index("Results")]
    assert "map.csv" not in words  # a fine-tuned network has none


def add_similar_and_odd(run):
    """The folders `near` of `neighbours` and `odd` of `qc`; returns the table of the latter."""
    (run / "near").mkdir()
    value = {"value": 0.62, "low": 0.5, "high": 0.7, "chance": 0.4}
    facts = {"encoder": weights_id(run), "n": 40, "queries": 40, "new": False}
    facts |= {"near_duplicates": 1, "label": f"grade{EVIL}", "precision": {"1": value, "5": value}}
    facts |= {"controls": {"raw": {"precision": {"1": value, "5": value}}}}
    (run / "near" / "neighbours.json").write_text(json.dumps(facts))
    Image.new("RGB", (900, 50)).save(run / "near" / "neighbours.png")
    (run / "odd").mkdir()
    names = ["distance_deviation", "error_deviation", "flagged", "reason"]
    rows = [[1.0, -0.5, False, ""], [2.0, 4.5, True, "hard to fill in"], [9.0, 1, True, EVIL]]
    table = pd.DataFrame(rows, columns=names).assign(subject=["a", "b", "c"])
    table.to_csv(run / "odd" / "qc.csv", index=False)
    found = {"encoder": weights_id(run), "store": "abroad", "n": 3, "flagged": 2, "limit": 3.5}
    (run / "odd" / "qc.json").write_text(json.dumps(found))
    return table


def test_similar_and_odd_scans_have_sections_of_their_own_run_alone(run, page, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    table = add_similar_and_odd(run)
    text = report_text(run, tmp_path)
    words = Tags(text).words
    assert EVIL not in text
    for said in (
        "1 pair may be the same image twice",
        "nearest 5",
        "raw intensities (PCA) 0.620 [0.500, 0.700]",
        "chance 0.400 0.400",
        "the most similar of 40 subjects, by",
        "2 of 3 scans of the store abroad are unlike the others: farther than 3.5 robust standard",
    ):
        assert said in words, said
    assert words.index("<script>alert(1)</script> b hard to fill in") > 0  # the oddest first
    assert text.count('data-tip="c · distance +9.0, error +1.0"') == 1
    assert 'alt="In each line a scan and its most similar subjects' in text
    test_the_page_is_well_formed_and_fetches_nothing(text)
    test_every_picture_has_words_and_every_control_a_name(text)
    table.assign(error_deviation=np.nan).to_csv(run / "odd" / "qc.csv", index=False)
    assert "filled in (error)" not in Tags(report_text(run, tmp_path)).words
    change(run / "odd" / "qc.json", encoder="another")
    (run / "near" / "neighbours.json").write_text("{")
    words = Tags(report_text(run, tmp_path)).words
    assert "odd/qc.json is not shown: it was made with another encoder" in words
    assert words.count("near/neighbours.json cannot be read") == 1


def test_every_picture_has_words_and_every_control_a_name(page):
    for tag, attributes in Tags(page).tags:
        if tag == "img":
            assert attributes["alt"].strip()
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes["aria-label"].strip()
        if attributes.get("class", "").startswith("scroll"):
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"].strip()
    assert "aria-valuetext" in page
    assert "@media screen and (prefers-color-scheme: dark)" in page  # paper stays white
