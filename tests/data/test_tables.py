"""Tables as people have them: from spreadsheets of any country, with dates, blanks and slips."""

import datetime
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.trees import mask, scan
from vitaepp.data.labels import as_known, join_labels
from vitaepp.data.store import Store
from vitaepp.data.tables import read_table
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.prepare import prepare

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
        '"subject";"diagnosis";"volume"\r\n"a";"x, y";"1,5"\r\n"b";"z";"2,25"\r\n',
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


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (["1,234", "900", "2,500"], "1,234 is read as 1.234"),
        (["1.234", "900", "2.500"], "1.234 is read as 1.234"),
        (["1,234", "2,500", "3,125"], "1,234 is read as 1.234"),
        (["-1.234", "2.500", "3.125"], "-1.234 is read as -1.234"),
        (["1.234", "2.500", "0.125"], ""),
        (["1,234", "900", "0,500"], ""),  # no thousands begin with a 0
        (["1,25", "900", "2,500"], ""),
    ],
)
def test_numbers_that_may_be_thousands_are_asked_about(tmp_path, capsys, cells, told):
    lines = [f"{subject};{cell}" for subject, cell in zip("abc", cells, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["subject;volume", *lines]))
    table = read_table(tmp_path / "t.csv")
    assert table["volume"].tolist() == [float(cell.replace(",", ".")) for cell in cells]
    said = capsys.readouterr().err
    assert told in said
    assert bool(said) == bool(told)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "xlsx"])
@pytest.mark.parametrize("swapped", [False, True])
def test_thousands_are_read_where_another_column_shows_the_decimal_mark(
    tmp_path, capsys, suffix, swapped
):
    """Whatever the country: 52,97 beside 11.594, or 52.97 beside 11,594."""
    cells = {"age": ["52,97", "60,1", ""], "vol": ["11.594", "9.123", "1.234.567"]}
    cells |= {"change": ["-1.594", "", "900"], "exact": ["1.594,5", "0,25", "12"]}
    cells |= {"low": ["7", "8", "9"]}
    turn = str.maketrans(",.", ".,") if swapped else {}
    table = pd.DataFrame({"subject": [*"abc"]} | cells).map(lambda v: v.translate(turn))
    path = tmp_path / f"t.{suffix}"
    if suffix == "xlsx":
        pytest.importorskip("openpyxl")
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, index=False, sep=";" if suffix == "csv" else "\t")
    found = read_table(path)
    told = capsys.readouterr().err
    if suffix == "tsv" and not swapped:  # whose decimals have points, as always in BIDS
        assert found["vol"].tolist() == cells["vol"]
        return
    assert found["vol"].tolist() == [11594, 9123, 1234567]
    assert found["change"].dropna().tolist() == [-1594, 900]
    assert found["exact"].tolist() == [1594.5, 0.25, 12]
    mark = "point" if swapped else "comma"
    assert told.count(f"other numbers have a decimal {mark}") == 3
    assert found["low"].tolist() == [7, 8, 9]


def test_one_decimal_mark_may_be_shown_and_no_thousands_be_there(tmp_path, capsys):
    for text in ("subject;age;adc\na;52,97;1,234\nb;60,1;1,345\n", ROWS):
        (tmp_path / "t.csv").write_text(text)
        read_table(tmp_path / "t.csv")
    # In a CSV with commas, a pair is no thousands.
    (tmp_path / "t.csv").write_text('subject,matrix,te\na,"512,512",1.5\nb,"256,256",2.25\n')
    assert read_table(tmp_path / "t.csv")["matrix"].tolist() == ["512,512", "256,256"]
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'subject,age,w\na,"52,97",1.594\nb,"60,1",900\n'),
        ("t.csv", 'subject,age,w\na,"52,97",1.594\nb,"60,1",9.123\n'),
        ("t.csv", '"subject","age","w"\n"a"," 52,97","1.594"\n"b"," 60,1","9.123"\n'),
        ("t.tsv", "subject\tage\tw\na\t52,97\t1.594\nb\t60,1\t9.123\n"),
    ],
)
def test_a_decimal_comma_where_decimals_have_points_raises_doubts(tmp_path, capsys, name, text):
    (tmp_path / name).write_text(text)
    assert read_table(tmp_path / name)["w"].iloc[0] == 1.594
    assert "column w: 1.594 is read as 1.594; if it is thousands" in capsys.readouterr().err


