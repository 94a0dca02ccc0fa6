"""What comes later to a store: labels, other sources, and single scans for a trained encoder."""

import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from tests.ingest.trees import brats, mask, picture, scan, volume
from vitaepp.cli.app import main
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import unlike
from vitaepp.errors import RecipeError, SourceError
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.prepare import prepare
from vitaepp.recipe.recipe import Recipe


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_labels_added_later_are_told_with_the_next_step(tmp_path, capsys):
    source = tmp_path / "x"
    for i in range(3):
        scan(source / f"p{i}.nii.gz", seed=i)
    prepare(source, tmp_path / "s", size=8)
    first = table(tmp_path / "first.csv", "subject,grade\np0,1\np1,2\np2,\n")
    capsys.readouterr()
    assert prepare(source, tmp_path / "s", size=8, labels=first).skipped == 3
    told = capsys.readouterr().err
    assert "first.csv: grade added for 2 of 3 subjects; embeddings made before do not" in told
    assert "evaluate them with `labels=first.csv` `label=grade`" in told
    prepare(source, tmp_path / "s", size=8, labels=first)
    assert "first.csv: the store has these labels already" in capsys.readouterr().err
    other = table(tmp_path / "other.csv", "subject,grade,split\np0,1,train\np1,3,test\np2,2,test\n")
    prepare(source, tmp_path / "s", size=8, labels=other)
    told = capsys.readouterr().err
    assert "grade changed for 2 of 3 subjects" in told
    assert "split changed for 3 of 3 subjects" in told
    assert Store(tmp_path / "s").table.grade.tolist() == [1, 3, 2]


@pytest.mark.parametrize("name", ["labels.csv", "labels.xlsx"])
def test_the_column_of_subjects_can_be_named(tmp_path, name):
    scan(tmp_path / "x" / "007.nii.gz")
    rows = pd.DataFrame({"Study No": ["007"], "grade": [4]})
    if name.endswith("csv"):
        rows.to_csv(tmp_path / name, index=False)
    else:  # its other sheet would be taken for the one with subjects
        with pd.ExcelWriter(tmp_path / name) as book:
            pd.DataFrame({"subject": ["007"], "site": [1]}).to_excel(book, sheet_name="a")
            rows.to_excel(book, sheet_name="b", index=False)
    how = {"size": 8, "labels": tmp_path / name, "id_column": "study no"}
    prepare(tmp_path / "x", tmp_path / "s", **how)
    assert Store(tmp_path / "s").table.grade.tolist() == [4]
    with pytest.raises(SourceError, match="has no column record; found"):
        prepare(tmp_path / "x", tmp_path / "s", **how | {"id_column": "record"})


def test_the_column_of_subjects_of_a_manifest_can_be_named(tmp_path):
    scan(tmp_path / "a.nii.gz")
    manifest = table(tmp_path / "m.csv", "record,t1,grade\nr1,a.nii.gz,2\n")
    assert [s.subject for s in recognise(manifest, id_column="record").subjects] == ["r1"]
    both = table(tmp_path / "both.csv", "record,subject,t1\nr1,x,a.nii.gz\n")
    with pytest.raises(SourceError, match=r"has columns record and subject, .* rename or remove"):
        recognise(both, id_column="record")
    # Of a manifest with labels beside, it is the labels' column.
    usual = table(tmp_path / "usual.csv", "subject,t1\nr1,a.nii.gz\n")
    labels = table(tmp_path / "l.csv", "record,grade\nr1,5\n")
    prepare(usual, tmp_path / "s", size=8, labels=labels, id_column="record")
    assert Store(tmp_path / "s").table.grade.tolist() == [5]
    with pytest.raises(RecipeError, match="`id_column` names a column of `labels` or of a manifes"):
        prepare(tmp_path / "a.nii.gz", tmp_path / "t", id_column="record")


def test_the_names_of_the_column_are_told(tmp_path):
    scan(tmp_path / "x" / "a.nii.gz")
    labels = table(tmp_path / "l.csv", "record,grade\na,5\n")
    names = "no column subject, subject_id, participant_id or patient; found record, grade; .*`id_c"
    with pytest.raises(SourceError, match=names):
        prepare(tmp_path / "x", tmp_path / "s", labels=labels)


