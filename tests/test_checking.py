"""What every test run checks beside the tests: shapes and types in signatures."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from vitaepp.evaluation.folds import Fold
from vitaepp.losses.reconstruction import reconstruction_loss
from vitaepp.system.progress import counted


def test_shapes_that_do_not_go_together_are_refused():
    with pytest.raises(TypeCheckError, match="prediction"):
        reconstruction_loss(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(TypeCheckError, match="target"):
        reconstruction_loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5))


def test_types_are_refused_in_functions_without_shapes():
    with pytest.raises(TypeCheckError, match="count"):
        counted("3", "subject")


def test_types_are_refused_in_methods_and_data_classes():
    rows = np.arange(3)
    with pytest.raises(TypeCheckError, match="test"):
        Fold(rows, [0.5])
