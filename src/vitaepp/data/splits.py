"""Words for the splits of a data set (train, val, test) in folder names and tables."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pandas as pd

#: The canonical names and other words for them: in English, in common tools, then in German,
#: French, Spanish, Italian, Portuguese and Chinese; without accents, blanks, hyphens, underscores.
SPLIT_WORDS = {
    "train": (
        *("train", "training", "trn", "tr", "trainset", "trainingset", "traindata"),
        *("trainingdata", "imagestr", "labelstr", "imagestrain", "labelstrain"),
        *("trainingsdaten", "trainingssatz", "entrainement", "apprentissage"),
        *("entrenamiento", "addestramento", "allenamento", "treino", "treinamento"),
        *("训练", "训练集"),
    ),
    "val": (
        *("val", "valid", "validate", "validation", "validationset", "validset", "valset"),
        *("validationdata", "imagesval", "labelsval"),
        *("dev", "devel", "development", "devset", "tune", "tuning", "tuningset"),
        *("validierung", "validierungsdaten", "validacion", "validazione", "convalida"),
        *("validacao", "验证", "验证集"),
    ),
    "test": (
        *("test", "testing", "tst", "ts", "testset", "testingset", "testdata", "holdout"),
        *("heldout", "holdoutset", "imagests", "labelsts", "imagestest", "labelstest"),
        *("testdaten", "testsatz", "prufung", "prueba", "pruebas", "prova", "teste"),
        *("测试", "测试集"),
    ),
}

_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}


def split_word(word: str) -> str:
    """The split that a word stands for: `train`, `val` or `test`, or an empty string.

    Case, accents, blanks, hyphens and underscores are ignored.

    >>> split_word("Training"), split_word("imagesTs"), split_word("hold-out"), split_word("glioma")
    ('train', 'test', 'test', '')
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
    return _SPLIT_OF.get(re.sub(r"[\s_-]", "", plain).casefold(), "")


def canonical_splits(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column of splits as text: `train`, `val`, `test`, other words unchanged, or empty.

    >>> canonical_splits(pd.Series(["Training", "external", None])).tolist()
    ['train', 'external', '']
    """
    words = column.astype(object).where(column.notna(), "").map(str)
    return words.map({word: split_word(word) or word for word in words.unique()})
