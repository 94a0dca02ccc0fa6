"""Embeddings on disk: one Parquet or CSV file, a row a subject, readable by any tool.

Columns are `subject`, the label columns, `split`, then the features `f0 … fD-1`. The metadata of a
Parquet file says which run and store it came from. Its controls, embeddings of the same subjects
that involve no training, lie beside it: `x.untrained.parquet` and `x.raw.parquet` for `x.parquet`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vitaepp.data.origin import warn_outdated
from vitaepp.data.store import Store
from vitaepp.errors import EvaluationError, EvaluationNotFoundError, RunError, one_line
from vitaepp.presentation.notebook import Tabular
from vitaepp.system.files import atomic_path, check_replaces, columns_in, write_text
from vitaepp.system.progress import counted

#: Controls, by their name in metrics.json, and what they are.
CONTROLS = {"untrained": "an untrained encoder of the same shape", "raw": "raw intensities (PCA)"}


@dataclass(frozen=True)
class Embeddings(Tabular):
    """Features of subjects, with what is known of them.

    Attributes:
        table: `subject`, label columns and `split`, one row a subject.
        features: `(subject, feature)`, float32, row i of the subject in row i of the table.
        provenance: facts about the features; it may be empty. `embed` writes the names of `run` and
            `store`, the id of the `encoder`'s weights and its `epochs`, a digest of the store's
            `images`, the `method` and its `name` in print, what features are pooled from (`pool`,
            and after which `block`, null for the last), and how the store was `prepared`. Where
            they apply, it adds what makes the store `unlike` that of the training, the subjects
            that the training was limited to (`pretrained_on`, null without a limit), and how far
            a training was that is `unfinished`. Of a public encoder, `run` is its name, `method`
            is `public`, and `slices` is how many of a volume it saw.

    Example:
        >>> table = pd.DataFrame({"subject": ["a", "b"], "grade": [0, 1], "split": ""})
        >>> embeddings = Embeddings(table, np.zeros((2, 3), np.float32))
        >>> embeddings
        Embeddings(2 subjects; 3 features; labels grade)
        >>> list(embeddings.to_frame())
        ['subject', 'grade', 'split', 'f0', 'f1', 'f2']
    """

    table: pd.DataFrame
    features: npt.NDArray[np.float32]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        count, width = self.features.shape
        name = self.provenance.get("name") or self.provenance.get("method") or ""
        parts = [counted(count, "subject"), f"{width} features", *([name] if name else [])]
        parts += [f"labels {', '.join(self.label_columns)}"] if self.label_columns else []
        return f"Embeddings({'; '.join(parts)})"

    @property
    def label_columns(self) -> list[str]:
        """Names of the label columns."""
        return [str(c) for c in self.table.columns if c not in ("subject", "split")]

    @property
    def digest(self) -> str:
        """A digest of the table and the features, whatever the order of the rows."""
        frame = self.to_frame()
        names = {name: frame[name].astype(str) for name in ("subject", "split")}
        rows = pd.util.hash_pandas_object(frame.assign(**names), index=False)
        return hashlib.sha256(np.sort(rows.to_numpy()).tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.table)

    def to_frame(self) -> pd.DataFrame:
        """One table, a row a subject: `subject`, label columns, `split`, then `f0 … fD-1`."""
        table = self.table if "split" in self.table else self.table.assign(split="")
        front = table[["subject", *self.label_columns, "split"]]
        names = [f"f{i}" for i in range(self.features.shape[1])]
        return front.join(pd.DataFrame(self.features, columns=names, index=front.index))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all: Parquet, or CSV where its name ends in `.csv`.

        A CSV file is for other programs: it keeps no provenance.
        """
        whole = self.to_frame()
        if _is_csv(path):
            write_text(path, whole.to_csv(index=False))
            return
        table = pa.Table.from_pandas(whole, preserve_index=False)
        metadata = {
            **(table.schema.metadata or {}),
            b"vitaepp": json.dumps(self.provenance).encode(),
        }
        with atomic_path(path) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary)

    @staticmethod
    def check(path: str | os.PathLike[str]) -> None:
        """Refuse a path for embeddings where they could not be written, or something else is.

        Its controls are checked as well: what is no control there would be removed.

        Raises:
            RunError: a file that holds no embeddings, or the name of a control of another file.
            OSError: with the name of what is in the way.
        """
        path = Path(path)
        for control in CONTROLS:
            if path.stem.endswith(f".{control}"):
                of = path.with_name(path.stem.removesuffix(f".{control}") + path.suffix)
                raise RunError(
                    f"{path}: is the name of a control of {of.name} ({CONTROLS[control]}), beside "
                    "which this would be taken for one; choose another name"
                )
        for each in (path, *(control_path(path, control) for control in CONTROLS)):
            check_replaces(each, "file of embeddings", _holds_embeddings)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embeddings:
        """Read a Parquet or CSV file with a `subject` column and features `f0 … fD-1`.

        A warning says where it lies in a run that has another encoder now.

        Raises:
            EvaluationError: missing, damaged, or without those columns.
        """
        path = Path(path)
        if path.is_dir():
            # Of the files in a run, the one that has controls beside it.
            own = [p for p in sorted(path.glob("*.*")) if control_path(p, "raw").is_file()]
            meant = f"did you mean {own[0]}?" if own else "name the file that embed wrote"
            raise EvaluationError(f"{path}: is a folder; {meant}")
        if not path.is_file():
            raise EvaluationNotFoundError(f"{path}: no such file; embed a store to make it")
        try:
            if _is_csv(path):
                text = {"subject": str, "split": str}
                read = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
                table = pa.Table.from_pandas(read)
            else:
                table = pq.read_table(path)
        except (UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
            raise EvaluationError(
                f"{path}: not a CSV file of embeddings: {one_line(error)}"
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise EvaluationError(
                f"{path}: not a Parquet file of embeddings; name the file that embed "
                f"wrote ({one_line(error)})"
            ) from None
        columns = set(table.column_names)  # which pyarrow makes anew each time it is asked
        names: list[str] = []
        while f"f{len(names)}" in columns:
            names.append(f"f{len(names)}")
        if not names or "subject" not in columns:
            raise EvaluationError(
                f"{path}: has no columns subject and f0 … fD-1, so it holds no embeddings; name "
                "the file that embed wrote"
            )
        gap = [c for c in table.column_names if re.fullmatch(r"f\d+", c) and c not in names]
        if gap:
            raise EvaluationError(
                f"{path}: has a column {gap[0]}, but no f{len(names)}; features are f0 … fD-1 "
                "without a gap, so embed again"
            )
        frame = table.to_pandas()
        frame["split"] = frame["split"].fillna("") if "split" in frame else ""
        try:
            features = np.array(frame[names], np.float32)  # the frame's own is not writable
        except (ValueError, TypeError):
            raise EvaluationError(
                f"{path}: has features that are no numbers; embed again"
            ) from None
        if not np.isfinite(features).all():
            bad = frame["subject"][~np.isfinite(features).all(axis=1)].iloc[0]
            raise EvaluationError(f"{path}: features of subject {bad} are not finite; embed again")
        facts = json.loads((table.schema.metadata or {}).get(b"vitaepp", b"{}"))
        if facts.get("method") not in CONTROLS:  # which are held against their embeddings
            warn_outdated(path, facts, "embed again for the run as it is")
        return cls(frame.drop(columns=names), features, facts)


def _holds_embeddings(path: Path) -> bool:
    columns = columns_in(path) if _is_csv(path) else pq.read_schema(path).names
    return {"subject", "f0"} <= set(columns)


def facts_in(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The provenance in a Parquet file of embeddings, without its features.

    Empty where there is none, or no such file.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):
        return {}
    return dict(json.loads(metadata.get(b"vitaepp", b"{}")))


def are_of(path: str | os.PathLike[str], store: Store, encoder: str | None = None) -> bool:
    """Whether a file has the features of a store's images, by this encoder if one is named."""
    facts = facts_in(path)
    by = encoder is None or facts.get("encoder") == encoder
    return by and facts.get("images") == store.fingerprint()


def _is_csv(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() == ".csv"


def control_path(path: str | os.PathLike[str], control: str) -> Path:
    """Where a control of an embeddings file lies.

    >>> control_path("run/embeddings.parquet", "raw").as_posix()
    'run/embeddings.raw.parquet'
    """
    path = Path(path)
    return path.with_name(f"{path.stem}.{control}{path.suffix}")
