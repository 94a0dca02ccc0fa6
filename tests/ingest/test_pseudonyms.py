"""With a secret, no name that the user gave gets out, and the same secret gives the same names."""

import hashlib
import hmac

import pandas as pd
import pytest

from tests.ingest.trees import brats, picture
from vitaepp.data.store import Store
from vitaepp.errors import RecipeError
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.pseudonyms import pseudonym

NAMES = ("Quillfeather", "Ada-Lovelace", "Bob_Ross")
KEY = b"0123456789abcdef" * 2


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(KEY + b"\n")
    return path


def test_subjects_are_named_by_hmac_and_keep_their_labels(tmp_path, secret, capsys):
    brats(tmp_path / "in", NAMES)
    picture(tmp_path / "in" / NAMES[2] / f"{NAMES[2]}.png")  # left out
    pd.DataFrame({"subject": NAMES[:2], "grade": [1, 2]}).to_csv(tmp_path / "l.csv", index=False)
    result = prepare(
        tmp_path / "in", tmp_path / "s", size=8, secret=secret, labels=tmp_path / "l.csv", workers=1
    )
    assert result.failures == ()
    table = Store(tmp_path / "s").table.set_index("subject")
    expected = [hmac.new(KEY, n.encode(), hashlib.sha256).hexdigest()[:16] for n in NAMES]
    assert set(table.index) == set(expected)
    assert table.grade[expected[:2]].tolist() == [1, 2]
    said = "".join(capsys.readouterr())
    written = [f.read_bytes() for f in (tmp_path / "s").rglob("*") if f.is_file()]
    for name in NAMES:
        assert name not in said
        assert not any(name.encode() in data for data in written)
    again = prepare(tmp_path / "in", tmp_path / "s", size=8, secret=secret, workers=1)
    assert (again.prepared, again.skipped) == (0, 3)
    other = tmp_path / "other"
    other.write_bytes(KEY[::-1])
    prepare(tmp_path / "in", tmp_path / "o", size=8, secret=other, workers=1)
    assert not set(Store(tmp_path / "o").table.subject) & set(expected)


def test_failures_name_neither_subject_nor_file(tmp_path, secret):
    brats(tmp_path / "in", NAMES)
    broken = tmp_path / "in" / NAMES[0] / f"{NAMES[0]}_t1.nii.gz"
    broken.write_bytes(broken.read_bytes()[:100])
    (tmp_path / "in" / NAMES[1] / f"{NAMES[1]}_t1.nii.gz").unlink()
    result = prepare(tmp_path / "in", tmp_path / "s", size=8, secret=secret, workers=1)
    assert pseudonym(KEY, NAMES[0]) in {f.subject for f in result.failures}
    assert "truncated" in str(result.failures)
    written = (tmp_path / "s" / "failures.csv").read_text()
    for name in NAMES:
        assert name not in str(result)
        assert name not in written


@pytest.mark.parametrize(
    ("content", "message"), [(b"short", "16 random"), (None, "cannot be read")]
)
def test_a_secret_that_could_be_guessed_is_refused(tmp_path, content, message):
    brats(tmp_path / "in")
    if content:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        prepare(tmp_path / "in", tmp_path / "s", size=8, secret=tmp_path / "secret")
