"""The modality of a DICOM series, by a table of patterns for its description.

The table `series.tsv` has four columns: the kind of scanner (DICOM's Modality, or `*` for any), a
regular expression for one value of DICOM's Image Type (empty for any), a regular expression for the
description, and the modality, or `ignore`. The first row that fits decides; its pattern may match
anywhere in the normalised description. A user's own table (CSV, TSV or XLSX) comes before this one.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vitaepp.data.cells import read_plain_table
from vitaepp.errors import SourceError

SHIPPED = Path(__file__).with_name("series.tsv")

#: Stands in the table instead of a modality, for series that are left out.
IGNORE = "ignore"


@dataclass(frozen=True)
class SeriesRule:
    """One row of a table: the series it applies to, and their modality.

    Attributes:
        kind: DICOM's Modality, or `*` for any.
        image_type: pattern of a whole value of DICOM's Image Type; None for any.
        pattern: pattern of the description.
        modality: the modality, or `ignore`.
        own: whether the row is the user's own; it then sees the description without `READINGS`.
    """

    kind: str
    image_type: re.Pattern[str] | None
    pattern: re.Pattern[str]
    modality: str
    own: bool


@cache
def shipped_rules() -> tuple[SeriesRule, ...]:
    """The rules of the shipped table."""
    return _rules(SHIPPED)


def series_rules(path: Path | None = None) -> tuple[SeriesRule, ...]:
    """The rules of the user's table, if there is one, then the shipped rules.

    Raises:
        SourceError: the table cannot be read or lacks a column, or a pattern is not a regular
            expression.
    """
    own = _rules(path) if path is not None else ()
    return (*own, *shipped_rules())


def modality_of(
    description: str, kind: str, rules: tuple[SeriesRule, ...], image_type: tuple[str, ...] = ()
) -> str:
    """The modality of a series, `ignore`, or an empty string if no rule fits.

    Args:
        description: the name that the scanner or a person gave it.
        kind: DICOM's Modality.
        rules: rules in the order in which they are tried.
        image_type: the values of DICOM's Image Type.

    >>> modality_of("AX T2 FLAIR", "MR", series_rules())
    'flair'
    >>> modality_of("T1post", "MR", series_rules())
    't1ce'
    """
    plain, read = normalized(description), reading(description)
    for rule in rules:
        if rule.kind not in ("*", kind) or not rule.pattern.search(plain if rule.own else read):
            continue
        if rule.image_type is None or any(map(rule.image_type.fullmatch, image_type)):
            return rule.modality
    return ""


#: Signs for contrast agent and T2*, and words that are joined to t1, t2 and pd.
SIGNS = (
    (r"\b([tr]2)\s?\*", r"\1 star "),
    (r"\+\s?/\s?-", " "),
    (r"\+\s?(c|gd|gad\w*|km|k|mdc|contrast\w*|con)(?![a-z])|\b(c|gd|gad|km)\s?\+", " post "),
    (r"\bc\s?-(?!\s?[a-z0-9])|(?<=[\s_])-\s?(c|gd|km)(?![a-z0-9])", " pre "),
    (r"[^a-z0-9]+", " "),
    (r"\b(e|s|d|fs|ax|axial|cor|sag|tra|[23]d|hr|pre|post|ce|gd)(?=(t1|t2|pd)(?![0-9]))", r"\1 "),
    (r"\b(t1|t2|pd)w(?=[a-z0-9])", r"\1 w "),
    (r"\b(t1|t2|pd)(?=[a-z])", r"\1 "),
    (r"\b(ax|sag|cor|tra)(?=(gd|gad|km|ce|post|pre)\b)", r"\1 "),
)

#: Names of contrast agents, and words for them in five languages.
AGENT = (
    r"(contrast\w*|[ck]ontrast\w*|gd|gad\w*|km|mdc|ce|enh|enhanced?|enhancement|inj\w*|dotarem"
    r"|clariscan|magnevist|multihance|omniscan|prohance)"
)

#: Replacements that the shipped patterns rely on: contrast agent as `pre` or `post`, names of T1.
READINGS = (
    (r"\b(post|pre) ?(op\w*|surg\w*|rt|radi\w*|tx|treat\w*|chem\w*|bx|biops\w*|proc\w*)\b", " "),
    (
        r"\b(non?|without|w ?o|sans|ohne|senza|sin|vor|avant|prima|antes|before|pre) ?"
        rf"((de|del|di|l|iv) )*({AGENT}|c|cm|con|cont|civ|iv)\b"
        r"|\b(without|w ?o|sans|ohne|senza)(?= $)"
        r"|\b(un ?enhanced|nativ\w*|nat|plain|basale?|avant|vor)\b",
        " pre ",
    ),
    (rf"\b(post ?)?{AGENT}\b|\b(apres|dopo)\b", " post "),
    (r"\bt1 (.*)\b(c(?! ?spine)|cm|pc|civ|iv|con|cont|avec)\b", r"t1 \1 post "),
    (r"\b(mp ?rage|f?spgr|bravo|mp2rage|tfl)\b", r"\1 t1 "),
)


def normalized(description: str) -> str:
    """A description as lower-case words without accents, separated and surrounded by spaces.

    `+c` and `c+` become `post`, `c-` becomes `pre`, `t2*` becomes `t2 star`, and words that are
    joined to t1, t2 or pd are split off.

    >>> normalized("Ax_T1post+C")
    ' ax t1 post post '
    >>> normalized("t2*_GRE"), normalized("sT1wCE C-")
    (' t2 star gre ', ' s t1 w ce pre ')
    """
    decomposed = unicodedata.normalize("NFKD", description.lower())
    return _replaced("".join(c for c in decomposed if not unicodedata.combining(c)), SIGNS)


def reading(description: str) -> str:
    """A normalised description in which words for contrast agent are `post` or `pre`.

    >>> reading("T1 without contrast"), reading("T1_Gd"), reading("T1 post-op")
    (' t1 pre ', ' t1 post ', ' t1 ')
    """
    return _replaced(normalized(description), READINGS)


def _replaced(text: str, replacements: tuple[tuple[str, str], ...]) -> str:
    for pattern, word in replacements:
        text = re.sub(pattern, word, text)
    return f" {' '.join(text.split())} "


def _rules(path: Path) -> tuple[SeriesRule, ...]:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; `series` needs a table (CSV, TSV or XLSX)")
    rules = []
    for line, row in enumerate(read_plain_table(path), 2):
        row = {name.lower(): value for name, value in row.items()}
        if not {"pattern", "modality"} <= row.keys():
            raise SourceError(f"{path.name}: needs the columns pattern and modality")
        if not row["pattern"] or not row["modality"]:
            raise SourceError(f"{path.name}: line {line} lacks a pattern or a modality")
        kind, of_type = row.get("kind", "").upper() or "*", row.get("image_type", "")
        pattern = _compiled(row["pattern"], path, line)
        image_type = _compiled(of_type, path, line) if of_type else None
        rules.append(SeriesRule(kind, image_type, pattern, row["modality"], path != SHIPPED))
    return tuple(rules)


def _compiled(pattern: str, path: Path, line: int) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error:
        raise SourceError(
            f"{path.name}: line {line}: {pattern} is not a regular expression"
        ) from None
