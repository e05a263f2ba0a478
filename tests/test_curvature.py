"""The metrics against the Hessian that they stand for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_objective import draw, make_objective

from skl_softmax import curvature
from skl_softmax.curvature import (
    dense_metric,
    diagonal_metric,
    factorise,
    gram,
    hessian,
    kronecker_metric,
    loss_hessian,
    make_metric,
    portions,
)
from skl_softmax.objective import Objective
from skl_softmax.small import SmallObjective


def applied(objective, theta, solve, vector):
    """H M v, v again if M is the inverse of H."""
    return (hessian(objective, theta)[0] @ solve(vector).flatten()).view_as(vector)


@pytest.mark.parametrize("n_outputs", [1, 3, 6])
@pytest.mark.parametrize("C", [1.0, float("inf")])
def test_dense_metric_of_all_rows_is_the_inverse(n_outputs, C):
    objective = make_objective(n_outputs, C=(C,))
    theta, vector = draw(objective), draw(objective, seed=1)
    torch.testing.assert_close(applied(objective, theta, dense_metric(objective, theta), vector), vector)


@pytest.mark.parametrize("n_outputs", [3, 6])
def test_kronecker_metric_is_exact_at_zero(n_outputs):
    objective = make_objective(n_outputs, C=(0.5,))
    theta = torch.zeros_like(draw(objective))
    vector = objective.centred(draw(objective, seed=1))
    solve = kronecker_metric(objective, theta)
    torch.testing.assert_close(applied(objective, theta, solve, vector), vector, rtol=1e-6, atol=1e-6)


def test_kronecker_metric_is_exact_for_one_output():
    objective = make_objective(1, C=(0.5,))
    theta, vector = draw(objective), draw(objective, seed=1)
    solve = kronecker_metric(objective, theta)
    torch.testing.assert_close(applied(objective, theta, solve, vector), vector, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_outputs", [1, 4])
def test_diagonal_metric_is_the_diagonal(n_outputs):
    objective = make_objective(n_outputs)
    theta = draw(objective)
    diagonal = 1 / diagonal_metric(objective, theta)(torch.ones_like(theta))
    exact = loss_hessian(objective, theta)[0].diagonal().view_as(diagonal) + objective.quadratic
    torch.testing.assert_close(diagonal, exact)


@pytest.mark.parametrize("n_outputs", [1, 4])
@pytest.mark.parametrize("make", [dense_metric, kronecker_metric, diagonal_metric])
@pytest.mark.parametrize("C", [1e-6, 1.0, float("inf")])
def test_every_metric_is_positive_definite(n_outputs, make, C):
    objective = make_objective(n_outputs, C=(C,))
    for seed in range(3):
        theta, vector = draw(objective, seed), draw(objective, seed + 10)
        assert (vector * make(objective, 5 * theta)(vector)).sum() > 0


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("make", [dense_metric, kronecker_metric, diagonal_metric])
def test_metrics_of_a_stack_are_those_of_its_models(n_outputs, make):
    objective, some = make_objective(n_outputs, C=(0.1, 1.0, 10.0)), torch.tensor([2, 0])
    theta, vector = draw(objective), draw(objective, seed=1)
    selected = make(objective, theta).select(some)(vector[some])
    torch.testing.assert_close(selected, make(objective.select(some), theta[some])(vector[some]))


@pytest.mark.parametrize("growth", [1, 2])
def test_a_metric_for_all_models_tells_the_price_of_one_for_each(growth):
    family = replace(make_objective(1, C=(0.1, 1.0, 10.0)), is_family=True)
    theta = draw(family)
    shared, apart = make_metric(family, theta, growth), make_metric(family.apart(), theta)
    assert apart.apart_price is None
    assert shared.apart_price == apart.price
    assert shared.price < apart.price
    assert shared.select(torch.tensor([1])) is shared


def test_the_choice_of_metric(monkeypatch):
    objective = make_objective(3)
    zero = torch.zeros_like(draw(objective))
    assert make_metric(objective, zero + 1).kind == "dense"
    assert make_metric(objective, zero + 1).exact
    monkeypatch.setattr(curvature, "DENSE_LIMIT", 1)
    assert make_metric(objective, zero + 1).kind == "kronecker"
    monkeypatch.setattr(curvature, "GRAM_LIMIT", 1)
    assert make_metric(objective, zero + 1).kind == "diagonal"
    assert not make_metric(objective, zero + 1).follows


def test_hessian_in_portions_and_strips(monkeypatch):
    objective = make_objective(6)
    theta = draw(objective)
    whole = hessian(objective, theta)
    monkeypatch.setattr(curvature, "WEIGHTED_ENTRIES", 7 * theta.numel())
    monkeypatch.setattr(curvature, "SMALLEST_STRIP", 1)
    assert len(portions(objective.n_rows, theta.numel())) == 6
    torch.testing.assert_close(hessian(objective, theta), whole)


@pytest.mark.parametrize("kind", [Objective, SmallObjective])
def test_the_curvature_of_rows_that_are_almost_certain(kind):
    # Where p is 1 to rounding, p - p² is rounding; p_k p_l, which the curvature is made of, is not.
    objective = make_objective(3, C=(np.inf,), kind=kind)
    theta = torch.zeros_like(draw(objective))
    theta[0, :, -1] = torch.tensor([30.0, -8.0, 0.0])
    proba = objective.probabilities(theta)[0]  # (K, n)
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
