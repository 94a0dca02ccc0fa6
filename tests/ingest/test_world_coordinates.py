"""What is at a place in a scan is at this place in the store, and in what reconstruct writes.

The references are independent of the library: images are made and read with nibabel's affines,
and resampled by SciPy or by SimpleITK from the files themselves.
"""

import json
import tempfile
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from scipy.ndimage import center_of_mass, map_coordinates
from scipy.spatial.transform import Rotation

from tests.conftest import LIGHT
from vitaepp.data.store import Store
from vitaepp.evaluation.reconstruction import reconstruct, write_volumes
from vitaepp.ingest.prepare import prepare
from vitaepp.training.pretrain import pretrain

properties = settings(max_examples=12, deadline=None, derandomize=True)

ORIENTATIONS = list(product(permutations(range(3)), product((-1, 1), repeat=3)))

#: Standard deviation of a blob, and what a field of view extends to at least, in mm.
SIGMA, EXTENT = 3.0, 76.0

#: Voxels of a crop along each axis.
SIZE = 36

TENTH_OF_A_VOXEL = 0.1


def affine_of(orientation, spacing, angles, center, shape):
    """An affine with its axes in any order and direction, turned, around a point in mm."""
    order, signs = orientation
    affine = np.eye(4)
    turned = Rotation.from_rotvec(angles, degrees=True).as_matrix()
    affine[:3, :3] = turned @ (np.eye(3) * signs)[:, list(order)] * spacing
    affine[:3, 3] = center - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def shape_of(spacing):
    return tuple(int(np.ceil(EXTENT / s)) for s in spacing)


def blob(shape, affine, center):
    """A Gaussian around a point in mm."""
    world = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    distance = ((world - center) ** 2).sum(-1)
    return (1000 * np.exp(-distance / (2 * SIGMA**2))).astype(np.float32)


def ball(shape, affine, center, radius=6.0):
    world = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    return (((world - center) ** 2).sum(-1) <= radius**2).astype(np.uint8)


def save(path: Path, values, affine) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path.name


@st.composite
def geometries(draw, most_oblique=40.0):
    """Shape and affine of a scan: any orientation, spacing and obliquity, centre near 0."""
    number = st.floats(-1, 1)
    orientation = draw(st.sampled_from(ORIENTATIONS))
    spacing = np.array([draw(st.floats(0.9, 4.0)) for _ in range(3)])
    angles = np.array([draw(number) for _ in range(3)]) * most_oblique
    center = np.array([draw(number) for _ in range(3)]) * 4
    shape = shape_of(spacing)
    return shape, affine_of(orientation, spacing, angles, center, shape)


points = st.tuples(*[st.floats(-1, 1)] * 3).map(np.array)


def where(store: Store, row: int, channel: int) -> np.ndarray:
    """World position of the centre of mass of a prepared image, by its stored affine."""
    affine = np.reshape(store.table.affine.iloc[row], (4, 4))
    return apply_affine(affine, center_of_mass(store.read([row])[0, channel].astype(float)))


def where_written(store: Store, row: int, modality: str, folder: Path) -> np.ndarray:
    """The same, in the NIfTI file that reconstruct writes of the image."""
    volumes = store.read([row])[0].astype(np.float32)
    named = dict(zip(store.info.modalities, volumes, strict=True))
    write_volumes(named, store, row, folder / "r")
    written = nib.load(folder / f"r_{modality}.nii.gz")
    return apply_affine(written.affine, center_of_mass(written.get_fdata()))


