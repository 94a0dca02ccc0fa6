"""Features of a new patient's scans are those of preparing a store and embedding it."""

import re
import tarfile
import zipfile
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.conftest import encoder_like
from tests.ingest.trees import brats, mask, scan
from vitaepp.data.store import Store
from vitaepp.datasets.phantom import PhantomSettings, write_phantoms
from vitaepp.errors import RunError, SourceError, SubjectError
from vitaepp.ingest.prepare import prepare


def of_store(source, folder, **settings):
    """An encoder of a new store, the files of each subject, and the features of the store."""
    prepare(source, folder, workers=1, **settings)
    store = Store(folder)
    encoder = encoder_like(store)
    files = [
        {m: source / path for m, path in zip(store.info.modalities, paths, strict=False)}
        for paths in store.table.source
    ]
    return encoder, files, encoder.embed(store)


def same(encoder, scans, features, **options):
    return np.allclose(encoder.embed_files(scans, **options), features, atol=1e-5)


def unpack(archive, folder, *wanted):
    with zipfile.ZipFile(archive) as opened:
        names = [n for n in opened.namelist() if any(w in n for w in wanted)]
        opened.extractall(folder, names)


def test_real_mri(data, tmp_path):
    unpack(data / "hippocampus.zip", tmp_path, "hippocampus_00")
    source = tmp_path / "hippocampus"
    # Around masks, with the defaults; and every setting of intensities, without them.
    encoder, files, features = of_store(source, tmp_path / "s", size=(32, 40, 32))
    masked = [f | {"mask": source / "labels" / f["image"].name} for f in files]
    assert same(encoder, masked, features)
    settings = {"center": "foreground", "clip": (0.5, 99.5), "statistics": "foreground"}
    encoder, files, features = of_store(
        source, tmp_path / "t", size=(32, 40, 32), dtype="uint8", **settings
    )
    paths = [f["image"] for f in files]
    assert same(encoder, paths, features)
    first = nib.load(paths[0])
    arrays = [np.asarray(first.dataobj)]
    assert same(encoder, arrays, features[:1], spacing=first.affine)
    assert not same(encoder, arrays, features[:1], spacing=2)


def test_real_dicom(data, tmp_path, capsys):
    with tarfile.open(data / "glioma_dicom_3.tar.xz") as archive:
        few = [m for m in archive if "FLAIRreg" in m.name or "T2reg" in m.name]
        archive.extractall(tmp_path, few, filter="data")
    source = tmp_path / "glioma_dicom"
    settings = {"size": 16, "spacing": 12}
    encoder, files, features = of_store(source, tmp_path / "s", **settings)
    assert same(encoder, [source], features)
    assert same(encoder, files, features)
    capsys.readouterr()
    flair = files[0].pop("flair")
    assert not same(encoder, files, features)
    assert "1 of 1 scan: flair is missing, and zero" in capsys.readouterr().err
    encoder, files, features = of_store(source, tmp_path / "t", modalities="t2", **settings)
    assert same(encoder, [files[0]["t2"]], features)
    with pytest.raises(SubjectError, match="has no file for t2; it has flair"):
        encoder.embed_files([flair])


def test_real_x_rays(data, tmp_path):
    unpack(data / "chest_xray.zip", tmp_path, "/test/NORMAL/IM-000", "/test/PNEUMONIA/person1_")
    encoder, files, features = of_store(tmp_path / "chest_xray", tmp_path / "s", size=32)
    paths = [f["grey"] for f in files]
    assert same(encoder, paths, features)
    assert same(encoder, [np.asarray(Image.open(path)) for path in paths], features)


def test_phantoms_with_and_without_their_mask(tmp_path, capsys):
    settings = PhantomSettings()
    write_phantoms(tmp_path / "x", subjects=2, settings=settings, workers=1)
    encoder, files, features = of_store(tmp_path / "x", tmp_path / "s", size=16, spacing=8)
    folders = [f["t1"].parent for f in files]
    assert same(encoder, folders, features)
    images = [nib.load(path) for path in files[0].values()]
    stacked = np.stack([np.asarray(image.dataobj) for image in images])
    centred = replace(encoder.config, prepared=replace(encoder.config.prepared, center="image"))
    encoder.config = centred
    whole = encoder.embed_files(files[:1])
    assert same(encoder, [stacked], whole, spacing=images[0].affine)
    encoder.config = replace(centred, prepared=replace(centred.prepared, center="mask"))
    capsys.readouterr()
    assert not same(encoder, files[:1], features[:1])
    assert "no mask, on which the run's crops are centred" in capsys.readouterr().err


