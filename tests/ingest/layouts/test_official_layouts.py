"""The data sets of the paper are recognised as they are downloaded, without being told."""

import os
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest

from tests.ingest import official
from tests.ingest.trees import picture, scan
from vitaepp.data.labels import join_labels
from vitaepp.data.store import Store
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.readers.cifar import cifar_images


def labels(cohort, name="label"):
    return {s.subject: s.labels.get(name) for s in cohort.subjects}


def test_brats_2018_has_its_grade_from_folders_and_survival_from_its_table(tmp_path):
    root = official.brats2018(tmp_path)
    for source in (root, tmp_path):
        cohort = recognise(source)
        assert cohort.modalities == ("flair", "t1", "t1ce", "t2")
        assert cohort.has_masks
        assert labels(cohort, "grade") == {
            "Brats18_2013_2_1": "HGG",
            "Brats18_CBICA_AAB_1": "HGG",
            "Brats18_2013_0_1": "LGG",
            "Brats18_TCIA09_141_1": "LGG",
        }
    table = cohort.table().set_index("subject")
    first = table.loc["Brats18_CBICA_AAB_1"]
    assert (first.age, first.survival_days, first.resection) == (60.46, 289, "GTR")
    alive = table.loc["Brats18_2013_2_1"]
    assert alive.age == 54.1
    assert pd.isna(alive.survival_days)
    assert pd.isna(alive.resection)


@pytest.mark.parametrize("folders", [True, False])
def test_brats_2019_has_its_grade_from_folders_or_from_the_mapping(tmp_path, folders):
    root = official.brats2019(tmp_path)
    if not folders:
        for subject in list(root.glob("?GG/*")):
            subject.rename(root / subject.name)
    grades = labels(recognise(root), "grade")
    assert grades == {"BraTS19_CBICA_AAB_1": "HGG", "BraTS19_2013_0_1": "LGG"}


def test_brats_2020_has_its_grade_from_the_mapping_and_the_odd_mask_of_355(tmp_path):
    cohort = recognise(official.brats2020(tmp_path))
    assert cohort.modalities == ("flair", "t1", "t1ce", "t2")
    assert labels(cohort, "grade") == {
        "BraTS20_Training_001": "HGG",
        "BraTS20_Training_260": "LGG",
        "BraTS20_Training_355": "HGG",
        "BraTS20_Training_400": None,
    }
    masks = [s.mask.name for s in cohort.subjects]
    assert masks[2] == "W39_1998.09.19_Segm.nii"
    assert masks[0] == "BraTS20_Training_001_seg.nii"
    assert labels(cohort, "survival_days")["BraTS20_Training_001"] == 289


def test_brats_since_2021_has_no_grade(tmp_path):
    old, new = official.brats2021(tmp_path / "2021"), official.brats2023(tmp_path / "2023")
    assert recognise(old).modalities == ("flair", "t1", "t1ce", "t2")
    assert recognise(new).modalities == ("t2f", "t1n", "t1c", "t2w")
    for source in (old, new):
        cohort = recognise(source)
        assert (len(cohort.subjects), cohort.has_masks) == (2, True)
        assert list(cohort.table().columns) == ["subject", "split"]