def test_blanks_and_infinite_values_beside_thousands(tmp_path, capsys):
    rows = ["subject; vol; age", "a; 1.234; 52,5", "b; inf; +3,5 ", 'c; -INF; "4,1"', "d; 7; 5,0"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    table = read_table(tmp_path / "t.csv")
    assert table["vol"].tolist() == [1234, float("inf"), float("-inf"), 7]
    assert table["age"].tolist() == [52.5, 3.5, 4.1, 5]
    assert "1.234 is read as 1234" in capsys.readouterr().err


def test_a_time_or_a_version_is_no_decimal_mark_of_other_columns(tmp_path, capsys):
    text = "subject;vol;time;p\na;1,234;14.30;1,23E-05\nb;12,345;9.15;2,5E-3\nc;2,500;8.20;1\n"
    (tmp_path / "t.csv").write_text(text)
    table = read_table(tmp_path / "t.csv")
    assert table["vol"].tolist() == [1.234, 12.345, 2.5]
    assert table["p"].tolist() == [1.23e-5, 2.5e-3, 1]


@pytest.mark.parametrize("end", ["", ";", ";;"])
def test_thousands_are_read_beside_words_for_missing_and_empty_columns(tmp_path, capsys, end):
    rows = ["subject;vol;age", "a;11.594;52,97", "b;900;3,5", "c;NAN;4,1", "d;1.200;5,0"]
    lines = [rows[0], *(row + end for row in rows[1:])]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    assert read_table(tmp_path / "t.csv")["vol"].dropna().tolist() == [11594, 900, 1200]
    assert capsys.readouterr().err.count("11.594 is read as 11594") == 1


def test_texts_beside_numbers_in_a_workbook_are_thousands(tmp_path, capsys):
    pytest.importorskip("openpyxl")
    cells = {"subject": [*"abc"], "vol": ["11.594", 900, "1.200"], "age": ["52,97", "3,5", "4,1"]}
    pd.DataFrame(cells).to_excel(tmp_path / "t.xlsx", index=False)
    assert read_table(tmp_path / "t.xlsx")["vol"].tolist() == [11594, 900, 1200]
    assert "11.594 is read as 11594" in capsys.readouterr().err
    cells["age"], cells["day"] = [52.97, 3.5, 4.1], [pd.Timestamp("2020-01-02"), "1.234", None]
    pd.DataFrame(cells).to_excel(tmp_path / "t.xlsx", index=False)
    table = read_table(tmp_path / "t.xlsx")
    assert table["day"].iloc[0] == "2020-01-02"
    assert "column vol: 11.594 is read as 11.594; if it is thousands" in capsys.readouterr().err


def test_an_image_that_a_manifest_names_twice_is_told(tmp_path):
    for name in ("x", "y", "z"):
        scan(tmp_path / f"{name}.nii.gz")
    told = "an image is named more than once, by several subjects or columns"
    for rows, doubted in (
        ("a,x.nii.gz,\nb,y.nii.gz,", ""),
        ("a,x.nii.gz,\nb,./x.nii.gz,", "ab"),
        ("a,x.nii.gz,x.nii.gz\nb,y.nii.gz,z.nii.gz", "a"),
    ):
        (tmp_path / "m.csv").write_text(f"subject,t1,t2\n{rows}\n")
        found = recognise(tmp_path / "m.csv")
        assert "".join(s.subject for s in found.subjects if s.doubts) == doubted
        lines = [line for line in found.told if told in line]
        assert [line.split()[0] for line in lines] == [str(len(doubted))] * bool(doubted)


@pytest.mark.parametrize(
    ("rows", "doubted"),
    [
        ({"p1": "p1_t1 p1_t2", "p2": "p2_t1 p2_t2", "p10": "p10_t1 p10_t2"}, ""),
        ({"p1": "p10_t1 p1_t2", "p2": "p2_t1 p2_t2", "p10": "p10_t1 p10_t2"}, "p1"),
        ({"p1": "p1_t1 p2_t2 p1_t1"}, ""),  # too few for a rule
        ({"p1": "p1_t1 p1_t2 p1_a p2_t1"}, "p1"),
        ({"p1": "x y", "p2": "y x"}, ""),
        # 7 may be 007, and a column may have names of its own.
        ({f"{i}": f"img_{i:03d} scan_{500 + i}" for i in range(1, 12)}, ""),
        ({f"{i}": f"img_{i + (i == 7):03d} scan_{500 + i}" for i in range(1, 12)}, "7"),
    ],
)
def test_an_image_that_is_named_after_another_subject_is_told(tmp_path, rows, doubted):
    for name in {name for names in rows.values() for name in names.split()}:
        scan(tmp_path / f"{name}.nii.gz")
    columns = [f"m{i}" for i in range(len(next(iter(rows.values())).split()))]
    lines = [",".join([s, *(f"{n}.nii.gz" for n in names.split())]) for s, names in rows.items()]
    (tmp_path / "m.csv").write_text("\n".join([",".join(["subject", *columns]), *lines]))
    told = "not named after its subject"
    found = [s.subject for s in recognise(tmp_path / "m.csv").subjects if told in str(s.doubts)]
    assert ",".join(found) == doubted


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
    with pytest.raises(SourceError, match="line 3: the subject is a date; spreadsheets turn"):
        read_table(tmp_path / "labels.xlsx")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04\0\0", "not a readable CSV: it is not text"),
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


def test_a_manifest_names_a_subject_once_in_either_form(tmp_path):
    text = f"subject,t1\n{NFC},a.nii.gz\n{NFD},b.nii.gz\n"
    with pytest.raises(SourceError, match="occurs 2 times"):
        recognise(labels(tmp_path, text))


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


def labels(tmp_path, text, name="labels.csv"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def cohort_of(*subjects, split=""):
    return pd.DataFrame({"subject": list(subjects), "split": split})


@pytest.mark.parametrize("missing", ["", "NA", "N/A", "NaN", "nan", "n/a", " ", " NA "])
@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_few_words_are_missing_values(tmp_path, capsys, missing, suffix):
    path = tmp_path / f"labels{suffix}"
    frame = pd.DataFrame({"subject": ["a", "b"], "g": [missing, "2"], "word": [missing, "x"]})
    frame.to_excel(path, index=False) if suffix == ".xlsx" else frame.to_csv(path, index=False)
    joined, _ = join_labels(TABLE, path)
    assert joined.g.tolist() == [pd.NA, 2]
    assert joined.word.isna().tolist() == [True, False]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("word", ["None", "n.d.", "null", "NULL", "-", "?", "<NA>", "#N/A", "NAN"])
def test_other_words_are_values_and_told(tmp_path, capsys, word):
    joined, _ = join_labels(TABLE, labels(tmp_path, f"subject,g\na,{word}\nb,high\n"))
    assert joined.g.tolist() == [word, "high"]
    told = capsys.readouterr().err
    assert told.startswith(f"labels.csv: {word!r} in g (1 rows): counted as a label")
    assert told.count("\n") == 1


def test_columns_of_one_name_are_refused_and_blanks_around_names_are_nothing(tmp_path):
    for text in ("subject,g,g\na,1,2\n", "subject,g, g \na,1,2\n"):
        with pytest.raises(SourceError, match=r"labels\.csv: 2 columns are called g; rename"):
            read_table(labels(tmp_path, text))
    frame = pd.DataFrame([["a", 1, 2]], columns=["subject", "g", "g "])
    frame.to_excel(tmp_path / "labels.xlsx", index=False)
    with pytest.raises(SourceError, match=r"labels\.xlsx: 2 columns are called g; rename"):
        read_table(tmp_path / "labels.xlsx")
    table = read_table(labels(tmp_path, ' subject , "g " ,g.1\na , high ,2\n'))
    assert table.to_dict("list") == {"subject": ["a"], "g": ["high"], "g.1": [2]}
    with pytest.raises(SourceError, match="columns Split and split: keep one of them"):
        read_table(labels(tmp_path, "subject,Split,split\na,train,test\n"))


@pytest.mark.parametrize("text", ["subject,g\na,1,\nb,2,\n", "subject,g,\na,1,\nb,2,\n"])
def test_a_separator_at_the_end_of_lines_shifts_no_column(tmp_path, text):
    table = read_table(labels(tmp_path, text))
    assert table.to_dict("list") == {"subject": ["a", "b"], "g": [1, 2]}


@pytest.mark.parametrize("text", ["subject,g\na,1,5\nb,2\n", "subject,g\na,1\nb,2,5\n"])
def test_a_line_with_a_cell_too_many_is_refused(tmp_path, text):
    with pytest.raises(SourceError, match=r"labels\.csv: not a readable CSV: .*line [23]"):
        read_table(labels(tmp_path, text))


def test_long_numbers_keep_their_digits(tmp_path):
    text = "subject,participant,code\n12345678901234567890123,007,12345678901234567\nb,7,\n"
    table = read_table(labels(tmp_path, text))
    assert table.subject.tolist() == ["12345678901234567890123", "b"]
    assert table.participant.tolist() == ["007", "7"]
    assert table.code.tolist()[0] == "12345678901234567"
    joined, without = join_labels(cohort_of("12345678901234567890123"), tmp_path / "labels.csv")
    assert without == []
    text = "subject,code\na,18446744073709551617\nb,9223372036854775809\n"
    joined, _ = join_labels(TABLE, labels(tmp_path, text))
    assert joined.code.tolist() == ["18446744073709551617", "9223372036854775809"]
    with pytest.raises(SourceError, match="line 2: the subject is a number that a spreadsheet"):
        read_table(labels(tmp_path, "subject,g\n1.23457E+17,1\n"))


NFC, NFD = "M\u00fcller", "Mu\u0308ller"


@pytest.mark.parametrize(
    ("source", "named"),
    [(NFD, NFC), (NFC, NFD), ("007", "7"), ("007", "7.0"), ("7", "007"), ("0", "00"), ("a", " a ")],
)
def test_subjects_are_joined_however_they_are_written(tmp_path, capsys, source, named):
    path = labels(tmp_path, f"subject,g\n{named},5\nother,6\n")
    joined, without = join_labels(cohort_of(source, "other"), path)
    assert without == []
    assert joined.g.tolist() == [5, 6]
    assert ("joined by number" in capsys.readouterr().err) == source.isdigit()


@pytest.mark.parametrize(
    ("source", "named", "message"),
    [
        (["007", "07", "a"], ["7", "a"], "subject 7 may be any of 007, 07"),
        (["007", "a"], ["07", "7", "a"], "subject 07 may be any of 007, 07"),
        ([NFC, NFD], [NFC, f"{NFD}.nii.gz"], None),
        (["A\u030a", "\u212b"], ["\u00c5"], "subject \u00c5 may be any of A\u030a, \u212b"),
    ],
)
def test_subjects_that_may_be_several_are_refused(tmp_path, source, named, message):
    path = labels(tmp_path, "subject,g\n" + "".join(f"{s},{i}\n" for i, s in enumerate(named)))
    if message is None:
        assert join_labels(cohort_of(*source), path)[0].g.tolist() == [0, 1]
        return
    with pytest.raises(SourceError, match=message):
        join_labels(cohort_of(*source), path)


ids = st.one_of(
    st.from_regex(r"0{0,3}[0-9]{1,2}(\.0)?", fullmatch=True),
    st.sampled_from([NFC, NFD, "a", "a.nii.gz", "b"]),
)
several = st.lists(ids, min_size=1, max_size=6, unique=True)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(several, several)
def test_two_subjects_are_never_joined_to_one(source, named):
    try:
        found = as_known(source, named, Path("labels.csv"))
    except SourceError:
        return
    for name, one in zip(named, found, strict=True):
        if name in source:
            assert one == name
        elif one in source:  # the same name or number, and no other in the source is
            same = [s for s in source if plain(s) == plain(name)]
            assert same == [one] or unicodedata.normalize("NFC", one) == NFC
    # Only other spellings of one name come to the same subject, and a table is refused for those.
    for one in set(found):
        assert len({plain(n) for n, f in zip(named, found, strict=True) if f == one}) == 1
        numbers = {n for n, f in zip(named, found, strict=True) if f == one and n[0].isdigit()}
        assert len(numbers) <= 1 or one not in source


def plain(name):
    name = unicodedata.normalize("NFC", name.removesuffix(".nii.gz"))
    return str(int(float(name))) if name[0].isdigit() else name


def test_splits_of_a_table_are_canonical_and_other_words_are_told(tmp_path, capsys):
    text = "subject,Split\na,Training\nb,TEST\nc,dev\nd,\ne,external\n"
    joined, _ = join_labels(cohort_of(*"abcde"), labels(tmp_path, text))
    assert joined.split.tolist() == ["train", "test", "val", "", "external"]
    assert capsys.readouterr().err.splitlines() == [
        "labels.csv: column split: 'external' (first in line 6) is not a word for train, val or "
        "test; its 1 rows are in none of them",
        "labels.csv: column split: 'Training' is used as train",
        "labels.csv: column split: 'TEST' is used as test",
        "labels.csv: column split: 'dev' is used as val",
    ]
    scan(tmp_path / "x.nii.gz")
    manifest = labels(tmp_path, "subject,t1,SPLIT\na,x.nii.gz,Testing\n", "m.csv")
    assert recognise(manifest).subjects[0].split == "test"


def test_splits_of_a_table_may_not_contradict_the_source(tmp_path):
    path = labels(tmp_path, "subject,split,g\na,Training,1\nb,test,2\n")
    joined, _ = join_labels(TABLE.assign(split=["train", ""]), path)
    assert joined.split.tolist() == ["train", "test"]
    with pytest.raises(SourceError, match="'train' for subject a, but the source says 'test'"):
        join_labels(TABLE.assign(split="test"), path)


def test_participants_of_a_table_replace_those_of_the_source(tmp_path, capsys):
    table = TABLE.assign(participant=["p1", "p1"])
    joined, _ = join_labels(table, labels(tmp_path, "subject,Participant,g\na,q,1\nb,,2\n"))
    assert joined.participant.tolist() == ["q", "p1"]
    capsys.readouterr()
    text = "subject,Patient_ID\na,07\nb,07\nc,8\n"
    joined, _ = join_labels(cohort_of(*"abc"), labels(tmp_path, text))
    assert joined.participant.tolist() == joined.Patient_ID.tolist() == ["07", "07", "8"]
    told = "labels.csv: column Patient_ID is used as participant: 2 persons in 3 rows\n"
    assert capsys.readouterr().err == told


def test_formulas_without_values_and_errors_are_told(tmp_path, capsys):
    from openpyxl import Workbook

    book = Workbook()
    for row in (["subject", "g"], ["a", "=1+1"], ["b", 2]):
        book.active.append(row)
    book.save(tmp_path / "labels.xlsx")
    joined, _ = join_labels(TABLE, tmp_path / "labels.xlsx")
    assert joined.g.tolist() == [pd.NA, 2]
    told = "labels.xlsx: 1 formula without a value (first in B2) counted as missing; open the file"
    assert told in capsys.readouterr().err
    book.active["B2"] = "#DIV/0!"
    book.save(tmp_path / "labels.xlsx")
    assert join_labels(TABLE, tmp_path / "labels.xlsx")[0].g.tolist() == [pd.NA, 2]
    told = "labels.xlsx: 1 error (first B2, #DIV/0!) counted as missing"
    assert told in capsys.readouterr().err
    book.active["A3"] = 2**60  # is read again, as text
    book.save(tmp_path / "labels.xlsx")
    read_table(tmp_path / "labels.xlsx")
    assert capsys.readouterr().err.count(told) == 1


def test_a_mask_column_of_a_manifest_names_masks(tmp_path):
    scan(tmp_path / "a.nii.gz")
    for cells in ("None", "-"):
        manifest = labels(tmp_path, f"subject,t1,Mask\na,a.nii.gz,{cells}\n", "m.csv")
        with pytest.raises(SourceError, match=r"m\.csv: column mask names no image files"):
            recognise(manifest)
    mask(tmp_path / f"{NFD}.nii.gz")
    manifest = labels(tmp_path, f"subject,t1,Mask\na,a.nii.gz,{NFC}.nii.gz\n", "m.csv")
    cohort = recognise(manifest)
    assert cohort.modalities == ("t1",)
    assert cohort.subjects[0].mask.is_file()


def test_labels_that_a_later_run_lacks_are_removed_and_told(tmp_path, capsys):
    for name in ("a", "b"):
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    for text in ("subject,grade,age\na,1,50\nb,2,60\n", "subject,age\na,51\n"):
        capsys.readouterr()
        prepare(tmp_path / "scans", tmp_path / "store", size=8, labels=labels(tmp_path, text))
    store = Store(tmp_path / "store")
    assert store.label_columns == ["age"]
    assert store.table.age.tolist() == [51, pd.NA]
    removed = "labels of an earlier run that this one does not give are removed: "
    assert f"{removed}grade (of 2 subjects); to keep" in capsys.readouterr().err
    scan(tmp_path / "others" / "c.nii.gz")
    prepare(
        tmp_path / "others",
        tmp_path / "store",
        size=8,
        labels=labels(tmp_path, "subject,idh\nc,1\n"),
    )
    table = Store(tmp_path / "store").table
    assert table.age.tolist() == [51, pd.NA, pd.NA]  # subjects that are not in this source
    assert table.idh.tolist() == [pd.NA, pd.NA, 1]


def test_removed_labels_are_told_once_and_who_keeps_them(tmp_path, capsys):
    def told(text=None):
        table = None if text is None else labels(tmp_path, text)
        capsys.readouterr()
        prepare(tmp_path / "scans", tmp_path / "store", size=8, labels=table)
        return capsys.readouterr().err

    for name in ("a", "b", "c"):
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    told("subject,grade,side\na,1,l\nb,2,\nc,,\n")
    (tmp_path / "scans" / "a.nii.gz").unlink()
    err = told()
    assert "1 subject of the store is not in this source; it stays\n" in err
    assert (
        "are removed: grade (of 1 subject, kept for 1 subject outside this source or failed"
        "); to keep them, prepare with a table that has them\n"
    ) in err
    table = Store(tmp_path / "store").table.set_index("subject")
    assert table.grade.tolist() == [1, pd.NA, pd.NA]
    assert table.side.notna().tolist() == [True, False, False]
    assert "are removed" not in told()
