"""The duality gap: a bound, and zero at the minimum."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from test_objective import make_objective

from skl_softmax.objective import Objective
from skl_softmax.objective.duality import convex_gap
from skl_softmax.solvers import SolverOptions
from skl_softmax.solvers.proximal import proximal

CASES = pytest.mark.parametrize(
    ("n_outputs", "l1_ratio", "fit_intercept"),
    [(1, 1.0, True), (3, 1.0, True), (3, 0.5, False), (4, 0.5, True), (3, 0.0, True)],
)


def objective(n_outputs, l1_ratio, fit_intercept, C=0.3):
    smooth = make_objective(n_outputs, fit_intercept, C=(C,))
    fields = {name: getattr(smooth, name) for name in ("data", "targets", "weights", "n_outputs", "total")}
    return Objective(**fields, l2=(1 - l1_ratio) * smooth.l2, l1=l1_ratio * smooth.l2)


def minimum(problem):
    start = torch.zeros(1, problem.n_outputs, problem.data.n_columns, dtype=torch.float64)
    result = proximal(problem, start, SolverOptions(tol=1e-14, max_iter=200))
    return result.theta


@CASES
@pytest.mark.parametrize("distance", [1e-6, 1e-2, 1.0, 30.0, 1000.0])
def test_it_bounds_the_gap_and_vanishes_with_it(n_outputs, l1_ratio, fit_intercept, distance):
    problem = objective(n_outputs, l1_ratio, fit_intercept)
    best = minimum(problem)
    lowest = problem.at(best).value.item()
    assert problem.certificate(best).gap.item() <= 1e-12 * lowest
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        theta = best + distance * torch.randn(best.shape, dtype=torch.float64, generator=generator)
        found = problem.certificate(theta)
        assert found.gap.item() >= found.point.value.item() * (1 - 1e-14) - lowest - 1e-14


@pytest.mark.parametrize("far", [-1000.0, -145.0, -30.0, 30.0, 700.0])
@pytest.mark.parametrize("n_outputs", [1, 4])
def test_intercepts_are_balanced_from_anywhere(n_outputs, far):
    problem = objective(n_outputs, 1.0, True)
    near = minimum(problem)
    theta = near.clone()
    theta[:, 0, -1] += far
    found, expected = problem.certificate(theta), problem.certificate(near)
    assert found.gap.item() == pytest.approx(expected.gap.item(), abs=1e-10)
    assert found.point.value.item() == pytest.approx(expected.point.value.item(), rel=1e-10)


@pytest.mark.parametrize(("n_outputs", "fit_intercept"), [(1, True), (3, True), (4, False)])
@pytest.mark.parametrize("distance", [1e-6, 1e-2, 1.0])
def test_the_curvature_of_the_penalty_bounds_the_gap_as_duality_does(n_outputs, fit_intercept, distance):
    problem = replace(objective(n_outputs, 0.0, fit_intercept), l1=None)
    best = minimum(problem)
    lowest = problem.at(best).value.item()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        theta = best + distance * torch.randn(best.shape, dtype=torch.float64, generator=generator)
        found, by_duality = problem.convex_certificate(theta), problem.certificate(theta)
        assert found.gap.item() >= found.point.value.item() - lowest - 1e-14
        torch.testing.assert_close(found.theta, by_duality.theta)
        torch.testing.assert_close(found.point.gradient, by_duality.point.gradient)
        assert found.gap.item() == pytest.approx(by_duality.gap.item(), rel=1e-6, abs=1e-13)
        assert convex_gap(problem, problem.at(found.theta)).item() == pytest.approx(found.gap.item(), rel=1e-6)


def test_without_a_penalty_of_its_own_curvature_no_bound_is_told():
    for problem in (replace(objective(3, 0.0, True, C=np.inf), l1=None), objective(3, 0.5, True)):
        point = problem.at(torch.ones(1, 3, problem.data.n_columns, dtype=torch.float64))
        assert convex_gap(problem, point).item() == np.inf
        assert problem.convex_gap(point).item() == np.inf


@CASES
def test_the_intercept_is_put_where_it_is_best(n_outputs, l1_ratio, fit_intercept):
    problem = objective(n_outputs, l1_ratio, fit_intercept)
    generator = torch.Generator().manual_seed(0)
    shape = 1, n_outputs, problem.data.n_columns
    theta = torch.randn(shape, dtype=torch.float64, generator=generator)
    found = problem.certificate(theta)
    torch.testing.assert_close(found.theta[..., :-1], theta[..., :-1])
    again = problem.at(found.theta)
    torch.testing.assert_close(found.point.value, again.value)
    torch.testing.assert_close(found.point.gradient, again.gradient)
    if fit_intercept:
        assert n_outputs == 1 or found.theta[..., -1].sum().abs() < 1e-12
        assert again.gradient[..., -1].abs().max() < 1e-12
    else:
        torch.testing.assert_close(found.theta, theta)


def test_it_is_the_gap_by_its_definition():
    """F minus the dual of Koh, Kim & Boyd, in NumPy, for the lasso and three classes without intercept."""
    problem = objective(3, 1.0, fit_intercept=False)
    theta = torch.randn(1, 3, problem.data.n_columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    X, W = problem.data.X.numpy(), problem.data.from_theta(theta[0])[0].numpy()
    s, y, penalty = problem.weights[0].numpy(), np.eye(3)[problem.targets.numpy()], problem.l1.item()
    s = s / s.sum()
    logits = X @ W.T
    p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    value = s @ (logsumexp(logits, axis=1) - (y * logits).sum(axis=1)) + penalty * np.abs(W).sum()
    gradient = ((p - y) * s[:, None]).T @ X
    q = y + min(1, penalty / np.abs(gradient).max()) * (p - y)
    dual = -s @ (q * np.log(q)).sum(axis=1)
    assert problem.certificate(theta).gap.item() == pytest.approx(value - dual, rel=1e-10)


@CASES
def test_to_first_order_it_takes_no_pass(n_outputs, l1_ratio, fit_intercept):
    """What the gradient alone tells of the bound is off by the square of the distance, with balanced intercepts."""
    problem = objective(n_outputs, l1_ratio, fit_intercept)
    best = minimum(problem)
    direction = torch.randn(best.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    missed = []
    for distance in (1e-3, 1e-4):
        theta = best + distance * torch.where(best != 0, direction, 0.0)
        found = problem.certificate(theta)
        told = problem.first_order_gap(found.theta, found.point)
        missed.append(abs(told.item() - found.gap.item()))
        assert told.item() == pytest.approx(found.gap.item(), rel=0.05)
    assert missed[1] <= 0.02 * missed[0] + 1e-14
    assert problem.first_order_gap(best, problem.at(best)).item() <= 1e-10