@pytest.mark.parametrize("layout", ["session", "resources", "downloader"])
def test_egd_in_each_of_its_layouts(tmp_path, layout):
    source = official.egd(tmp_path, layout)
    cohort = recognise(source)
    assert cohort.layout == "the Erasmus Glioma Database"
    assert cohort.modalities == ("flair", "t1", "t1gd", "t2")
    assert [s.subject for s in cohort.subjects] == [f"EGD-{i:04d}" for i in range(1, 7)]
    assert all(s.files["t1gd"].name == "T1GD.nii.gz" for s in cohort.subjects)
    assert all(s.mask.name == "MASK.nii.gz" for s in cohort.subjects)
    expected = [1, 0, None, None, 1, 0] if layout == "downloader" else [None] * 6
    assert list(labels(cohort, "IDH").values()) == expected
    one = next(p for p in source.rglob("*EGD-0002"))
    assert [s.subject for s in recognise(one).subjects] == ["EGD-0002"]


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
@pytest.mark.parametrize("inside", [True, False])
def test_egd_labels_from_its_own_table_where_minus_one_is_no_label(tmp_path, suffix, inside):
    source = official.egd(tmp_path / "egd", "session")
    table = source / "METADATA" / f"Genetic_and_Histological_labels{suffix}"
    table = table if inside else tmp_path / f"labels{suffix}"
    table.parent.mkdir(exist_ok=True)
    write = official.EGD_LABELS.to_csv if suffix == ".csv" else official.EGD_LABELS.to_excel
    write(table, index=False)
    prepare(source, tmp_path / "store", size=8, labels=None if inside else table)
    stored = Store(tmp_path / "store").table.set_index("subject")
    assert stored.IDH.tolist() == [1, 0, pd.NA, pd.NA, 1, 0]
    assert stored["1p19q"].tolist() == [0, pd.NA, pd.NA, pd.NA, 1, 0]
    assert stored.Grade.tolist() == [2, 4, 4, pd.NA, 3, 4]


def test_a_scan_that_egd_has_twice_is_refused(tmp_path):
    source = official.egd(tmp_path, "session", subjects=1)
    scan(source / "EGD-0001" / "T1.nii.gz")
    with pytest.raises(SourceError, match="EGD-0001 has T1 twice"):
        recognise(source)


@pytest.mark.parametrize(
    ("text", "told"), [("{", "is not valid JSON: line 1"), ("{}", "holds no Genetic")]
)
def test_broken_metadata_of_egd_is_one_line(tmp_path, text, told):
    source = official.egd(tmp_path, "downloader", subjects=1)
    (source / "SUBJECTS" / "EGD-0001" / "metadata.json").write_text(text)
    with pytest.raises(SourceError, match=rf"EGD-0001/metadata\.json: {told}"):
        recognise(source)


def test_the_chest_x_rays_as_published_and_as_kaggle_gives_them(tmp_path):
    root = official.chest_xray(tmp_path)
    published = recognise(tmp_path)
    assert len(published.subjects) == 10
    picture(root / "val" / "NORMAL" / "NORMAL2-IM-1427-0001.jpeg")
    shutil.copytree(root, tmp_path / "copy")
    (tmp_path / "copy").rename(root / "chest_xray")
    shutil.copytree(root / "test", root / "__MACOSX" / "chest_xray" / "test")
    for source in (root, tmp_path):
        cohort = recognise(source)
        table = cohort.table()
        assert table.split.value_counts().to_dict() == {"train": 6, "test": 4, "val": 1}
        assert table.label.value_counts().to_dict() == {"NORMAL": 6, "PNEUMONIA": 5}
        assert cohort.classes == ("NORMAL", "PNEUMONIA")
    # What is there only inside is no copy.
    (root / "train" / "NORMAL" / "IM-train-0000.jpeg").unlink()
    assert len(recognise(tmp_path).subjects) == 11


@pytest.mark.parametrize("extracted", [False, True])
def test_cifar_10_from_the_archive_and_from_its_folder(tmp_path, extracted):
    files = official.cifar10_files()
    source = official.cifar10(tmp_path)
    if extracted:
        source.unlink()
        source = tmp_path / "cifar-10-batches-py"
        source.mkdir()
        for name, data in files.items():
            (source / name).write_bytes(data)
    for path in (source, tmp_path):
        cohort = recognise(path)
        assert (cohort.layout, cohort.kind) == ("CIFAR-10", "arrays")
        assert cohort.classes == official.CIFAR10_NAMES
        table = cohort.table()
        assert list(table.subject[[0, 19, 20, 23]]) == [
            *("train_00000", "train_00019", "test_00000", "test_00003")
        ]
        assert table.split.value_counts().to_dict() == {"train": 20, "test": 4}
        assert list(table.label[:5]) == [*("airplane", "automobile") * 2, "automobile"]
    result = prepare(source, tmp_path / "store", dtype="uint8")
    assert (result.prepared, result.failures) == (24, ())
    store = Store(tmp_path / "store")
    assert store.info.modalities == ("red", "green", "blue")
    assert store.info.size == (32, 32)
    raw = pickle.loads(files["data_batch_2"], encoding="bytes")[b"data"]
    assert np.array_equal(store.read([4]), raw[:1].reshape(1, 3, 32, 32))
    assert prepare(source, tmp_path / "store", dtype="uint8").skipped == 24


