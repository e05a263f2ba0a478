"""F, its gradient and its curvature against autograd, finite differences and naive formulas."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch
from torch.nn import functional

from skl_softmax.data import DenseData
from skl_softmax.data import dense as data_module
from skl_softmax.objective import Objective, costs
from skl_softmax.objective.batches import Batch, BatchedObjective, SmallBatch, SmallChunk
from skl_softmax.objective.curvature import hessian
from skl_softmax.objective.losses import apart, loss_for
from skl_softmax.objective.metrics import dense_metric, diagonal_metric, kronecker_metric
from skl_softmax.objective.small import SmallObjective, is_small
from skl_softmax.objective.tiny import TinyObjective, is_tiny

N, D = 40, 4


def make_objective(
    n_outputs=3, fit_intercept=True, C=(1.0,), standardised=True, dtype=torch.float64, seed=0, kind=Objective
):
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.normal(size=(N, D)) * [0.1, 1, 10, 1] + [0, 3, -20, 0]).to(dtype)
    targets = torch.from_numpy(rng.integers(max(n_outputs, 2), size=N))
    weights = torch.from_numpy(rng.uniform(0.1, 2, size=(1, N))).to(dtype)
    rows = DenseData.standardised(X, fit_intercept) if standardised else DenseData.raw(X, fit_intercept, dtype)
    total = weights.sum(dim=1, dtype=torch.float64).expand(len(C))
    return kind(
        data=rows,
        targets=targets.to(dtype) if n_outputs == 1 else targets,
        weights=weights,
        l2=1 / (torch.tensor(C, dtype=torch.float64) * total),
        n_outputs=n_outputs,
        total=total,
    )


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("l1", [None, torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)], ids=["l2", "l1"])
@pytest.mark.parametrize("kind", [Objective, SmallObjective, TinyObjective])
def test_other_penalties_and_fewer_models(kind, l1, n_outputs):
    # What has been made of the rows goes on to them.
    used = replace(make_objective(n_outputs, C=(0.1, 1.0, 10.0), kind=kind), is_family=True)
    theta, index = draw(used), torch.tensor([2, 0])
    used.at(theta)
    fresh = replace(make_objective(n_outputs, C=(5.0, 2.0, 0.3), kind=kind), l1=l1, is_family=True)
    other = used.with_penalties(fresh.l2, l1)
    assert any(name in vars(other) for name in used._of_rows)
    assert_same(other, fresh, theta)
    assert_same(other.select(index), fresh.select(index), theta[index])


def assert_same(found, expected, theta):
    points = found.at(theta), expected.at(theta)
    torch.testing.assert_close(*((point.value, point.gradient) for point in points), rtol=1e-14, atol=1e-14)
    vector = expected.centred(draw(expected, seed=1))
    torch.testing.assert_close(found.inverse_hessian(theta)(vector), expected.inverse_hessian(theta)(vector))


def draw(objective, seed=0):
    shape = objective.n_models, objective.n_outputs, objective.data.n_columns
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(objective.data.dtype)


def naive(objective, theta):
    """F of the first model from its definition, on X as the user gave it, differentiable."""
    weight, bias = objective.data.from_theta(theta[0])
    logits = objective.data.X @ weight.T + bias  # (n, K)
    if objective.n_outputs == 1:
        loss = functional.binary_cross_entropy_with_logits(logits[:, 0], objective.targets, reduction="none")
    else:
        loss = functional.cross_entropy(logits, objective.targets, reduction="none")
    weights = objective.weights[0]
    return (weights @ loss) / weights.sum() + 0.5 * objective.l2[0] * weight.square().sum()


CASES = pytest.mark.parametrize(
    ("n_outputs", "fit_intercept", "C"),
    [(1, True, 1.0), (1, False, np.inf), (3, True, np.inf), (3, False, 0.1), (6, True, 10.0)],
)
KINDS = pytest.mark.parametrize("kind", [Objective, SmallObjective, TinyObjective])


@CASES
@KINDS
@pytest.mark.parametrize("standardised", [True, False])
def test_value_and_derivatives_equal_autograd(n_outputs, fit_intercept, C, standardised, kind):
    objective = make_objective(n_outputs, fit_intercept, (C,), standardised, kind=kind)
    theta, direction = draw(objective), draw(objective, seed=1)
    # On raw columns the logits reach 60, and derivatives of the formula lose as many digits.
    close = {"rtol": 1e-10, "atol": 1e-10}
    point = objective.at(theta)
    torch.testing.assert_close(point.value[0], naive(objective, theta), **close)
    gradient = torch.autograd.functional.jacobian(lambda t: naive(objective, t), theta)
    torch.testing.assert_close(point.gradient, gradient, **close)
    exact = torch.autograd.functional.hessian(lambda t: naive(objective, t), theta).reshape(objective.n_parameters, -1)
    product = (exact @ direction.flatten()).view_as(direction)
    torch.testing.assert_close(objective.hessian_product(theta)(direction), product, **close)
    # The matrix has curvature added along 1 ⊗ v; what it is for, directions that sum to zero over classes, must agree.
    tangent = objective.centred(direction)
    by_matrix = (hessian(objective, theta)[0] @ tangent.flatten()).view_as(tangent)
    torch.testing.assert_close(by_matrix, objective.hessian_product(theta)(tangent), **close)


@pytest.mark.parametrize("n_outputs", [1, 3])
@KINDS
def test_other_penalties_need_no_pass(n_outputs, kind):
    before = make_objective(n_outputs, C=(1.0, 10.0), kind=kind)
    after = replace(before, l2=before.l2 * torch.tensor([0.1, 30.0]))
    theta = draw(before)
    found, expected = after.from_other(before, before.at(theta), theta), after.at(theta)
    torch.testing.assert_close(found.value, expected.value, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("are_proba", [True, False])
def test_a_loss_alone_is_that_with_its_derivative(n_outputs, are_proba):
    logits = 100 * torch.randn(2, n_outputs, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if n_outputs == 1 or are_proba:
        targets = torch.softmax(0.1 * logits[:1], dim=1) if n_outputs > 1 else torch.rand(1, 1, N, dtype=torch.float64)
    else:
        targets = torch.arange(N)[None, None] % n_outputs
    before, loss = logits.clone(), loss_for(n_outputs)
    torch.testing.assert_close(loss.value(logits, targets), loss.value_and_residual(logits, targets)[0])
    torch.testing.assert_close(logits, before, rtol=0, atol=0)


@pytest.mark.parametrize("n_outputs", [1, 3, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_residuals_are_known_to_rounding_of_themselves(n_outputs, dtype):
    # Of whole numbers, so that what is seen is the loss's own rounding; from log p it was all of ℓ where rows are told
    # apart.
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-20, 21, (1, n_outputs, N), generator=generator).to(dtype)
    targets = torch.randint(0, max(2, n_outputs), (1, 1, N), generator=generator)
    if n_outputs == 1:
        logits += 40 * targets
        own, others, targets = targets * logits, (1 - targets) * logits, targets.to(dtype)
        factor = 1 - 2 * targets.numpy()
    else:
        logits.scatter_add_(1, targets, torch.full(targets.shape, 40, dtype=dtype))
        own, others, factor = logits.gather(1, targets), logits.scatter(1, targets, -inf), 1.0
    odds = np.exp(others.numpy().astype(np.longdouble) - own.numpy())  # of other classes
    total = odds.sum(axis=1, keepdims=True)
    residual = factor * odds / (1 + total)
    if n_outputs > 1:
        np.put_along_axis(residual, targets.numpy(), -total / (1 + total), axis=1)
    assert total.min() < torch.finfo(dtype).eps
    value, derivative = loss_for(n_outputs).value_and_residual(logits, targets)
    rounding = 8 * torch.finfo(dtype).eps
    np.testing.assert_allclose(value, np.log1p(total).astype(float), rtol=rounding, atol=0)
    np.testing.assert_allclose(derivative, residual.astype(float), rtol=rounding, atol=0)


@pytest.mark.parametrize("kind", ["labels", "smoothed", "probabilities"])
def test_gradients_of_classes_without_rows_in_float32(kind):
    # What rounding has added to the classes is not shared out to one whose gradient is 1e-13 of theirs.
    objective, last = make_objective(C=(np.inf,)), torch.tensor([0.0, 0.0, -30.0], dtype=torch.float64)
    targets = objective.targets.clamp_max(1)
    if kind == "smoothed":
        label_proba = torch.tensor([[0.9, 0.1, 0], [0.1, 0.9, 0], [0.0, 0, 1]], dtype=torch.float64)
        objective = replace(objective, targets=targets, label_proba=label_proba)
    else:
        proba = functional.one_hot(targets, 3).double()
        objective = replace(objective, targets=proba if kind == "probabilities" else targets)
    theta = draw(objective)
    theta[..., -1] += last
    exact, found = objective.at(theta).gradient, objective.in_float32.at(theta.float()).gradient
    torch.testing.assert_close(found[0, 2].double(), exact[0, 2], rtol=1e-4, atol=0)
    assert exact.sum(dim=1).abs().max() <= torch.finfo(exact.dtype).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sigmoids_loss_of_rows_that_are_far_on_the_wrong_side(dtype):
    logits = torch.linspace(15, 45, N, dtype=dtype)[None, None]
    loss, expected = loss_for(1), torch.from_numpy(np.logaddexp(0.0, logits.double().numpy()))
    rounding = 2 * torch.finfo(dtype).eps
    for value in (loss.value, lambda *args: loss.value_and_residual(*args)[0]):
        torch.testing.assert_close(value(logits, 0 * logits).double(), expected, rtol=rounding, atol=0)


def changes_of(objective, direction):
    """How far rows move, (M, n)."""
    return apart(direction @ objective.data.design(slice(0, N)).T)


@pytest.mark.parametrize("n_outputs", [1, 3])
@KINDS
def test_rows_that_a_step_moves_far(n_outputs, kind):
    objective = make_objective(n_outputs, C=(1.0, 10.0), kind=kind)
    weights = objective.weights.repeat(2, 1)
    weights[0, ::2] = 0.0
    objective, direction = replace(objective, weights=weights), draw(objective)
    theta, changes = draw(objective, seed=1), changes_of(objective, direction)
    limit = changes.quantile(0.9, dim=1)
    expected = (changes >= limit[:, None]) & (weights > 0)
    torch.testing.assert_close(objective.far_rows(theta, direction, limit), expected)
    others = objective.without_far(theta, direction, limit)
    known = replace(objective, weights=torch.where(expected, 0.0, weights)).at(theta)
    torch.testing.assert_close(others.at(theta).value, known.value)
    torch.testing.assert_close(others.at(theta).gradient, known.gradient)
    assert objective.without_far(theta, direction, torch.tensor([0.0, torch.inf])) is None  # none is left in one model


@KINDS
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_rows_do_not_move_along_outputs_that_stay_impossible(n_outputs, kind):
    objective = make_objective(n_outputs, C=(1.0,), kind=kind)
    sign = torch.tensor([1.0, -1.0, -1.0] if n_outputs == 3 else [1.0], dtype=torch.float64)[:, None]  # (K, 1)
    intercept = torch.zeros(objective.data.n_columns, dtype=torch.float64)
    intercept[-1] = 1.0
    theta, direction, limit = 100 * (sign * intercept)[None], (sign * intercept)[None], torch.ones(1)
    assert not objective.far_rows(theta, direction, limit).any()
    assert not objective.far_rows(theta, -direction, limit).any()
    assert objective.far_rows(theta, -90 * direction, limit).all()  # possible after
    assert objective.far_rows(0.1 * theta, direction, limit).all()  # and before
    assert objective.far_rows(theta, -2 * theta, limit).all()  # on the other side
    if n_outputs == 3:
        others = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)[:, None] * intercept
        assert not objective.far_rows(theta, others[None], limit).any()


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("keeps", [True, False])
@KINDS
def test_rows_move_no_farther_than_the_sizes_of_the_columns_let_them(n_outputs, keeps, kind, monkeypatch):
    monkeypatch.setattr(costs, "BOUND_OUTPUTS", 1)
    objective = make_objective(n_outputs, C=(1.0, 10.0), kind=kind)
    X = objective.data.X.clone()
    X[11, 2] = 1e6  # which the scale does not know
    if kind is Objective:
        objective = replace(objective, data=replace(objective.data, X=X, may_keep=keeps))
    for seed in range(5):
        direction = draw(objective, seed)
        largest, bound = changes_of(objective, direction).amax(dim=1), objective.change_at_most(direction)
        assert ((largest <= bound) & (bound <= 5 * largest)).all()
        theta = torch.zeros_like(direction)
        assert objective.moves_apart(theta, direction, 0.999 * largest).all()
        assert not objective.moves_apart(theta, direction, 1.001 * largest).any()


def test_few_logits_are_as_soon_known_as_the_sizes_of_columns():
    objective = make_objective(3)
    assert objective.change_at_most(draw(objective)).isinf().all()


@CASES
def test_gradient_equals_a_five_point_stencil(n_outputs, fit_intercept, C):
    objective = make_objective(n_outputs, fit_intercept, (C,))
    theta, direction = draw(objective), draw(objective, seed=1)
    h = 1e-3  # the stencil's error is of order h⁴
    value = [objective.at(theta + step * h * direction).value for step in (-2, -1, 1, 2)]
    stencil = (value[0] - 8 * value[1] + 8 * value[2] - value[3]) / (12 * h)
    slope = (objective.at(theta).gradient * direction).sum()
    torch.testing.assert_close(stencil[0], slope, rtol=1e-8, atol=1e-9)


@CASES
@KINDS
def test_hessian_is_definite_and_its_inverse_inverts_it(n_outputs, fit_intercept, C, kind):
    objective = make_objective(n_outputs, fit_intercept, (C,), kind=kind)
    theta, vector = draw(objective), objective.centred(draw(objective, seed=1))
    matrix = hessian(objective, theta)[0]
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix)[0] > 0
    solved = objective.inverse_hessian(theta)(vector)
    torch.testing.assert_close((matrix @ solved.flatten()).view_as(vector), vector)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_singular_hessian_of_a_small_table_still_gives_a_direction(n_outputs):
    objective = make_objective(n_outputs, C=(np.inf,), kind=TinyObjective)
    saturated = 1e4 * draw(objective)
    assert objective.inverse_hessian(saturated)(draw(objective, seed=1)).isfinite().all()


def test_what_is_small():
    data = make_objective().data
    assert is_tiny(data, 1, 3)
    assert is_small(data, 1000)
    assert not is_tiny(data, 1, 1000)
    assert is_tiny(data, 1, 120)
    assert not is_tiny(data, 5, 120)  # of several models fewer are
    assert not is_small(data, 10**6)
    assert not is_small(make_objective(dtype=torch.float32, standardised=False).data, 3)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("are_proba", [False, True])
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_losses_of_small_tables_are_those_of_all_others(n_outputs, are_proba, size):
    other, small = (make_objective(n_outputs, C=(0.1, 10.0), kind=kind) for kind in (Objective, SmallObjective))
    if are_proba:
        proba = np.random.default_rng(0).dirichlet(np.ones(max(n_outputs, 2)), size=N)
        targets = torch.from_numpy(proba if n_outputs > 1 else proba[:, 1])
        other, small = (replace(objective, targets=targets) for objective in (other, small))
    theta, direction = size * draw(other), draw(other, seed=1)
    found, expected = small.at(theta), other.at(theta)
    torch.testing.assert_close(found.value, expected.value, rtol=1e-14, atol=0.0)
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(small.hessian_product(theta)(direction), other.hessian_product(theta)(direction))
    limit = changes_of(other, direction).quantile(0.9, dim=1)
    torch.testing.assert_close(small.far_rows(theta, direction, limit), other.far_rows(theta, direction, limit))


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_small_tables_know_losses_to_rounding_of_themselves(n_outputs):
    """Also where rows are told apart: from 1 - p they were known to rounding of 1, which is all of them there."""
    small = make_objective(n_outputs, C=(np.inf,), kind=SmallObjective)
    theta = torch.zeros(1, n_outputs, D + 1, dtype=torch.float64)
    theta[0, -1, -1] = 40.0
    own = small.targets == max(n_outputs - 1, 1)
    small = replace(small, weights=small.weights * own)
    loss = np.log1p((max(n_outputs, 2) - 1) * np.exp(-40.0))  # of each row
    point = small.at(theta)
    torch.testing.assert_close(point.value, loss * small.weights.sum() / small.total, rtol=1e-14, atol=0.0)
    torch.testing.assert_close(point.gradient[0, -1, -1], -point.value[0], rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("batch_size", [None, 1, 7])
@pytest.mark.parametrize("n_outputs", [1, 4])
def test_smoothness_bounds_the_change_of_the_gradient(n_outputs, batch_size):
    objective = make_objective(n_outputs, standardised=False, kind=BatchedObjective)
    smoothness, bound = objective.smoothness(batch_size)[0], 0.25 if n_outputs == 1 else 0.5
    design, shares = objective.data.design(slice(N)).numpy(), (objective.weights[0] / objective.total).numpy()
    whole = bound * np.linalg.eigvalsh((design * shares[:, None]).T @ design)[-1]
    if batch_size is None:
        assert smoothness == pytest.approx(whole)
        a, b = draw(objective, 0), draw(objective, 1)
        change = (objective.at(a).gradient - objective.at(b).gradient).norm()
        assert change <= (smoothness + objective.largest_l2[0]) * (a - b).norm()
    else:
        single = bound * (N * shares * (design**2).sum(axis=1)).max()
        part = N * (batch_size - 1) / (batch_size * (N - 1))  # Gower et al. (2019), eq. 33
        assert smoothness == pytest.approx(part * whole + (N - batch_size) / (batch_size * (N - 1)) * single)
        assert whole < smoothness <= single * (1 + 1e-12)


def test_the_penalty_bends_columns_that_have_one():
    objective = make_objective(standardised=False, kind=BatchedObjective)
    assert objective.largest_l2[0] == objective.l2[0]


@pytest.mark.parametrize("n_outputs", [1, 4])
def test_blocks_do_not_matter(n_outputs, monkeypatch):
    theta = draw(make_objective(n_outputs))
    whole = make_objective(n_outputs).at(theta)
    for n_rows in (1, 2, 7):
        monkeypatch.setattr(data_module, "BLOCK_BYTES", n_rows * max(D + 1, 2 * n_outputs) * 8)
        objective = make_objective(n_outputs)
        assert len(list(objective.data.blocks(n_outputs))) == -(-N // n_rows)
        torch.testing.assert_close(objective.at(theta).value, whole.value)
        torch.testing.assert_close(objective.at(theta).gradient, whole.gradient)


@KINDS
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_stack_is_its_models_one_by_one(n_outputs, kind):
    Cs = (0.01, 1.0, np.inf)
    stack = make_objective(n_outputs, C=Cs, kind=kind)
    theta, vector = draw(stack), draw(stack, seed=1)
    for i, C in enumerate(Cs):
        single, one = make_objective(n_outputs, C=(C,), kind=kind), slice(i, i + 1)
        selected = stack.select(torch.tensor([i]))
        for objective in (single, selected):
            torch.testing.assert_close(objective.at(theta[one]).value, stack.at(theta).value[one])
            torch.testing.assert_close(objective.at(theta[one]).gradient, stack.at(theta).gradient[one])
            for make in (dense_metric, kronecker_metric, diagonal_metric):
                solved = make(objective, theta[one])(vector[one])
                # Without a penalty a tiny one stands in, which costs half of the digits.
                torch.testing.assert_close(solved, make(stack, theta)(vector)[one], rtol=1e-6, atol=1e-6)
            inverse = objective.inverse_hessian(theta[one])(vector[one])
            torch.testing.assert_close(inverse, stack.inverse_hessian(theta)(vector)[one])


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_batches_are_unbiased(n_outputs):
    objective = make_objective(n_outputs, standardised=False, kind=BatchedObjective)
    theta = draw(objective)
    generator = torch.Generator().manual_seed(0)
    shares, batches = zip(*objective.batches(7, generator), strict=True)
    np.testing.assert_allclose(shares, [7 / N] * (N // 7) + [N % 7 / N])
    values = torch.cat([batch.at(theta).value for batch in batches])
    torch.testing.assert_close(torch.tensor(shares, dtype=torch.float64) @ values, objective.at(theta).value[0])


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("standardised", [True, False])
def test_small_batches_are_batches(n_outputs, dtype, standardised):
    objective = make_objective(n_outputs, standardised=standardised, dtype=dtype, kind=BatchedObjective)
    theta, rows, total = draw(objective).to(objective.dtype), slice(3, 12), torch.tensor([7.0], dtype=torch.float64)
    chunk = SmallChunk(objective, torch.arange(N), objective.data.row_memory(N))
    found, expected = SmallBatch(chunk, rows, total.item()).at(theta), Batch(objective, rows, total).at(theta)
    tolerance = {"rtol": 1e-12, "atol": 1e-14} if objective.dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found.value, expected.value, **tolerance)
    torch.testing.assert_close(found.gradient, expected.gradient, **tolerance)


@pytest.mark.parametrize(
    ("kind", "dtype"), [(Objective, torch.float64), (Objective, torch.float32), (TinyObjective, torch.float64)]
)
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_extreme_logits_give_finite_losses_and_derivatives(n_outputs, size, kind, dtype):
    objective = make_objective(n_outputs, standardised=False, dtype=dtype, C=(np.inf,), kind=kind)
    theta = size * draw(objective)
    point = objective.at(theta)
    assert point.value.dtype == torch.float64
    assert point.value.isfinite().all()
    assert point.gradient.isfinite().all()
    assert hessian(objective, theta.double()).isfinite().all()


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_overflow_in_a_small_table_is_silent(n_outputs):
    objective = make_objective(n_outputs, kind=TinyObjective)
    with np.errstate(all="raise"):  # as a user may have it
        assert not objective.at(1e200 * draw(objective) * 1e200).value.isfinite().any()


def test_shifting_all_classes_leaves_the_loss():
    objective = make_objective(4, C=(np.inf,))
    theta = draw(objective)
    shifted = theta + torch.arange(5.0, dtype=torch.float64)
    torch.testing.assert_close(objective.at(shifted).value, objective.at(theta).value)
    torch.testing.assert_close(objective.centred(shifted), objective.centred(theta))


def test_a_sample_is_spread_over_all_rows_and_always_the_same():
    objective = make_objective(3)
    sample = objective.sample(10)
    assert sample.n_rows == 10
    torch.testing.assert_close(sample.data.X, objective.sample(10).data.X)
    theta = draw(objective)
    # λ is that of all rows, so the formula holds with the sample's rows and weights.
    torch.testing.assert_close(sample.at(theta).value[0], naive(sample, theta))
    assert objective.sample(N) is objective


def test_float32_products_are_those_of_float64_to_float32(monkeypatch):
    monkeypatch.setattr(costs, "narrow_pays", lambda *_: True)
    for n_outputs in (1, 3):
        objective = make_objective(n_outputs)
        theta, narrow = draw(objective), objective.narrow()
        assert narrow.data.dtype == torch.float32
        torch.testing.assert_close(narrow.at(theta).value, objective.at(theta).value, rtol=1e-5, atol=0)
        torch.testing.assert_close(narrow.at(theta).gradient, objective.at(theta).gradient, rtol=1e-4, atol=1e-5)


def test_float32_is_refused_where_it_would_overflow(monkeypatch):
    monkeypatch.setattr(costs, "narrow_pays", lambda *_: True)
    objective = make_objective(3)
    objective.data.scale[0] = 1e20
    assert objective.narrow() is objective


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("kind", [SmallObjective, TinyObjective])
def test_small_tables_tell_what_float32_loses(n_outputs, kind):
    """Of parts elsewhere, that are not small, a small sample tells it."""
    other, small = (make_objective(n_outputs, kind=kind) for kind in (Objective, kind))
    theta = draw(other)
    (expected, _), (found, _) = other.rounding(theta), small.rounding(theta)
    assert expected.gradient.abs().max() > 1e-9
    torch.testing.assert_close(found.value, expected.value, rtol=1e-6, atol=1e-14)
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-6, atol=1e-14)