def test_an_image_keeps_the_labels_of_its_own_source(tmp_path, capsys):
    """Whatever the second source is like, and whether the subject can be prepared or not."""
    first, second = tmp_path / "first", tmp_path / "second"
    for i, name in enumerate(("same", "other", "broken", "gone")):
        scan(first / f"{name}.nii.gz", seed=i)
        if name != "gone":
            scan(second / f"{name}.nii.gz", seed=i + 10 * (name == "other"))
    (second / "broken.nii.gz").write_bytes(b"no scan")
    rows = "".join(f"{n},first,train\n" for n in ("same", "other", "broken", "gone"))
    labels = table(tmp_path / "first.csv", f"subject,site,split\n{rows}")
    prepare(first, tmp_path / "s", size=8, labels=labels)
    before = Store(tmp_path / "s")
    images = dict(zip(before.table.subject, before.read(range(4)), strict=True))
    capsys.readouterr()
    rows = "".join(f"{n},second,test\n" for n in ("same", "other", "broken"))
    labels = table(tmp_path / "second.csv", f"subject,site,split\n{rows}")
    prepare(second, tmp_path / "s", size=8, labels=labels)
    told = capsys.readouterr().err
    assert "1 subject of the same name had another image (other)" in told
    assert "1 subject that failed now (broken) keep image and labels of an earlier run" in told
    after = Store(tmp_path / "s")
    kept = {
        subject: (np.array_equal(images[subject], image), site, split)
        for subject, image, site, split in zip(
            *(after.table.subject, after.read(range(4)), after.table.site, after.table.split),
            strict=True,
        )
    }
    assert kept == {
        "same": (True, "second", "test"),
        "other": (False, "second", "test"),
        "broken": (True, "first", "train"),
        "gone": (True, "first", "train"),
    }
    # A source without labels takes them from what it replaces.
    scan(second / "other.nii.gz", seed=77)
    prepare(second, tmp_path / "s", size=8)
    assert "labels of an earlier run" in capsys.readouterr().err
    sites = Store(tmp_path / "s").table.set_index("subject").site
    assert sites.notna().to_dict() == {"same": False, "other": False, "broken": True, "gone": True}


def test_images_that_are_there_under_another_name_are_told(tmp_path, capsys):
    for i in range(3):
        scan(tmp_path / "all" / f"site{i // 2}" / f"p{i}" / "t1.nii.gz", seed=i)
        scan(tmp_path / "all" / f"site{i // 2}" / f"p{i}" / "t2.nii.gz", seed=i + 9)
    prepare(tmp_path / "all" / "site0", tmp_path / "s", size=16, workers=1)
    prepare(tmp_path / "all" / "site0", tmp_path / "s", workers=1)
    assert "the same content" not in capsys.readouterr().err
    prepare(tmp_path / "all", tmp_path / "s", workers=1)
    names = Store(tmp_path / "s").table.subject
    told = capsys.readouterr().err
    assert len(names) == 5
    assert "2 of 3 new subjects have exactly the same content as others that were there" in told
    assert f"({names[2]} is p0, {names[3]} is p1)" in told


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".mhd", ".npy", ".hdr"])
def test_a_single_scan_is_a_source(tmp_path, suffix):
    values = volume()
    folder = tmp_path / "images" / "train"  # what is around it says nothing
    folder.mkdir(parents=True)
    path = folder / f"p01_mask{suffix}"
    if suffix == ".npy":
        np.save(path, values)
    elif suffix == ".mhd":
        sitk.WriteImage(sitk.GetImageFromArray(values.T), str(path))
    else:
        nib.save(KINDS[suffix](values, np.eye(4)), path)
    scan(folder / "p02.nii.gz", seed=9)  # a neighbour is not taken
    cohort = recognise(path)
    assert (cohort.layout, cohort.kind, cohort.modalities) == ("one scan", "scans", ("image",))
    prepare(path, tmp_path / "s", size="10,12,9", spacing=1, modalities="flair")
    store = Store(tmp_path / "s")
    assert store.info.modalities == ("flair",)
    assert store.table[["subject", "split"]].values.tolist() == [["p01_mask", ""]]
    assert list(store.table.source[0]) == [path.name]
    assert store.read([0])[0, 0].astype(float).std() > 50