def test_cifar_100_has_fine_and_coarse_labels(tmp_path):
    cohort = recognise(official.cifar100(tmp_path))
    table = cohort.table()
    assert cohort.layout == "CIFAR-100"
    assert list(table.label[:4]) == ["apple", "aquarium_fish", "baby", "bear"]
    assert list(table.coarse_label[:2]) == ["aquatic_mammals", "fish"]
    assert table.split.value_counts().to_dict() == {"train": 12, "test": 6}
    assert len(cohort.classes) == 100


def test_the_first_classes_are_the_sources_own_first(tmp_path):
    source = official.cifar100(tmp_path)
    prepare(source, tmp_path / "store", classes=3)
    assert set(Store(tmp_path / "store").table.label) == {"apple", "aquarium_fish", "baby"}
    with pytest.raises(SourceError, match=r"`classes=101`: CIFAR-100 has 100 classes"):
        prepare(source, tmp_path / "store", classes=101)
    scan(tmp_path / "scans" / "a.nii.gz")
    with pytest.raises(SourceError, match="has no classes"):
        prepare(tmp_path / "scans", tmp_path / "other", classes=1)


class _Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("archived", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, archived):
    marker = tmp_path / "it-ran"
    files = official.cifar10_files()
    files["data_batch_3"] = pickle.dumps({b"data": _Malicious(marker), b"labels": []}, protocol=2)
    if archived:
        source = official.archive(tmp_path / "x.tar.gz", "cifar-10-batches-py", files)
    else:
        source = tmp_path / "x"
        source.mkdir()
        for name, data in files.items():
            (source / name).write_bytes(data)
    with pytest.raises(SourceError, match=r"data_batch_3: is not a CIFAR file: it asks to run"):
        recognise(source)
    batch = "cifar-10-batches-py/data_batch_3"
    place = (source, batch) if archived else (source / "data_batch_3", "data")
    with pytest.raises(SourceError, match="asks to run"):
        cifar_images(*place)
    assert not marker.exists()
    pickle.loads(files["data_batch_3"])  # the usual way runs it
    assert marker.exists()


@pytest.mark.parametrize(
    "evil",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"c_codecs\ndecode\n.",
        b"cnumpy\ndtype.__class__\n.",
        pickle.dumps(np.random.default_rng(0)),
        pickle.dumps(pd.DataFrame({"a": [1]})),
    ],
)
def test_no_other_global_is_looked_up(tmp_path, evil):
    (tmp_path / "b").write_bytes(evil)
    with pytest.raises(SourceError, match="asks to run"):
        cifar_images(tmp_path / "b", "data")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("data_batch_1", b"", "truncated, corrupt or not a CIFAR file"),
        ("data_batch_1", b"\x80\x02}q\x01(U\x04data", "truncated, corrupt"),
        ("data_batch_1", official.python2_pickle([1, 2]), "truncated, corrupt or not a CIFAR"),
        ("data_batch_1", official.python2_pickle({"labels": [1]}), "labels do not fit its 0"),
        ("data_batch_1", official.python2_pickle({"data": [1]}), "not a CIFAR batch"),
        (
            "test_batch",
            official.python2_pickle({"data": np.zeros((2, 12), np.uint8), "labels": [0, 0]}),
            "have 12 values",
        ),
        (
            "test_batch",
            official.python2_pickle({"data": np.zeros((2, 3072)), "labels": [0, 0]}),
            "truncated, corrupt",
        ),
        (
            "test_batch",
            official.python2_pickle({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 11]}),
            "labels do not fit its 2 images",
        ),
        ("batches.meta", official.python2_pickle({"label_names": 3}), "names no classes"),
        ("data_batch_4", None, "CIFAR-10 without data_batch_4"),
        ("batches.meta", None, "neither CIFAR-10 nor CIFAR-100"),
    ],
)
def test_a_broken_cifar_is_refused_in_one_line(tmp_path, name, data, message):
    files = official.cifar10_files() | {name: data}
    files = {k: v for k, v in files.items() if v is not None}
    source = official.archive(tmp_path / "c.tar.gz", "cifar-10-batches-py", files)
    with pytest.raises(SourceError, match=message) as caught:
        recognise(source)
    assert "\n" not in str(caught.value)


