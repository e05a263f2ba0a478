"""Rows that are elsewhere, on the way to an objective."""

import numpy as np
import pytest
import torch
from test_parts import checker, problem

from skl_softmax import pieces
from skl_softmax.data import take_rows
from skl_softmax.inputs import check_training_rows


def test_errors_name_the_partition():
    estimator, X, y, weights = problem()
    check_training_rows(estimator, X, y, weights)
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"Partition 7: X holds NaN"):
        pieces.load_piece("Partition 7", estimator, X, y, weights)
    with pytest.raises(ValueError, match=r"Partition 7: .*inconsistent numbers of samples"):
        pieces.load_piece("Partition 7", estimator, X, y[:-1], weights)
    piece = pieces.load_piece("Partition 2", estimator, X[4:], y[4:], weights[4:])
    with pytest.raises(ValueError, match=r"Partition 2: y holds the labels \['c'\], which are not among the classes"):
        pieces.encode([piece], checker(estimator), np.array(["a", "b"]))


def test_rows_drawn_are_rows():
    estimator, X, y, weights = problem()
    rows = check_training_rows(estimator, X, y, weights)
    (drawn,) = pieces.draw(pieces.RowGroup([rows]), 0.25)
    places = [np.flatnonzero((x == X).all(axis=1)).item() for x in drawn.X.numpy()]
    assert places == sorted(set(places))
    torch.testing.assert_close(drawn.weights, 4 * rows.weights[places])
    torch.testing.assert_close(take_rows(rows.X, torch.tensor(places)), drawn.X)


def test_rows_drawn_are_copies():
    """What comes next may be made in the same memory."""
    rows = check_training_rows(*problem())
    (drawn,) = pieces.draw(pieces.RowGroup([rows]), 1.0)
    expected = drawn.X.clone()
    rows.X.zero_()
    torch.testing.assert_close(drawn.X, expected)
