"""Types of arrays, by what they hold; their shapes stand where they are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: Real numbers, in double precision or in any.
Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.floating[Any]]

#: Numbers from 0, of rows, classes, persons or folds.
Indices = npt.NDArray[np.intp]

#: Whether something is so.
Flags = npt.NDArray[np.bool_]