def test_a_truncated_archive_and_one_that_is_none(tmp_path):
    source = official.cifar10(tmp_path)
    source.write_bytes(source.read_bytes()[:-2000])
    with pytest.raises(SourceError, match="truncated, corrupt or no"):
        recognise(source)
    (tmp_path / "y.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(SourceError, match="not a tar archive"):
        recognise(tmp_path / "y.tar.gz")
    official.cifar10(tmp_path)
    official.cifar100(tmp_path)
    with pytest.raises(SourceError, match="holds 2 archives"):
        recognise(tmp_path)


def test_tiny_imagenet_tests_on_val_and_leaves_out_what_has_no_label(tmp_path):
    root = official.tiny_imagenet(tmp_path)
    wnids = root.joinpath("wnids.txt").read_text().split()
    assert wnids != sorted(wnids)
    for source in (root, tmp_path):
        cohort = recognise(source)
        assert cohort.layout == "Tiny ImageNet"
        assert cohort.classes == tuple(wnids)
        table = cohort.table()
        assert table.split.value_counts().to_dict() == {"train": 12, "test": 8}
        assert list(table.subject[[0, 12]]) == [f"{wnids[0]}_0", "val_0"]
        train = table[table.split == "train"]
        assert (train.label == train.subject.str.split("_").str[0]).all()
        assert list(table[table.split == "test"].label) == wnids * 2
    half = cohort.of_first_classes(2)
    assert set(half.table().label) == set(wnids[:2])
    assert len(half.subjects) == 2 * 3 + 4


def test_tiny_imagenet_without_its_annotations_is_refused(tmp_path):
    root = official.tiny_imagenet(tmp_path)
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text("val_0.JPEG\tn99999999\t0\t0\t1\t1\n")
    with pytest.raises(SourceError, match=r"gives no class for val_0\.JPEG"):
        recognise(root)
    annotations.unlink()
    with pytest.raises(SourceError, match=r"val_annotations\.txt is missing"):
        recognise(root)


TABLE = pd.DataFrame({"subject": ["007", "b"], "split": ["", ""]})


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".xlsx"])
@pytest.mark.parametrize("name", ["subject", "Subject", "SUBJECT_ID", "participant_id", "Patient"])
def test_label_tables_of_any_type_name_their_subjects_in_any_case(tmp_path, suffix, name):
    frame = pd.DataFrame({"age": [60, None], name: ["007", "b"], "sex": ["f", "m"]})
    path = tmp_path / f"labels{suffix}"
    if suffix == ".xlsx":
        frame.to_excel(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    joined, without = join_labels(TABLE, path)
    assert without == []
    assert joined.age.tolist() == [60, pd.NA]
    assert joined.sex.tolist() == ["f", "m"]


def test_a_manifest_may_be_a_spreadsheet(tmp_path):
    scan(tmp_path / "a.nii.gz")
    frame = pd.DataFrame({"Subject": ["x"], "t1": ["a.nii.gz"], "grade": [2]})
    frame.to_excel(tmp_path / "m.xlsx", index=False)
    cohort = recognise(tmp_path / "m.xlsx")
    assert cohort.layout == "a manifest"
    assert cohort.subjects[0].files["t1"].is_file()
    assert cohort.subjects[0].labels == {"grade": 2}


def test_broken_spreadsheets_are_one_line(tmp_path):
    for name, message in (
        ("a.xlsx", "not a readable XLSX"),
        ("a.xls", "save it as .xlsx or .csv"),
    ):
        (tmp_path / name).write_bytes(b"PK\x03\x04 nonsense")
        with pytest.raises(SourceError, match=message) as caught:
            join_labels(TABLE, tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / "two.csv").write_text("Subject,subject,a\n007,007,1\n")
    with pytest.raises(SourceError, match="Subject and subject both name subjects"):
        join_labels(TABLE, tmp_path / "two.csv")
