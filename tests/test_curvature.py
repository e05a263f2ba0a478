"""The Hessian and its factors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_objective import draw, make_objective

from skl_softmax.data import standardised
from skl_softmax.objective import Objective, curvature
from skl_softmax.objective.curvature import (
    factorise,
    gram,
    hessian,
    inverse,
    loss_hessian,
    row_slices,
)
from skl_softmax.objective.small import SmallObjective
from skl_softmax.objective.tiny import TinyObjective


@pytest.mark.parametrize("few", [0, 6])
def test_hessian_in_portions_and_strips(few, monkeypatch):
    objective = make_objective(6)
    theta = draw(objective)
    monkeypatch.setattr(curvature, "FEW_CLASSES", 6 - few)
    whole = hessian(objective, theta)
    monkeypatch.setattr(curvature, "FEW_CLASSES", few)
    monkeypatch.setattr(curvature, "WEIGHTED_ENTRIES", 7 * theta.numel())
    monkeypatch.setattr(curvature, "SMALLEST_STRIP", 1)
    assert len(row_slices(objective.n_rows, theta.numel())) == 6
    torch.testing.assert_close(hessian(objective, theta), whole)


@pytest.mark.parametrize("few", [0, 10**6])
@pytest.mark.parametrize("n_rows", [1, 7, 512])
def test_hessian_of_one_output_is_a_sum_over_rows(n_rows, few, monkeypatch):
    monkeypatch.setattr(curvature, "GRAM_ROWS", n_rows)
    monkeypatch.setattr(curvature, "FEW_COLUMNS", few)
    objective = make_objective(1, C=(1.0,))
    theta, design = draw(objective), objective.data.design(slice(0, objective.n_rows))  # (n, p)
    proba = torch.sigmoid(design @ theta[0, 0])
    weights = objective.weights[0] * proba * (1 - proba) / objective.total
    torch.testing.assert_close(loss_hessian(objective, theta)[0], torch.einsum("i,ij,ik->jk", weights, design, design))


@pytest.mark.parametrize("n_outputs", [1, 3, 6])
def test_hessian_in_float32(n_outputs):
    objective = make_objective(n_outputs, C=(0.1, 10.0))
    theta = draw(objective)
    wide, narrow = hessian(objective, theta), hessian(objective, theta, torch.float32)
    assert (wide.dtype, narrow.dtype) == (torch.float64, torch.float32)
    sizes = wide.diagonal(dim1=1, dim2=2).sqrt()  # (M, P)
    assert ((narrow - wide).abs() <= 1e-6 * sizes[:, :, None] * sizes[:, None]).all()


@pytest.mark.parametrize("kind", [Objective, TinyObjective])
def test_the_curvature_of_rows_that_are_almost_certain(kind):
    # Where p is 1 to rounding, p - p² is rounding; p_k p_l, which the curvature is made of, is not.
    objective = make_objective(3, C=(np.inf,), kind=kind)
    theta = torch.zeros_like(draw(objective))
    theta[0, :, -1] = torch.tensor([30.0, -8.0, 0.0])
    proba = objective.row_proba(theta)[0]  # (K, n)
    design = objective.data.design(slice(0, objective.n_rows))
    direction = objective.centred(draw(objective, seed=1))
    moved = design @ direction[0].T  # (n, K)
    apart = (moved[:, :, None] - moved[:, None]).square()  # (n, K, K)
    pairs = torch.einsum("kn,ln->nkl", proba, proba)
    expected = 0.5 * (objective.weights[0] @ (pairs * apart).sum(dim=(1, 2))) / objective.total
    product = (direction * objective.hessian_product(theta)(direction)).sum()
    by_matrix = direction.flatten() @ loss_hessian(objective, theta)[0] @ direction.flatten()
    torch.testing.assert_close(torch.stack([product, by_matrix]), expected.expand(2), rtol=1e-9, atol=0.0)
    solved = objective.inverse_hessian(theta)
    assert not solved.has_ridge
    torch.testing.assert_close(solved(objective.hessian_product(theta)(direction)), direction, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("l1", [None, 0.1])
@pytest.mark.parametrize("n_outputs", [1, 3, 5])
def test_hessians_of_folds_of_a_small_table_are_those_of_any_other(n_outputs, l1):
    # Those of several classes come from products of pairs of columns, others and single models from weighted rows.
    common, Cs = {"is_family": True, "l1": None if l1 is None else torch.full((3,), l1)}, (0.1, 1.0, 10.0)
    kinds = TinyObjective, Objective
    small, other = (replace(make_objective(n_outputs, C=Cs, kind=kind), **common) for kind in kinds)
    theta, vector = draw(small), small.centred(draw(small, seed=1))
    expected = other.inverse_hessian(theta)(vector)
    torch.testing.assert_close(small.inverse_hessian(theta)(vector), expected)
    for m in range(3):
        alone = replace(small.select(torch.tensor([m])), is_family=False)
        one = alone.inverse_hessian(theta[m : m + 1])(vector[m : m + 1])
        torch.testing.assert_close(one, expected[m : m + 1])


@pytest.mark.parametrize("kind", [TinyObjective, SmallObjective, Objective])
@pytest.mark.parametrize("is_family", [False, True])
@pytest.mark.parametrize("n_outputs", [3, 5])
def test_hessians_at_zero(n_outputs, is_family, kind):
    objective, some = make_objective(n_outputs, C=(0.1, 1.0, 10.0), kind=kind), torch.tensor([2, 0])
    objective = replace(objective, is_family=is_family)
    vector, zeros = draw(objective, seed=1), torch.zeros_like(draw(objective))
    found, expected = objective.inverse_hessian(zeros), inverse(hessian(objective, zeros))(vector)
    factors = found.factors if kind is TinyObjective else found.factors[0]
    assert factors[0].shape == 2 * (objective.data.n_columns,)  # one for all classes
    torch.testing.assert_close(found(vector), expected)
    torch.testing.assert_close(found.select(some)(vector[some]), expected[some])


def test_hessians_at_zero_in_float32(monkeypatch):
    monkeypatch.setattr(curvature, "NARROW_WORK", 0)
    objective = make_objective(3)
    vector, zeros = draw(objective, seed=1), torch.zeros_like(draw(objective))
    found, expected = objective.inverse_hessian(zeros, torch.float32), inverse(hessian(objective, zeros))(vector)
    assert found.factors[0].dtype == torch.float32
    torch.testing.assert_close(found(vector), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [TinyObjective, Objective])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_singular_hessian_at_zero_has_a_ridge(n_outputs, kind):
    objective = make_objective(n_outputs, C=(np.inf,), kind=kind)
    X = objective.data.X.clone()
    X[:, 0] = 0.0  # a column of which neither rows nor a penalty know anything
    objective = replace(objective, data=standardised(X, fit_intercept=True))
    vector = draw(objective, seed=1)
    found = objective.inverse_hessian(torch.zeros_like(vector))
    assert found.has_ridge
    assert found(vector).isfinite().all()


def test_gram():
    objective = make_objective(3)
    design = objective.data.design(slice(0, objective.n_rows))
    expected = torch.einsum("i,ij,ik->jk", objective.weights[0], design, design) / objective.total
    torch.testing.assert_close(gram(objective)[0], expected)


@pytest.mark.parametrize("matrix", [torch.zeros(3, 3), torch.ones(3, 3), torch.eye(3)])
def test_factorise_copes_with_singular_matrices(matrix):
    factor = factorise(matrix.double()[None])
    assert factor.isfinite().all()
    assert (factor.diagonal(dim1=1, dim2=2) > 0).all()
