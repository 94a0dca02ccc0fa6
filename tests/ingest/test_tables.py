"""Tables as people have them: from spreadsheets of any country, with dates, blanks and slips."""

import datetime

import pandas as pd
import pytest

from tests.ingest.trees import mask, scan
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts import join_labels, recognise
from vitaepp.ingest.layouts.tables import read_table
from vitaepp.ingest.prepare import prepare
from vitaepp.store import Store

TABLE = pd.DataFrame({"subject": ["a", "b"], "split": ["", ""]})
ROWS = "subject,diagnosis,volume\na,Müller–Café,1.5\nb,x,2\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_text_of_any_usual_encoding(tmp_path, encoding, newline):
    path = tmp_path / "labels.csv"
    path.write_bytes(ROWS.replace("\n", newline).encode(encoding))
    table, without = join_labels(TABLE, path)
    assert without == []
    assert table.diagnosis.tolist() == ["Müller–Café", "x"]
    assert table.volume.tolist() == [1.5, 2.0]


@pytest.mark.parametrize(
    "text",
    [
        "subject;diagnosis;volume\na;x, y;1,5\nb;z;2,25\n",
        "subject;diagnosis;volume\na;x, y;1.5\nb;z;2.25\n",
        "subject\tdiagnosis\tvolume\na\tx, y\t1.5\nb\tz\t2.25\n",
        'subject, diagnosis, volume\na, "x, y", 1.5\nb, z, 2.25\n',
    ],
)
def test_columns_and_decimals_are_separated_as_spreadsheets_do(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text)
    table = read_table(tmp_path / "labels.csv")
    assert table.to_dict("list") == {
        "subject": ["a", "b"],
        "diagnosis": ["x, y", "z"],
        "volume": [1.5, 2.25],
    }


def test_blank_rows_and_columns_are_nothing(tmp_path):
    (tmp_path / "labels.csv").write_text("subject,grade,\na,1,\n,,\nb,2,\n,,\n")
    table = read_table(tmp_path / "labels.csv")
    assert table.to_dict("list") == {"subject": ["a", "b"], "grade": [1, 2]}
    (tmp_path / "labels.csv").write_text("subject,grade\na,1\n\n,\n,3\n")
    with pytest.raises(SourceError, match="line 5 has no subject"):
        read_table(tmp_path / "labels.csv")


def test_the_sheet_with_subjects_is_read_wherever_it_is(tmp_path):
    path = tmp_path / "m.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"legend": ["grade: WHO 2021"]}).to_excel(book, sheet_name="Legend")
        pd.DataFrame({"Subject": ["a", "b"], "grade": [1, 2]}).to_excel(
            book, sheet_name="Data", index=False
        )
    assert join_labels(TABLE, path)[0].grade.tolist() == [1, 2]
    with pd.ExcelWriter(path, mode="a") as book:
        pd.DataFrame({"subject": ["a"]}).to_excel(book, sheet_name="Old", index=False)
    with pytest.raises(SourceError, match=r"m\.xlsx: sheets Data and Old both name subjects"):
        join_labels(TABLE, path)


def test_rows_of_nobody_are_told(tmp_path, capsys):
    (tmp_path / "labels.csv").write_text("subject,g\na,1\nx,2\ny,3\nz,4\nw,5\n")
    join_labels(TABLE, tmp_path / "labels.csv")
    told = "labels.csv: 4 rows name no subject of the source; they are not used\n"
    assert capsys.readouterr().err == told


def test_dates_of_a_spreadsheet_become_text_that_a_store_takes(tmp_path):
    for name in ("a", "b"):
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    day = datetime.datetime(2021, 3, 5, 14, 30)
    frame = pd.DataFrame({"subject": ["a", "b"], "seen": [day, None], "note": [day, "later"]})
    frame.to_excel(tmp_path / "labels.xlsx", index=False)
    prepare(tmp_path / "scans", tmp_path / "store", size=8, labels=tmp_path / "labels.xlsx")
    table = Store(tmp_path / "store").table
    assert table.seen.tolist()[0] == "2021-03-05"
    assert table.seen.isna().tolist() == [False, True]
    assert table.note.tolist() == ["2021-03-05", "later"]


def test_subjects_that_a_spreadsheet_made_dates_of_are_refused(tmp_path):
    frame = pd.DataFrame({"subject": ["a", datetime.datetime(2021, 5, 3)], "g": [1, 2]})
    frame.to_excel(tmp_path / "labels.xlsx", index=False)
    with pytest.raises(SourceError, match="line 3: the subject is a date; spreadsheets make"):
        read_table(tmp_path / "labels.xlsx")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04\0\0", "not a readable CSV: it is no text"),
        (b"subject,g\na,\x81\n", "neither UTF-8 nor Windows-1252; save it as UTF-8"),
        (b"", "not a readable CSV: No columns"),
        (b"patient;subject\na;b\n;c\n", None),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, data, message):
    (tmp_path / "x.csv").write_bytes(data)
    if message is None:
        assert list(read_table(tmp_path / "x.csv").subject) == ["b", "c"]
        return
    with pytest.raises(SourceError, match=message) as caught:
        read_table(tmp_path / "x.csv")
    assert "\n" not in str(caught.value)


def test_a_manifest_may_have_windows_paths(tmp_path):
    scan(tmp_path / "scans" / "a.nii.gz")
    mask(tmp_path / "scans" / "m.nii.gz")
    (tmp_path / "m.csv").write_text("subject;t1;mask\na;scans\\a.nii.gz;.\\scans\\m.nii.gz\n")
    cohort = recognise(tmp_path / "m.csv")
    assert cohort.subjects[0].files["t1"].is_file()
    assert cohort.subjects[0].mask.is_file()
    assert cohort.left_out == ()


def test_files_beside_those_of_a_manifest_are_left_out(tmp_path):
    for name in ("a", "b", "c"):
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    scan(tmp_path / "elsewhere" / "d.nii.gz")
    (tmp_path / "m.csv").write_text("subject,t1\na,scans/a.nii.gz\nx,./scans/../scans/b.nii.gz\n")
    assert recognise(tmp_path / "m.csv").left_out == (
        ("scans/c.nii.gz", "the manifest does not name it"),
    )


def test_a_column_of_images_names_images_in_every_line(tmp_path):
    (tmp_path / "m.csv").write_text("subject,t1,t2\na,a.nii.gz,b.nii\n\nb,-,b.nii\n")
    with pytest.raises(SourceError, match=r"m\.csv: column t1 names images, but not in line 4"):
        recognise(tmp_path / "m.csv")


def test_a_file_that_a_manifest_names_and_is_absent_fails_its_subject(tmp_path):
    scan(tmp_path / "a.nii.gz")
    (tmp_path / "m.csv").write_text("subject,t1\na,a.nii.gz\nb,C:\\scans\\b.nii.gz\n")
    result = prepare(tmp_path / "m.csv", tmp_path / "store", size=8)
    assert result.prepared == 1
    assert [(f.subject, f.reason) for f in result.failures] == [
        ("b", "C:/scans/b.nii.gz: no such file")
    ]
