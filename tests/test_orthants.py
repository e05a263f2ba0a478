"""The minimum of a quadratic plus an L1 norm, against coordinate descent and the conditions for it."""

import pytest
import torch

from skl_softmax.objective.quadratic import DenseModel
from skl_softmax.solvers.orthants import minimise_on_orthants

P = 12


def problem(seed, rank=P, penalty=0.5):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(rank, P, dtype=torch.float64, generator=generator)
    matrix = root.T @ root
    # In the range of the matrix, without which there is no minimum where nothing is penalised.
    gradient = matrix @ torch.randn(P, dtype=torch.float64, generator=generator)
    l1 = penalty * torch.rand(P, dtype=torch.float64, generator=generator)
    l1[0] = 0.0  # as for an intercept
    theta = torch.randn(P, dtype=torch.float64, generator=generator) * (torch.arange(P) % 3 > 0)
    return matrix, gradient, l1, theta


def by_coordinates(matrix, gradient, l1, theta, sweeps=20_000):
    """Cyclic coordinate descent, element by element."""
    v = theta.clone()
    for _ in range(sweeps):
        before = v.clone()
        for j in range(P):
            slope = (gradient + matrix @ (v - theta))[j]
            goal = v[j] - slope / matrix[j, j]
            v[j] = goal.sign() * (goal.abs() - l1[j] / matrix[j, j]).clamp_min(0)
        if (v - before).abs().max() < 1e-14:
            break
    return v


def value(v, matrix, gradient, l1, theta):
    step = v - theta
    return gradient @ step + 0.5 * step @ matrix @ step + l1 @ v.abs()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("penalty", [0.1, 5.0, 50.0])
def test_minimum_is_that_of_coordinate_descent(seed, penalty):
    matrix, gradient, l1, theta = problem(seed, penalty=penalty)
    found, decrease = minimise_on_orthants(DenseModel(matrix, torch.arange(P)), gradient, l1, theta, 1e-12)
    expected = by_coordinates(matrix, gradient, l1, theta)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert ((found == 0) == (expected == 0)).all()
    gained = value(theta, matrix, gradient, l1, theta) - value(found, matrix, gradient, l1, theta)
    assert decrease == pytest.approx(gained.item(), rel=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_conditions_hold_where_the_matrix_is_singular(seed):
    matrix, gradient, l1, theta = problem(seed, rank=5, penalty=2.0)
    found, _ = minimise_on_orthants(DenseModel(matrix.clone(), torch.arange(P)), gradient, l1, theta, 1e-12)
    slopes = gradient + matrix @ (found - theta)
    size = gradient.abs().max()
    assert (slopes.abs() <= l1 + 1e-7 * size).all()
    nonzero = found != 0
    torch.testing.assert_close(slopes[nonzero], -(l1 * found.sign())[nonzero], rtol=0, atol=1e-7 * size.item())


def test_the_minimum_itself_is_left_alone():
    matrix, gradient, l1, theta = problem(0, penalty=1.0)
    found = by_coordinates(matrix, gradient, l1, theta)
    slopes = gradient + matrix @ (found - theta)
    _, decrease = minimise_on_orthants(DenseModel(matrix, torch.arange(P)), slopes, l1, found, 1e-12)
    assert decrease < 1e-14


@pytest.mark.parametrize("seed", range(10))
def test_no_system_is_solved_again_where_the_face_is_least(seed, calls_of):
    """Near-singular systems promise ever more of the same rounding, which used to cost a hundred systems."""
    matrix, _, l1, theta = problem(seed, rank=5)
    model = DenseModel(matrix, torch.arange(P))
    systems = calls_of(model, "solve")
    gradient = -l1 * theta.sign() - 1e-9 * matrix @ theta.abs()  # a step that changes no sign
    minimise_on_orthants(model, gradient, l1, theta, 0.0)
    assert len(systems) == 1


def test_formula_of_bfgs_makes_the_model_agree_with_the_step():
    matrix, gradient, _, theta = problem(1)
    model = DenseModel(torch.eye(P, dtype=torch.float64), torch.arange(P))
    change = matrix @ gradient
    model.update(gradient, change)
    torch.testing.assert_close(model.multiply(gradient), change)
    before = model.multiply(theta)
    model.update(gradient, -change)  # no curvature: rounding
    torch.testing.assert_close(model.multiply(theta), before)
