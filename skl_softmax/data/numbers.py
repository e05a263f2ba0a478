"""Numbers beside sparse columns: those that next to no zeros are among, such as ages or time stamps."""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from skl_softmax.data.null_space import ROUNDING
from skl_softmax.threads import slices

# The part of the rows that have an entry in such columns, which gives one to the others; and how many standard
# deviations from zero the mean is of those that are centred. One-hot tables of 300 to 3,000 levels beside ages, counts,
# years, incomes or uniform numbers take 0.04 to 1.03 of the passes so, most of them 0.2 to 0.5, as with 0.05; with 1
# some take 1.5 times as many.
MOSTLY, OFF_CENTRE = 0.9, 0.3
# Rows that tell which columns may be such, and entries of X that are made dense at a time.
LOOKED_AT, CHUNK_ENTRIES = 64, 2**20


def find_numbers(x: csr_array) -> tuple[Tensor, Tensor]:
    """The columns that next to no zeros are among, (f,), and where to centre them, (f,).

    Not those in which there are only equal values: these may be levels of a category.
    """
    some = x[np.linspace(0, x.shape[0] - 1, LOOKED_AT).astype(int)]
    may_be = np.flatnonzero(np.bincount(some.indices, minlength=x.shape[1]) >= MOSTLY * LOOKED_AT)
    may_be = may_be[~_are_alike(some[:, may_be].toarray())]
    found = [_centre(values) for values in dense_columns(x, may_be)]
    is_full, means = np.array([full for full, _ in found], dtype=bool), np.array([mean for _, mean in found])
    return torch.from_numpy(may_be[is_full]), torch.from_numpy(means[is_full])


def dense_columns(x: csr_array, columns: np.ndarray) -> np.ndarray:
    """Some columns of x, in ascending order, as rows (f, n) in float64."""
    dense = np.empty((len(columns), x.shape[0]))
    if len(columns):
        for rows in slices(x.shape[0], max(1, CHUNK_ENTRIES * x.shape[0] // x.nnz)):
            dense[:, rows] = x[rows][:, columns].toarray().T
    return dense


def without_columns(x: csr_array, columns: np.ndarray) -> csr_array:
    """A copy of x that has no entries in some columns."""
    is_left = np.ones(x.shape[1], dtype=bool)
    is_left[columns] = False
    left = is_left[x.indices]
    ends = np.append(0, left.cumsum())[x.indptr]
    return csr_array((x.data[left], x.indices[left], ends.astype(x.indptr.dtype)), shape=x.shape)


def _are_alike(values: np.ndarray) -> np.ndarray:
    """In which columns of (n, columns) all that is not zero is one number, to rounding."""
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=0)[None], axis=0)  # (1, columns)
    return (np.isclose(values, largest, rtol=ROUNDING, atol=0.0) | (values == 0)).all(axis=0)


def _centre(values: np.ndarray) -> tuple[bool, float]:
    """Whether a column (n,) has few zeros, and its mean, 0 if that is next to zero."""
    is_full = np.count_nonzero(values) >= MOSTLY * len(values)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, spread = values.mean(), values.std()
    return is_full, mean if abs(mean) > OFF_CENTRE * spread else 0.0