def test_what_cannot_be_embedded_is_one_line(tmp_path):
    encoder, files, _ = of_store(
        brats(tmp_path / "x"), tmp_path / "s", size=8, center="image", modalities=("t1", "t2")
    )
    array = np.random.default_rng(0).random((2, 9, 9, 9))
    (tmp_path / "empty").mkdir()
    wrong = {
        "is 9×9×9; give an array of a first axis of 2 (t1, t2) and 3 axes of space": array[0],
        "is 3×9×9×9; give an array": array[[0, 1, 1]],
        "is 2×9×9; give an array": array[:, 0],
        "t1: is 9×9; a scan has three axes": {"t1": array[0, 0]},
        "t1: 729 of 729 voxels are NaN": array * np.nan,
        "knows no modality t3; known are": {"t3": files[0]["t1"]},
        "a.nii.gz: no such file": tmp_path / "a.nii.gz",
        "is a folder without DICOM files": {"t1": tmp_path / "empty"},
        "is one image, and the encoder takes t1, t2": scan(tmp_path / "one.nii.gz"),
        "holds 3 subjects, where one is needed": tmp_path / "x",
    }
    for told, given in wrong.items():
        with pytest.raises((SourceError, SubjectError), match=re.escape(told)) as error:
            encoder.embed_files([given], spacing=1)
        assert "\n" not in str(error.value)
    with pytest.raises(SourceError, match="does not tell its voxel size; give `spacing`"):
        encoder.embed_files([array])
    with pytest.raises(SourceError, match="spacing of shape"):
        encoder.embed_files([array], spacing=(1, 2))
    with pytest.raises(RunError, match="takes a list of scans"):
        encoder.embed_files(tmp_path / "one.nii.gz")
    encoder.config = replace(encoder.config, prepared=None)
    with pytest.raises(RunError, match="does not tell how the images"):
        encoder.embed_files([array], spacing=1)


def test_a_modality_by_another_name_is_refused_and_an_unknown_one_is_told(tmp_path, capsys):
    brats(tmp_path / "x", names=("t1", "t2", "swi"))
    encoder, files, _ = of_store(
        tmp_path / "x", tmp_path / "s", size=8, center="image", modalities=("t1", "t2")
    )

    def manifest(*columns):
        row = [str(tmp_path / "x" / "a" / f"a_{m}.nii.gz") for m in ("t1", "t2", "swi")]
        text = f"subject,{','.join(columns)}\na,{','.join(row[: len(columns)])}\n"
        (tmp_path / "m.csv").write_text(text)
        return [tmp_path / "m.csv"]

    for name in ("T2", "t2w", "T2_tse"):
        told = rf"modality {name}: known are t1, t2, and no subject has t2; if {name} is t2, call"
        with pytest.raises(SourceError, match=told):
            encoder.embed_files(manifest("t1", name))
    capsys.readouterr()
    assert same(encoder, manifest("t1", "swi"), encoder.embed_files([{"t1": files[0]["t1"]}]))
    told = capsys.readouterr().err
    assert "1 of 1 scan: t2 is missing, and zero" in told
    assert "1 of 1 scan: swi is none of the encoder's modalities, and left out" in told
    # Nothing is missing, so that a scan more is none of the encoder's business.
    assert same(encoder, manifest("t1", "t2", "swi"), encoder.embed_files(files[:1]))
    assert "swi" not in capsys.readouterr().err


def test_a_modality_that_no_subject_has_is_zero_in_a_store_too_if_it_is_a_runs(tmp_path, capsys):
    encoder, *_ = of_store(
        brats(tmp_path / "x", names=("flair", "t1", "t2")), tmp_path / "s", size=8, center="image"
    )
    encoder.save(tmp_path / "run")
    new = brats(tmp_path / "new", ("n", "o"), names=("t1", "t2", "swi"))
    capsys.readouterr()
    prepare(new, tmp_path / "t", recipe=tmp_path / "run", workers=1)
    told = capsys.readouterr().err
    line = "missing modalities: flair in 2 of 2 subjects; zero in the store; not used: swi"
    assert told.count(line) == 1
    assert same(encoder, [new / "n", new / "o"], encoder.embed(Store(tmp_path / "t")))
    # What a user asks for is there, or by another name, or it is a slip.
    refused = "modality flair: no subject has it"
    for typed in ({"modalities": "flair,t1,t2"}, {"settings": "prepare.modalities=flair,t1,t2"}):
        with pytest.raises(SourceError, match=refused):
            prepare(new, tmp_path / "u", recipe=tmp_path / "run", **typed)
    other = brats(tmp_path / "other", ("n",), names=("t1", "t2w"))
    with pytest.raises(SourceError, match="modality t2w: known are flair, t1, t2, and no subject"):
        prepare(other, tmp_path / "u", recipe=tmp_path / "run")
    none = brats(tmp_path / "none", ("n",), names=("swi",))
    with pytest.raises(SourceError, match=refused):
        prepare(none, tmp_path / "u", recipe=tmp_path / "run")


def test_a_picture_is_no_scan(clinic, tmp_path):
    pictures = encoder_like(Store(clinic / "store"))
    volume = scan(tmp_path / "one.nii.gz")
    with pytest.raises(SourceError, match=r"one: one scan .*trained on pictures"):
        pictures.embed_files([volume])
    with pytest.raises(SourceError, match="have no spacing in mm; give none"):
        pictures.embed_files([np.eye(16)], spacing=1)
    mask(tmp_path / "x" / "labels" / "one.nii.gz")
    scan(tmp_path / "x" / "images" / "one.nii.gz")
    scans, files, features = of_store(tmp_path / "x", tmp_path / "s", size=8)
    assert same(scans, [files[0] | {"mask": tmp_path / "x" / "labels" / "one.nii.gz"}], features)
    with pytest.raises(SourceError, match=r"p00: one picture .*trained on scans"):
        scans.embed_files([clinic / "scans" / "p00.png"])