def test_a_file_that_names_another_modality_is_told(tmp_path):
    for i, name in enumerate(("a_T1", "a_T2", "b_T1", "b_T2_to_T1")):
        scan(tmp_path / f"{name}.nii.gz", seed=i)
    rows = "a,a_T1.nii.gz,a_T2.nii.gz\nb,b_T2_to_T1.nii.gz,b_T1.nii.gz\n"
    (tmp_path / "swapped.csv").write_text(f"subject,t1,t2\n{rows}")
    prepare(tmp_path / "swapped.csv", tmp_path / "s")
    told = [f"{a}: {b} by the name of its file" for a, b in (("t1", "t2"), ("t2", "t1"))]
    assert [[*notes] for notes in Store(tmp_path / "s").table.prepare_notes] == [[], told]
    prepare(tmp_path / "a_T2.nii.gz", tmp_path / "one", modalities="t1")
    assert [*Store(tmp_path / "one").table.prepare_notes[0]] == told[:1]


def test_a_single_picture_is_a_source_and_a_link_to_a_scan_is_one(tmp_path):
    path = picture(tmp_path / "NORMAL" / "a.png")
    prepare(path, tmp_path / "s", size=16)
    store = Store(tmp_path / "s")
    assert (store.table.subject.tolist(), store.label_columns) == (["a"], [])
    assert recognise(path).layout == "one picture"
    real = scan(tmp_path / "far" / "b.nii.gz")
    (tmp_path / "link.nii.gz").symlink_to(real)
    assert prepare(tmp_path / "link.nii.gz", tmp_path / "t", size=8).prepared == 1
    with pytest.raises(SourceError, match="no subject has it"):
        prepare(real, tmp_path / "u", modalities="t1,t2")
    (tmp_path / "note.txt").write_text("no scan")
    with pytest.raises(SourceError, match="no images found"):
        recognise(tmp_path / "note.txt")


KINDS = {".nii.gz": nib.Nifti1Image, ".mgz": nib.MGHImage, ".hdr": nib.Nifti1Pair}


def run_of(store: Store, run: Path, encoder: bool = True, **settings: object) -> Path:
    """What a training on a store leaves that prepare looks at."""
    run.mkdir()
    Recipe().changed(prepare=store.info.settings | settings).save(run / "recipe.yaml")
    if encoder:
        (run / "encoder").mkdir()
        prepared = json.dumps({"prepared": asdict(store.info)})
        (run / "encoder" / "config.json").write_text(prepared)
    return run


HOW = {
    "crop": {"size": "6,8,8", "spacing": "1,2,1", "center": "foreground", "dtype": "uint8"},
    "clip": {"size": 8, "clip": "1,99", "statistics": "foreground"},
    "window": {"size": 8, "window": ["flair=500,801"], "modalities": "t1,flair"},
    "mask": {"size": 8, "mask_values": "1", "center": "mask"},
}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("which", ["run", "unfinished", "encoder"])
def test_new_scans_are_prepared_as_a_runs_were(tmp_path, how, which):
    prepare(brats(tmp_path / "x"), tmp_path / "s", **how)
    first = Store(tmp_path / "s")
    # What tells where a source has what is the first source's own.
    own = {"layout": "brats", "mask_pattern": "*_seg.nii.gz", "classes": 3, "keep_masks": True}
    run = run_of(first, tmp_path / "run", encoder=which != "unfinished", **own)
    new = tmp_path / "new"
    for name in first.info.modalities:
        scan(new / "p09" / f"{name}.nii.gz", seed=5)
    mask(new / "p09" / "mask.nii.gz")
    prepare(new, tmp_path / "t", recipe=run / "encoder" if which == "encoder" else run)
    second = Store(tmp_path / "t")
    assert second.info == first.info
    assert unlike(second.info, first.info) == []
    # What is given goes before.
    prepare(new, tmp_path / "u", recipe=run, size=4, modalities="t1")
    assert Store(tmp_path / "u").info.size == (4, 4, 4)
    assert Store(tmp_path / "u").info.modalities == ("t1",)