@properties
@given(
    reference=geometries(),
    other=geometries(),
    at=points,
    offsets=st.tuples(points, points),
    spacing=st.floats(1.0, 1.8),
)
def test_blobs_stay_where_they_are_through_prepare_and_back(reference, other, at, offsets, spacing):
    at, centers = at * 10, [at * 10 + 2.5 * offset for offset in offsets]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        row = {
            "subject": "a",
            "mask": save(folder / "m.nii.gz", ball(*reference, at), reference[1]),
        }
        for modality, geometry, center in zip(
            ("t1", "t2"), (reference, other), centers, strict=True
        ):
            values = blob(*geometry, center)
            row[modality] = save(folder / f"{modality}.nii.gz", values, geometry[1])
        pd.DataFrame([row]).to_csv(folder / "m.csv", index=False)
        result = prepare(folder / "m.csv", folder / "store", size=SIZE, spacing=spacing)
        assert result.failures == ()
        store = Store(folder / "store")
        assert (store.info.center, store.info.modalities) == ("mask", ("t1", "t2"))
        for channel, center in enumerate(centers):
            allowed = TENTH_OF_A_VOXEL * spacing
            assert np.abs(where(store, 0, channel) - center).max() < allowed
            again = where_written(store, 0, store.info.modalities[channel], folder)
            assert np.abs(again - center).max() < allowed
        # The mask's centre is the crop's, to half a voxel and to the mask's own.
        affine = np.reshape(store.table.affine.iloc[0], (4, 4))
        voxels = np.linalg.norm(reference[1][:3, :3], axis=0)
        middle = apply_affine(np.linalg.inv(affine), at) - (SIZE - 1) / 2
        assert np.abs(middle).max() <= 0.5 + 0.2 * voxels.max() / spacing


def test_every_one_of_the_48_orientations_gives_the_same_image(tmp_path):
    spacing, center = np.array([1.0, 1.5, 2.0]), np.array([3.0, -5.0, 8.0])
    rows = []
    for i, (order, signs) in enumerate(ORIENTATIONS):
        # The same voxels in space, stored along other axes: spacing and shape go with them.
        along = spacing[list(order)]
        affine = affine_of((order, signs), along, (12, -8, 20), (0, 0, 0), shape_of(along))
        values = blob(shape_of(along), affine, center)
        rows.append({"subject": f"s{i:02d}", "t1": save(tmp_path / f"{i}.nii", values, affine)})
    pd.DataFrame(rows).to_csv(tmp_path / "m.csv", index=False)
    prepare(tmp_path / "m.csv", tmp_path / "store", size=SIZE, spacing=1.5, center="image")
    store = Store(tmp_path / "store")
    assert len(store) == 48
    first = store.read([0]).astype(float)
    for row in range(48):
        np.testing.assert_allclose(store.table.affine[row], store.table.affine[0], atol=1e-4)
        np.testing.assert_allclose(store.read([row]), first, atol=0.2)
        assert np.abs(where(store, row, 0) - center).max() < 0.1 * 1.0
    assert np.abs(where_written(store, 47, "t1", tmp_path) - center).max() < 0.1 * 1.0


@properties
@given(geometry=geometries(), centers=st.lists(points, min_size=2, max_size=3))
def test_each_volume_of_a_4d_scan_stays_in_place(geometry, centers):
    shape, affine = geometry
    centers = [6 * center for center in centers]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = np.stack([blob(shape, affine, center) for center in centers], axis=-1)
        save(folder / "imagesTr" / "a.nii.gz", values, affine)
        told = {
            "modality": {str(i): f"m{i}" for i in range(len(centers))},
            "training": [{"image": "imagesTr/a.nii.gz"}],
        }
        (folder / "dataset.json").write_text(json.dumps(told))
        result = prepare(folder, folder / "store", size=SIZE, spacing=1.4)
        assert result.failures == ()
        store = Store(folder / "store")
        for channel, center in enumerate(centers):
            assert np.abs(where(store, 0, channel) - center).max() < TENTH_OF_A_VOXEL * 1.4
            again = where_written(store, 0, f"m{channel}", folder)
            assert np.abs(again - center).max() < TENTH_OF_A_VOXEL * 1.4


@properties
@given(reference=geometries(), other=geometries(), spacing=st.floats(0.8, 2.5))
def test_each_modality_is_resampled_from_its_own_grid(reference, other, spacing):
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scans = {
            modality: (rng.random(shape).astype(np.float32), affine)
            for modality, (shape, affine) in {"t1": reference, "t2": other}.items()
        }
        for modality, (values, affine) in scans.items():
            save(folder / "a" / f"{modality}.nii.gz", values, affine)
        prepare(folder, folder / "store", size=16, spacing=spacing)
        store = Store(folder / "store")
        affine = np.reshape(store.table.affine.iloc[0], (4, 4))
        world = apply_affine(affine, np.moveaxis(np.indices((16, 16, 16)), 0, -1))
        for channel, (values, own) in enumerate(scans.values()):
            at = np.moveaxis(apply_affine(np.linalg.inv(own), world), -1, 0)
            expected = map_coordinates(values, at, order=1, mode="nearest")
            limit = np.reshape(values.shape, (3, 1, 1, 1)) - 1.01
            inside = ((at > 0.01) & (at < limit)).all(axis=0)
            low = store.table.intensity_min.iloc[0][channel]
            high = store.table.intensity_max.iloc[0][channel]
            found = low + store.read([0])[0, channel] / 255 * (high - low)
            assert inside.mean() > 0.5
            np.testing.assert_allclose(found[inside], expected[inside], atol=2e-3)


