"""The account that a store keeps: every subject and image is counted, and none is named."""

import shutil

import nibabel as nib
import numpy as np
import pandas as pd

from vitaepp.data.store import Store
from vitaepp.ingest.layouts.cohort import Cohort
from vitaepp.ingest.planning.account import account_of
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.task import ImageSpec


def scans(folder, count=5):
    """Subjects with one scan each; the first file is damaged, the second is flat."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        voxels = random.normal(size=(8, 8, 8)) * (i != 1)
        image = nib.Nifti1Image(voxels.astype(np.float32), np.eye(4))
        nib.save(image, folder / f"DOE_JANE_{i}.nii.gz")
    first = folder / "DOE_JANE_0.nii.gz"
    first.write_bytes(first.read_bytes()[:200])
    rows = [{"subject": f"DOE_JANE_{i}", "t1": f"DOE_JANE_{i}.nii.gz"} for i in range(count)]
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def test_an_account_counts_by_reason_and_names_nobody(tmp_path):
    source = scans(tmp_path / "scans")
    result = prepare(source, tmp_path / "store", size=8, workers=1)
    account = Store(tmp_path / "store").account
    assert account.found == 5
    assert len(result.failures) == sum(account.failed.values()) == 2
    assert len(account.failed) == 2
    assert "DOE" not in (tmp_path / "store" / "account.json").read_text()
    assert "DOE" in (tmp_path / "store" / "failures.csv").read_text()


def test_an_account_is_that_of_the_latest_call(tmp_path):
    source = scans(tmp_path / "scans")
    prepare(source, tmp_path / "store", size=8, workers=1)
    table = pd.read_csv(source)
    table.iloc[2:].to_csv(source, index=False)
    shutil.copy(tmp_path / "scans" / "DOE_JANE_2.nii.gz", tmp_path / "scans" / "more.nii.gz")
    prepare(source, tmp_path / "store", size=8, workers=1)
    account = Store(tmp_path / "store").account
    assert (account.found, account.failed) == (3, {})


def test_a_secret_keeps_reasons_from_the_account(tmp_path):
    source = scans(tmp_path / "scans")
    (tmp_path / "secret").write_bytes(b"0123456789abcdef")
    prepare(source, tmp_path / "store", size=8, workers=1, secret=str(tmp_path / "secret"))
    assert Store(tmp_path / "store").account.failed == {"could not be read or prepared": 2}


def test_an_account_has_the_reason_and_not_what_to_do_about_it(tmp_path):
    prepare(scans(tmp_path / "scans"), tmp_path / "store", size=8, workers=1)
    left_out = (("odd", "unknown series description; pass `series=TABLE`"),)
    cohort = Cohort("a layout", "scans", tmp_path, (), left_out=left_out)
    spec = ImageSpec(Store(tmp_path / "store").info, tmp_path, tmp_path, "scans", ("t1",))
    assert account_of(cohort, (), spec).left_out == {"unknown series description": 1}
