"""The minimum of a quadratic plus an L1 norm, against coordinate descent and the conditions for it."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar

from skl_softmax.objective.quadratic import DenseModel
from skl_softmax.solvers.orthants import minimise_on_orthants
from skl_softmax.solvers.shifts import NO_SHIFTS, Shifts

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
    found, decrease = minimise_on_orthants(DenseModel(matrix, torch.arange(P)), gradient, l1, theta, 1e-12, NO_SHIFTS)
    expected = by_coordinates(matrix, gradient, l1, theta)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert ((found == 0) == (expected == 0)).all()
    gained = value(theta, matrix, gradient, l1, theta) - value(found, matrix, gradient, l1, theta)
    assert decrease == pytest.approx(gained.item(), rel=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_conditions_hold_where_the_matrix_is_singular(seed):
    matrix, gradient, l1, theta = problem(seed, rank=5, penalty=2.0)
    found, _ = minimise_on_orthants(DenseModel(matrix.clone(), torch.arange(P)), gradient, l1, theta, 1e-12, NO_SHIFTS)
    slopes = gradient + matrix @ (found - theta)
    size = gradient.abs().max()
    assert (slopes.abs() <= l1 + 1e-7 * size).all()
    nonzero = found != 0
    torch.testing.assert_close(slopes[nonzero], -(l1 * found.sign())[nonzero], rtol=0, atol=1e-7 * size.item())


def test_the_minimum_itself_is_left_alone():
    matrix, gradient, l1, theta = problem(0, penalty=1.0)
    found = by_coordinates(matrix, gradient, l1, theta)
    slopes = gradient + matrix @ (found - theta)
    _, decrease = minimise_on_orthants(DenseModel(matrix, torch.arange(P)), slopes, l1, found, 1e-12, NO_SHIFTS)
    assert decrease < 1e-14


@pytest.mark.parametrize("seed", range(10))
def test_no_system_is_solved_again_where_the_face_is_least(seed, calls_of):
    """Near-singular systems promise ever more of the same rounding, which used to cost a hundred systems."""
    matrix, _, l1, theta = problem(seed, rank=5)
    model = DenseModel(matrix, torch.arange(P))
    systems = calls_of(model, "solve")
    gradient = -l1 * theta.sign() - 1e-9 * matrix @ theta.abs()  # a step that changes no sign
    minimise_on_orthants(model, gradient, l1, theta, 0.0, NO_SHIFTS)
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


def softmax_problem(seed, n_classes, l2):
    """A Hessian of softmax regression, which has no curvature along what all classes have in common, and an L1 norm."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(30, 4, dtype=torch.float64, generator=generator)
    proba = torch.randn(30, n_classes, dtype=torch.float64, generator=generator).softmax(dim=1)
    of_row = torch.diag_embed(proba) - proba[:, :, None] * proba[:, None]  # (n, K, K)
    matrix = torch.einsum("nkl,ni,nj->kilj", of_row, X, X).reshape(4 * n_classes, -1) / 30
    gradient = matrix @ torch.randn(len(matrix), dtype=torch.float64, generator=generator)  # of the loss
    theta = torch.randn(len(matrix), dtype=torch.float64, generator=generator)
    theta = torch.where(theta.abs() < 0.5, 0.0, theta)
    matrix += l2 * torch.eye(len(matrix), dtype=torch.float64)
    l1 = torch.full_like(theta, 0.02)
    of_columns = torch.arange(len(matrix)).view(n_classes, 4)
    l2s = torch.full_like(l1[:4], l2)
    shifts = Shifts(of_columns, theta[of_columns], l1[:4], l2s, torch.zeros_like(l2s), l2s < 1e-4)
    return matrix, gradient + l2 * theta, l1, theta, shifts


class Products(DenseModel):
    """A matrix with which systems are solved about as well as conjugate gradients do."""

    solves_exactly = False

    def solve(self, free, right):
        return (1 + 1e-3) * super().solve(free, right)


@pytest.mark.parametrize("kind", [DenseModel, Products])
@pytest.mark.parametrize("l2", [0.0, 1e-6, 0.02])
@pytest.mark.parametrize("n_classes", [3, 4, 7])
@pytest.mark.parametrize("seed", range(3))
def test_minimum_where_classes_have_a_direction_without_curvature_in_common(seed, n_classes, l2, kind, calls_of):
    matrix, gradient, l1, theta, shifts = softmax_problem(seed, n_classes, l2)
    model = kind(matrix, torch.arange(len(matrix)))
    systems = calls_of(model, "solve")
    found, decrease = minimise_on_orthants(model, gradient, l1, theta, 1e-9, shifts)
    assert len(systems) <= 25
    assert (found.view(n_classes, 4) == 0).any(dim=0).all() or n_classes % 2 == 0 or l2 > 0  # the median
    gained = value(theta, matrix, gradient, l1, theta) - value(found, matrix, gradient, l1, theta)
    assert decrease == pytest.approx(gained.item(), rel=1e-9)

    def split(z):  # v is a difference of numbers that are not negative
        v = z[: len(matrix)] - z[len(matrix) :]
        slopes = gradient.numpy() + matrix.numpy() @ (v - theta.numpy())
        norm = l1.numpy() @ (z[: len(matrix)] + z[len(matrix) :])
        smooth = (gradient.numpy() + slopes) @ (v - theta.numpy()) / 2
        return smooth + norm, np.concatenate([slopes + l1.numpy(), l1.numpy() - slopes])

    end = np.concatenate([found.clamp_min(0), (-found).clamp_min(0)])
    start = end + 0.01
    options = {"ftol": 0, "gtol": 1e-12, "maxiter": 5000, "maxfun": 10_000}
    better = minimize(split, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start), options=options)
    assert better.fun < split(start)[0]
    assert split(end)[0] - better.fun <= 1e-8 * decrease


@pytest.mark.parametrize("n_classes", [3, 4, 10])
@pytest.mark.parametrize("l2", [0.0, 0.1, 10.0])
@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_shifts_lead_to_the_least_penalty(n_classes, l2, ridge):
    generator = torch.Generator().manual_seed(n_classes)
    v, theta = torch.randn(2, n_classes, 20, dtype=torch.float64, generator=generator)
    v = torch.where(v.abs() < 0.5, 0.0, v)
    one = torch.ones(20, dtype=torch.float64)
    index = torch.arange(n_classes * 20).view(n_classes, 20)
    found = Shifts(index, theta, one, l2 * one, ridge * one, one == 0).shifted(v.flatten()).view_as(v)
    shift = v - found
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), rtol=0, atol=1e-14)

    def penalty(c, j):
        rest = v[:, j] - c
        return (rest.abs() + l2 / 2 * rest**2 + ridge / 2 * (rest - theta[:, j]) ** 2).sum().item()

    for j in range(20):
        least = minimize_scalar(penalty, args=(j,), bounds=(-5, 5), options={"xatol": 1e-10})
        assert penalty(shift[0, j].item(), j) <= least.fun + 1e-12
