"""Words for splits, as folders and tables write them."""

import pytest

from vitaepp.data.splits import SPLIT_WORDS, split_word


@pytest.mark.parametrize(
    ("words", "split"),
    [
        ("train Train TRAIN training Training trn tr Tr imagesTr entrenamiento", "train"),
        ("entraînement Trainingsdaten addestramento training_set Train-Data 训练集", "train"),
        ("val VAL Valid validation dev Development tune Tuning validación", "val"),
        ("Validierung validazione validation-set imagesVal", "val"),
        ("test Test TESTING tst ts imagesTs holdout hold-out held_out Testdaten pruebas", "test"),
    ],
)
def test_words_of_a_split_in_any_case_and_language(words, split):
    assert {split_word(word) for word in words.split()} == {split}
    assert {split_word(f" {word} ") for word in words.split()} == {split}


def test_composed_and_decomposed_accents_are_one_word():
    assert split_word("validaci\u00f3n") == split_word("validacio\u0301n") == "val"


@pytest.mark.parametrize(
    "word",
    ["", " ", "glioma", "trainer", "testis", "tumour", "contest", "train1", "1", "fold0", "eval"],
)
def test_other_words_are_no_split(word):
    assert split_word(word) == ""


def test_no_word_stands_for_two_splits():
    words = [word for words in SPLIT_WORDS.values() for word in words]
    assert len(words) == len(set(words))
    assert all(split_word(split) == split for split in SPLIT_WORDS)
