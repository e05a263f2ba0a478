"""Columns of which one row is far out, and what is to be gained beside it."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from benchmarks.tables import outliers
from skl_softmax import TorchSoftmaxClassifier
from skl_softmax.data import DenseData, SparseData, csr_tensor
from skl_softmax.data.span import SpanData
from skl_softmax.objective import Objective
from skl_softmax.objective.outliers import outlying_step


def make_data(X, storage, fit_intercept):
    if storage == "sparse":
        return SparseData.raw(csr_tensor(csr_array(X)), fit_intercept, torch.float64)
    return DenseData.standardised(torch.from_numpy(X), fit_intercept)


def draw_table(seed=0, storage="dense"):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, 6)) * [1e-3, 1, 1, 10, 1, 1] + [0, 0, 5, 0, 0, 0]
    X[rng.random(X.shape) < (0.5 if storage == "sparse" else 0)] = 0.0
    X[17, 0], X[40, 2] = 10.0, -1e6
    return X


STORAGES = pytest.mark.parametrize("storage", ["dense", "sparse"])


@STORAGES
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_columns_with_one_number_far_out_are_known(storage, fit_intercept):
    found = make_data(draw_table(0, storage), storage, fit_intercept).outlying
    assert found.tolist() == [True, False, True, False, False, False] + [False] * fit_intercept


@pytest.mark.parametrize("n_rows", [60, 1000, 100_000])
def test_no_usual_column_has_one(n_rows):
    rng = np.random.default_rng(0)
    counts, bits = rng.poisson(1.0, size=(n_rows, 3)), rng.random((n_rows, 3)) < 0.3
    X = np.hstack([rng.normal(size=(n_rows, 5)), rng.uniform(size=(n_rows, 3)), counts, bits, np.ones((n_rows, 1))])
    for storage in ("dense", "sparse"):
        assert not make_data(X.astype(float), storage, True).outlying.any()


def test_of_words_that_few_texts_have_none_is_far_out():
    rng = np.random.default_rng(0)
    X = rng.integers(1, 6, size=(200, 100)) * (rng.random((200, 100)) < 0.02)
    assert not make_data(X.astype(float), "sparse", True).outlying.any()


@STORAGES
def test_nor_are_levels_of_rare_categories(storage):
    X = (np.arange(20_000)[:, None] % np.array([1000, 5000, 20_000]) == 7).astype(float)
    assert not make_data(X, storage, True).outlying.any()


def test_in_the_space_that_rows_span_columns_have_no_entry_of_a_row():
    rng = np.random.default_rng(0)
    data = SpanData.rotated(make_data(rng.normal(size=(100, 1000)), "dense", True))
    assert data.rotates
    assert not data.outlying.any()


@STORAGES
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_the_step_is_newtons_along_each_parameter(n_outputs, fit_intercept, storage):
    """By autograd, with the intercept moved so that the middle of a column stays where it is."""
    X = draw_table(1, storage)
    data, rng = make_data(X, storage, fit_intercept), np.random.default_rng(2)
    targets = torch.from_numpy(rng.integers(max(2, n_outputs), size=len(X)))
    weights = torch.from_numpy(rng.uniform(0.1, 2, size=(1, len(X))))
    targets, total = targets.double() if n_outputs == 1 else targets, weights.sum(dim=1)
    objective = Objective(data, targets, weights, torch.tensor([1.0, 10.0]) / total, n_outputs, total.expand(2))
    theta = torch.from_numpy(rng.normal(size=(2, n_outputs, data.n_columns)))
    found = outlying_step(objective, theta, objective.at(theta).gradient)

    design = data.design(slice(0, len(X)))
    middle = (
        design.sort(dim=0).values[(len(X) - 1) // 2]
        if storage == "dense" and fit_intercept
        else torch.zeros(data.n_columns)
    )
    for model, k in product(range(2), range(n_outputs)):
        expected = torch.zeros(data.n_columns, dtype=torch.float64)
        for j in (0, 2):
            along = torch.zeros_like(theta)
            along[model, k, j] = 1.0
            if fit_intercept:
                along[model, k, -1] = -middle[j]
            slope, curvature = derivatives(objective, design, theta, along, model)
            expected -= slope / curvature * along[model, k]
        torch.testing.assert_close(found[model, k], expected, rtol=1e-6, atol=1e-12)


def derivatives(objective, design, theta, along, model):
    """The first and the second of F of a model along a direction."""
    n_outputs, targets = objective.n_outputs, objective.targets

    def value(t):
        at = theta + t * along
        logits = (design @ at[model].T).squeeze(-1) if n_outputs == 1 else design @ at[model].T
        if n_outputs == 1:
            losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        else:
            losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        penalty = 0.5 * (objective.column_l2 * at.square())[model].sum()
        return (objective.weights[0] * losses).sum() / objective.total[model] + penalty

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(t), t, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, t)
    return slope.item(), curvature.item()


def test_without_such_columns_there_is_none():
    objective = Objective(
        make_data(np.random.default_rng(0).normal(size=(50, 3)), "dense", True),
        torch.arange(50) % 3,
        torch.ones(1, 50, dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        3,
        torch.full((1,), 50.0, dtype=torch.float64),
    )
    theta = torch.zeros(1, 3, 4, dtype=torch.float64)
    assert outlying_step(objective, theta, objective.at(theta).gradient) is None


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("seed", [2, 13, 31, 33, 38])
def test_gaps_beside_a_number_far_out_are_true(seed, solver):
    """Some were told 100 times too small, and fits ended at as many times their tolerance."""
    table = outliers(seed)
    fits = [TorchSoftmaxClassifier(C=table.C, tol=tol, solver=solver).fit(table.X, table.y) for tol in (1e-4, 1e-7)]
    least = min(
        TorchSoftmaxClassifier(C=table.C, tol=1e-11, solver=each).fit(table.X, table.y).loss_curve_[-1]
        for each in ("newton", "lbfgs")
    )
    for clf in fits:
        assert clf.converged_
        assert clf.loss_curve_[-1] - least <= 10 * max(clf.optimality_gap_, clf.tol * least)