def test_reconstruct_writes_what_simpleitk_makes_of_the_original_files(tmp_path):
    """The whole way: files, prepare, training, reconstruct; what is visible is the image's own."""
    rng = np.random.default_rng(1)
    sources = {}
    for i, subject in enumerate(("a", "b", "c", "d")):
        for j, modality in enumerate(("t1", "t2")):
            spacing = rng.uniform(0.9, 3.0, 3)
            orientation = ORIENTATIONS[(7 * i + 5 * j) % 48]
            angles, center = rng.uniform(-30, 30, 3), rng.uniform(-5, 5, 3)
            affine = affine_of(orientation, spacing, angles, center, shape_of(spacing))
            values = blob(shape_of(spacing), affine, rng.uniform(-5, 5, 3))
            path = tmp_path / "scans" / subject / f"{modality}.nii.gz"
            save(path, values, affine)
            sources[subject, modality] = path
    prepare(tmp_path / "scans", tmp_path / "store", size=16, spacing=2)
    settings = (*LIGHT, "model.mask_ratio=0.1", "optim.epochs=1")
    run = pretrain(tmp_path / "store", tmp_path / "run", settings=settings)
    reconstruct(run, tmp_path / "store", tmp_path / "out")
    for (subject, modality), path in sources.items():
        written = sitk.ReadImage(tmp_path / "out" / f"{subject}_{modality}.nii.gz")
        expected = sitk.Resample(
            sitk.ReadImage(path, sitk.sitkFloat64), written, sitk.Transform(), sitk.sitkLinear, 0.0
        )
        error = np.abs(sitk.GetArrayFromImage(written) - sitk.GetArrayFromImage(expected))
        # One of the eight patches of 8³ voxels is hidden, and predicted.
        patches = error.reshape(2, 8, 2, 8, 2, 8).max(axis=(1, 3, 5))
        assert sorted(patches.ravel())[6] < 1.0


def test_a_mask_may_have_a_grid_of_its_own(tmp_path):
    shape, affine = (60, 60, 30), np.diag([1.0, 1.0, 2.0, 1.0])
    thick = np.diag([2.0, 2.0, 5.0, 1.0])
    at = np.array([40.0, 25.0, 30.0])
    save(tmp_path / "scans" / "a" / "T1.nii.gz", blob(shape, affine, at), affine)
    save(tmp_path / "scans" / "a" / "mask.nii.gz", ball((30, 30, 12), thick, at, 11.0), thick)
    result = prepare(tmp_path / "scans", tmp_path / "store", size=20, spacing=2)
    assert result.failures == ()
    store = Store(tmp_path / "store")
    stored = np.reshape(store.table.affine.iloc[0], (4, 4))
    assert np.abs(apply_affine(stored, [9.5] * 3) - at).max() <= 1.5
    assert where(store, 0, 0) == pytest.approx(at, abs=0.2)


def test_a_mask_of_another_place_is_refused(tmp_path):
    shape, affine = (20, 20, 20), np.eye(4)
    far = np.diag([1.0, 1.0, 1.0, 1.0])
    far[:3, 3] = 15
    save(tmp_path / "scans" / "a" / "T1.nii.gz", blob(shape, affine, 9.0), affine)
    save(tmp_path / "scans" / "a" / "mask.nii.gz", ball(shape, far, np.full(3, 28.0), 3.0), far)
    result = prepare(tmp_path / "scans", tmp_path / "store", size=8)
    assert [f.reason for f in result.failures] == [
        "a/mask.nii.gz: the mask's centre lies outside a/T1.nii.gz; its affine is wrong, or it "
        "is another subject's"
    ]