def test_new_scans_without_masks_are_centred_on_their_foreground_and_told(tmp_path, capsys):
    names = ("t1", "t2")
    prepare(brats(tmp_path / "x", names=names), tmp_path / "s", size=8)
    assert Store(tmp_path / "s").info.center == "mask"
    run = run_of(Store(tmp_path / "s"), tmp_path / "run")
    new = tmp_path / "new"
    bright = np.random.default_rng(1).integers(0, 9, (20, 20, 20)).astype(np.int16)
    bright[12:16, 3:7, 8:12] = np.random.default_rng(0).integers(500, 900, (4, 4, 4))
    for subject in ("with", "without"):
        for name in names:
            scan(new / subject / f"{subject}_{name}.nii.gz", values=bright)
    mask(new / "with" / "with_seg.nii.gz", shape=(20, 20, 20), at=(6, 6, 6))
    capsys.readouterr()
    result = prepare(new, tmp_path / "t", recipe=run)
    told = "centred on masks; without one, and centred on the foreground: 1 of 2 subjects"
    assert told in capsys.readouterr().err
    assert (result.prepared, result.failures) == (2, ())
    assert "1 of 2 subjects: no mask, on which the run's crops are centred" in result.account
    store = Store(tmp_path / "t")
    assert store.info == Store(tmp_path / "s").info
    assert store.table.crop_center.tolist() == ["mask", "foreground"]
    assert "1 around the foreground" in store.summary()
    middles = [np.reshape(a, (4, 4)) @ [3.5, 3.5, 3.5, 1] for a in store.table.affine]
    assert np.abs(middles[0][:3] - 6).max() <= 0.5
    assert np.abs(middles[1][:3] - [13.5, 4.5, 9.5]).max() <= 0.5
    # Again, nothing is new; without the run, the subject fails as ever.
    assert prepare(new, tmp_path / "t", recipe=run).skipped == 2
    assert len(prepare(new, tmp_path / "u", size=8, center="mask").failures) == 1
    # None has a mask.
    (new / "with" / "with_seg.nii.gz").unlink()
    prepare(new, tmp_path / "v", recipe=run)
    assert Store(tmp_path / "v").table.crop_center.tolist() == ["foreground"] * 2


def test_a_single_scan_goes_to_a_runs_encoder(tmp_path):
    for i in range(3):
        scan(tmp_path / "x" / "sub" / f"p{i}_FLAIR.nii.gz", seed=i)
    text = "subject,flair\n" + "".join(f"p{i},x/sub/p{i}_FLAIR.nii.gz\n" for i in range(3))
    prepare(table(tmp_path / "m.csv", text), tmp_path / "s", size=8)
    run = run_of(Store(tmp_path / "s"), tmp_path / "run")
    prepare(tmp_path / "x" / "sub" / "p0_FLAIR.nii.gz", tmp_path / "t", recipe=run)
    one, all_ = Store(tmp_path / "t"), Store(tmp_path / "s")
    assert one.info == all_.info
    assert np.array_equal(one.read([0]), all_.read([0]))


def test_what_is_no_run_is_refused_as_a_recipe(tmp_path):
    scan(tmp_path / "a.nii.gz")
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text("[]")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    for name, told in {
        "empty": "empty: neither a run nor an encoder",
        "odd": "not an encoder's",
        "old": "does not tell how its store was prepared",
        "nothing": "no recipe",
    }.items():
        with pytest.raises(RecipeError, match=told):
            prepare(tmp_path / "a.nii.gz", tmp_path / "s", recipe=tmp_path / name)


@pytest.mark.parametrize(
    ("function", "line", "given"),
    [
        ("encoder.embed.embed", "embed run s e.parquet --last", {"last": True}),
        (
            "evaluation.evaluation.evaluate",
            "evaluate e.parquet --label g --out o --labels l.csv --id-column no",
            {"labels": "l.csv", "id_column": "no"},
        ),
        (
            "ingest.prepare.prepare",
            "prepare x.nii.gz s --labels l.csv --id-column no --recipe run",
            {"labels": "l.csv", "id_column": "no", "recipe": "run"},
        ),
    ],
)
def test_options_of_the_command_line_reach_the_library(monkeypatch, function, line, given):
    called = {}

    def record(*_, **options):
        called.update(options)
        raise RecipeError("enough")

    monkeypatch.setattr(f"vitaepp.{function}", record)
    monkeypatch.setattr("sys.argv", ["vitaepp", *line.split()])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert given.items() <= called.items()
