"""The metrics against the Hessian that they stand for."""

from dataclasses import replace
from itertools import product
from math import inf

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.preprocessing import OneHotEncoder
from test_objective import draw, make_objective

from skl_softmax import TorchSoftmaxClassifier
from skl_softmax.data import csr_tensor, raw, standardised
from skl_softmax.inputs import check_training_rows
from skl_softmax.objective import curvature, metrics
from skl_softmax.objective.curvature import hessian, inverse, loss_hessian, narrow_inverse
from skl_softmax.objective.metrics import (
    class_metric,
    dense_metric,
    diagonal_metric,
    draw_columns,
    kronecker_metric,
    make_metric,
)
from skl_softmax.training import make_objective as make_problem_objective


def applied(objective, theta, solve, vector):
    """H M v, v again if M is the inverse of H."""
    return (hessian(objective, theta)[0] @ solve(vector).flatten()).view_as(vector)


@pytest.mark.parametrize("n_outputs", [1, 3, 6])
@pytest.mark.parametrize("C", [1.0, float("inf")])
def test_dense_metric_of_all_rows_is_the_inverse(n_outputs, C, monkeypatch):
    objective = make_objective(n_outputs, C=(C,))
    theta, vector = draw(objective), draw(objective, seed=1)
    torch.testing.assert_close(applied(objective, theta, dense_metric(objective, theta), vector), vector)
    monkeypatch.setattr(curvature, "NARROW_WORK", objective.n_rows * objective.n_parameters**2)
    narrow = dense_metric(objective, theta)
    assert narrow.factors[0].dtype == torch.float32
    torch.testing.assert_close(applied(objective, theta, narrow, vector), vector, rtol=1e-4, atol=1e-4)
    wide = dense_metric(objective, theta, dtype=torch.float64)
    torch.testing.assert_close(applied(objective, theta, wide, vector), vector)


@pytest.mark.parametrize("n_outputs", [1, 4])
@pytest.mark.parametrize("size", [1.0, 1e38])
def test_dense_metric_is_in_float64_where_float32_is_not_enough(n_outputs, size, monkeypatch):
    # Where columns nearly agree, or where weights overflow.
    objective = make_objective(n_outputs, C=(float("inf"),))
    X = objective.data.X.clone()
    if size == 1:
        X[:, 1] = X[:, 0] + 1e-4 * X[:, 1]
    data = standardised(X, fit_intercept=True)
    objective = replace(objective, data=data, weights=size * objective.weights, total=size * objective.total)
    theta, vector = draw(objective), draw(objective, seed=1)
    monkeypatch.setattr(curvature, "NARROW_WORK", 0)
    assert narrow_inverse(hessian(objective, theta, torch.float32)) is None
    expected = inverse(hessian(objective, theta))(vector)
    torch.testing.assert_close(dense_metric(objective, theta)(vector), expected, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("n_outputs", [1, 3, 6])
@pytest.mark.parametrize("C", [0.5, inf])
def test_kronecker_metric_is_exact_at_zero(n_outputs, C):
    objective = make_objective(n_outputs, C=(C,))
    theta = torch.zeros_like(draw(objective))
    vector = objective.centred(draw(objective, seed=1))
    solve = kronecker_metric(objective, theta)
    torch.testing.assert_close(applied(objective, theta, solve, vector), vector, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_kronecker_metric_at_zero_is_what_it_is_next_to_zero(n_outputs):
    objective = make_objective(n_outputs, C=(0.1, 10.0))  # which have the weights of the rows in common
    theta, vector = torch.zeros_like(draw(objective)), objective.centred(draw(objective, seed=1))
    next_to_zero = kronecker_metric(objective, theta + 1e-9)(vector)
    torch.testing.assert_close(kronecker_metric(objective, theta)(vector), next_to_zero, rtol=1e-5, atol=1e-5)


def test_kronecker_metric_at_zero_leaves_columns_of_zeros_alone():
    objective = make_objective(3, C=(inf,))
    X = objective.data.X.clone()
    X[:, 1] = 0.0
    objective = replace(objective, data=standardised(X, fit_intercept=True))
    vector = objective.centred(draw(objective, seed=1))
    assert kronecker_metric(objective, torch.zeros_like(vector))(vector).isfinite().all()


def by_classes(objective, theta):
    """The metric by classes, from as many rows as there are columns."""
    return class_metric(objective, theta, objective.data.n_columns, objective.n_rows)


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
    exact = loss_hessian(objective, theta)[0].diagonal().view_as(diagonal) + objective.column_l2
    torch.testing.assert_close(diagonal, exact)


@pytest.mark.parametrize("n_classes", [2, 3, 6])
@pytest.mark.parametrize("n_levels", [2, 5])
@pytest.mark.parametrize("n_categories", [1, 4, 16])
@pytest.mark.parametrize("C", [1.0, 1e4])
@pytest.mark.parametrize("drops", [False, True])
def test_least_eigenvalues_in_a_diagonal_metric_are_bounded(n_classes, n_levels, n_categories, C, drops):
    """One-hot columns add up to the intercept's; and the metric may be that of another θ."""
    rng = np.random.default_rng(n_levels)
    levels = rng.integers(n_levels, size=(400, n_categories)) * (rng.random((400, n_categories)) < 0.5)
    encoder = OneHotEncoder(drop="first" if drops else None)  # if so, rows have more or fewer entries
    X, y = csr_array(encoder.fit_transform(levels)), rng.integers(n_classes, size=400)
    rows = check_training_rows(TorchSoftmaxClassifier(), X, y, rng.lognormal(size=400))
    objective = make_problem_objective(rows, raw(csr_tensor(X), True), TorchSoftmaxClassifier(C=C))
    theta = draw(objective)
    bounded, least = objective.bounded(diagonal_metric(objective, 0.1 * theta))
    assert least > 0
    matrix = hessian(objective, theta)[0]
    flat = theta.new_zeros(0, len(matrix))  # what all classes have in common, of which F sees the penalty alone
    if n_classes > 2:
        flat = torch.eye(theta.shape[2], dtype=theta.dtype).repeat(1, n_classes) / n_classes**0.5
    apart = torch.linalg.svd(torch.eye(len(matrix)).to(matrix) - flat.T @ flat)[0][:, : len(matrix) - len(flat)]
    metric = apart.T @ (bounded(torch.ones_like(theta)).flatten()[:, None] * apart)  # between projections
    values = torch.linalg.eigvals(metric @ (apart.T @ matrix @ apart)).real
    assert values.amin() >= least
    assert drops or C == 1.0 or n_categories == 1 or values.amin() <= 100 * least


@pytest.mark.parametrize(
    ("n_outputs", "make"),
    [*product((1, 4), (dense_metric, kronecker_metric, diagonal_metric)), (4, by_classes)],
)
@pytest.mark.parametrize("C", [1e-6, 1.0, float("inf")])
def test_every_metric_is_positive_definite(n_outputs, make, C):
    objective = make_objective(n_outputs, C=(C,))
    for seed in range(3):
        theta, vector = draw(objective, seed), objective.centred(draw(objective, seed + 10))
        assert (vector * make(objective, 5 * theta)(vector)).sum() > 0


@pytest.mark.parametrize(
    ("n_outputs", "make"), [*product((1, 4), (dense_metric, kronecker_metric, diagonal_metric)), (4, by_classes)]
)
def test_of_rows_without_any_curvature_the_penalty_is_left(n_outputs, make):
    objective = make_objective(n_outputs, C=(1.0,))
    theta = torch.zeros_like(draw(objective))
    theta[:, 0, -1] = 1e4  # whatever the rows are, the first class is certain
    vector = objective.centred(draw(objective, seed=1))[..., :-1]
    found = make(objective, theta)(torch.cat([vector, torch.zeros_like(theta[..., :1])], dim=2))
    assert found.isfinite().all()
    torch.testing.assert_close(found[..., :-1] * objective.column_l2[..., :-1], vector, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("make", [dense_metric, kronecker_metric, diagonal_metric])
def test_metrics_of_a_stack_are_those_of_its_models(n_outputs, make):
    objective, some = make_objective(n_outputs, C=(0.1, 1.0, 10.0)), torch.tensor([2, 0])
    theta, vector = draw(objective), draw(objective, seed=1)
    selected = make(objective, theta).select(some)(vector[some])
    torch.testing.assert_close(selected, make(objective.select(some), theta[some])(vector[some]))


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_kept_metric_is_a_multiple_of_each(n_outputs):
    objective, some = make_objective(n_outputs, C=(0.1, 1.0, 10.0)), torch.tensor([2, 0])
    theta, vector, numbers = draw(objective), draw(objective, seed=1), torch.tensor([2.0, 0.5, 3.0])
    metric = make_metric(objective, theta)
    kept = metric.kept(numbers)
    assert kept.is_kept
    assert not kept.exact
    expected = metric.solve(vector) * numbers[:, None, None]
    torch.testing.assert_close(kept.solve(vector), expected)
    torch.testing.assert_close(kept.select(some).solve(vector[some]), expected[some])
    torch.testing.assert_close(kept.kept(2 * numbers).solve(vector), 2 * expected)  # of what was made


@pytest.mark.parametrize("growth", [1, 2])
def test_a_metric_for_all_models_tells_the_price_of_one_for_each(growth):
    family = replace(make_objective(1, C=(0.1, 1.0, 10.0)), is_family=True)
    theta = draw(family)
    shared, apart = make_metric(family, theta, growth), make_metric(family.apart(), theta)
    assert apart.apart_price is None
    assert shared.apart_price == apart.price
    assert shared.price < apart.price
    assert shared.select(torch.tensor([1])) is shared


def test_a_rough_metric_is_one_for_all_models(monkeypatch):
    monkeypatch.setattr(metrics, "DENSE_LIMIT", 1)
    family = replace(make_objective(6, C=(0.1, 1.0)), is_family=True)
    theta, vector = draw(family), draw(family, seed=1)
    shared, apart = make_metric(family, theta), make_metric(family.apart(), theta)
    assert shared.kind == apart.kind == "kronecker"
    assert shared.price < apart.price
    assert (shared.apart_price, apart.apart_price) == (apart.price, None)
    assert shared.near_price == apart.near_price
    expected = kronecker_metric(family.pooled(), theta.mean(dim=0, keepdim=True))
    for i in range(2):
        torch.testing.assert_close(shared.solve(vector)[i], expected(vector[i : i + 1])[0])


def test_a_rough_metric_tells_the_price_of_a_dense_one():
    objective = make_objective(6)
    theta = draw(objective)
    dense = make_metric(objective, theta)
    rough = make_metric(objective, theta, to_come=0.9 * dense.price)
    assert (dense.kind, rough.kind) == ("dense", "kronecker")
    assert (dense.dense_price, rough.dense_price) == (None, dense.price)
    assert make_metric(objective, theta, to_come=1.1 * dense.price).kind == "dense"
    family = replace(make_objective(6, C=(0.1, 1.0)), is_family=True)
    shared = make_metric(family, draw(family), to_come=0.9 * dense.price / 2)
    assert shared.kind == "kronecker"  # for all models, of which one takes half as long
    assert 0 < shared.dense_price < dense.price


def test_the_choice_of_metric(monkeypatch):
    objective = make_objective(3)
    zero = torch.zeros_like(draw(objective))
    assert make_metric(objective, zero + 1).kind == "dense"
    assert make_metric(objective, zero + 1).exact
    monkeypatch.setattr(metrics, "DENSE_LIMIT", 1)
    assert make_metric(objective, zero + 1).kind == "kronecker"
    assert make_metric(objective, zero + 1, passes=1e6).kind == "dense"  # as many as it costs, and more
    assert make_metric(objective, zero + 1, passes=1e-3).kind == "kronecker"
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "LATE_BYTES", 1)
        assert make_metric(objective, zero + 1, passes=1e6).kind == "kronecker"
    monkeypatch.setattr(metrics, "GRAM_LIMIT", 1)
    assert make_metric(objective, zero + 1).kind == "diagonal"
    assert not make_metric(objective, zero + 1).follows


def test_one_output_has_its_hessian_while_a_gram_matrix_fits(monkeypatch):
    objective = make_objective(1)
    monkeypatch.setattr(metrics, "DENSE_LIMIT", 1)
    metric = make_metric(objective, draw(objective))
    assert (metric.kind, metric.exact, metric.follows) == ("dense", True, True)
    monkeypatch.setattr(metrics, "GRAM_LIMIT", 1)
    assert make_metric(objective, draw(objective)).kind == "diagonal"


def test_the_choice_of_a_metric_by_classes(monkeypatch):
    monkeypatch.setattr(metrics, "DENSE_LIMIT", 1)
    objective = make_objective(6, C=(0.1, 1.0))
    theta = draw(objective)
    assert make_metric(objective, 0 * theta).near_price > 0  # that classes will differ is to be expected
    assert make_metric(objective, 1e-3 * theta).near_price is None  # all classes are still in play
    far, near = (make_metric(objective, 9 * theta, is_near=is_near) for is_near in (False, True))
    assert (far.kind, far.is_local, near.kind, near.is_local) == ("kronecker", False, "class by class", True)
    assert near.price == far.near_price
    family = replace(objective, is_family=True)
    shared = make_metric(family, 9 * theta, is_near=True)
    assert (shared.kind, shared.price, shared.apart_price) == ("class by class", near.price / 2, near.price)
    assert shared.select(torch.tensor([1])) is shared
    monkeypatch.setattr(metrics, "CLASS_BYTES", 1)
    assert make_metric(objective, 9 * theta, is_near=True).kind == "kronecker"


@pytest.mark.parametrize("limit", [0, 100])
def test_metrics_by_classes_of_models_are_those_of_each(limit, monkeypatch):
    monkeypatch.setattr(metrics, "DENSE_LIMIT", 1)
    monkeypatch.setattr(metrics, "BATCHED_COLUMNS", limit)
    objective = make_objective(6, C=(0.1, 1.0, 10.0))
    theta, vector = 9 * draw(objective), objective.centred(draw(objective, seed=1))
    every = make_metric(objective, theta, is_near=True)
    for i, some in enumerate(torch.arange(3).split(1)):
        one = make_metric(objective.select(some), theta[some], is_near=True)
        assert one.kind == "class by class"
        expected = one.solve(vector[some])
        torch.testing.assert_close(
            every.solve(vector)[some], expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item()
        )
        torch.testing.assert_close(every.select(some).solve(vector[some])[0], every.solve(vector)[i])


@pytest.mark.parametrize("power", range(155, 166))
def test_rows_that_next_to_nothing_is_left_of_still_make_a_metric(power, monkeypatch):
    """The squares of what they weigh are none, and no row was drawn."""
    monkeypatch.setattr(metrics, "DENSE_LIMIT", 1)
    objective = make_objective(6, C=(1e4,))
    objective = replace(objective, weights=objective.weights * 10.0**-power)
    metric = make_metric(objective, 9 * draw(objective), is_near=True)
    assert metric.kind == "class by class"
    assert metric.solve(draw(objective)).isfinite().all()


def test_metric_by_classes_is_that_of_the_blocks_on_the_diagonal():
    whole = make_objective(4)
    objective = whole.take(torch.arange(whole.data.n_columns))
    theta, vector = draw(objective), draw(objective, seed=1)
    n_columns = objective.data.n_columns
    blocks = loss_hessian(objective, theta)[0].view(4, n_columns, 4, n_columns).diagonal(dim1=0, dim2=2)
    blocks = blocks.permute(2, 0, 1) + torch.diag(objective.column_l2[0, 0])  # (K, p, p)
    solved = torch.linalg.solve(blocks, objective.centred(vector)[0][..., None])[..., 0][None]
    found = class_metric(objective, theta, n_columns, n_columns)(vector)  # of all rows
    torch.testing.assert_close(found, objective.centred(solved), rtol=1e-3, atol=1e-3 * solved.abs().max().item())


def test_blocks_are_of_as_many_rows_as_they_have_directions(monkeypatch):
    """By the eigenvalues of the blocks themselves, and no more than have most of their curvature."""
    monkeypatch.setattr(metrics, "DENSE_LIMIT", 1)
    monkeypatch.setattr(metrics, "SEEN_ROWS", 10**6)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 8)) * [1, 1, 1, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3]
    y = (3 * X[:, :5] @ rng.normal(size=(5, 5)) + rng.gumbel(size=(3000, 5))).argmax(axis=1)
    rows = check_training_rows(TorchSoftmaxClassifier(), X, y, None)
    found = make_problem_objective(rows, raw(torch.from_numpy(X), True), TorchSoftmaxClassifier(C=10.0))
    model = TorchSoftmaxClassifier(C=10.0).fit(X, y)
    theta = torch.from_numpy(np.c_[model.coef_, model.intercept_])[None]
    plan = metrics._class_plan(found, theta)
    by_class = loss_hessian(found, theta)[0].view(5, 9, 5, 9).diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (K, p, p)
    penalty = found.column_l2[0, 0]
    effective = [torch.linalg.eigvals(torch.linalg.solve(A + torch.diag(penalty), A)).real.sum() for A in by_class]
    directions = plan.n_rows / metrics.ROWS_PER_DIRECTION
    assert sum(effective).item() / 5 - 0.5 <= directions <= sum(effective).item() / 5 + 1
    assert plan.n_rows < plan.n_candidates < found.n_rows


@pytest.mark.parametrize("size", [1, 5, 30])
def test_drawn_rows_stand_for_all(size):
    mass = torch.rand(7, 40, generator=torch.Generator().manual_seed(0)) ** 8
    mass[1, 3:] = 0
    drawn, weights = draw_columns(mass, size)
    counts = (mass > 0).sum(dim=1).clamp_max(size)
    assert ((drawn.sum(dim=1) - counts).abs() <= 1).all()
    assert not drawn[mass == 0].any()
    missing = (weights * drawn).sum(dim=1) - mass.sum(dim=1)
    assert (missing.abs() <= weights.amin(dim=1) + 1e-6).all()
    assert drawn[mass > weights.amin(dim=1, keepdim=True)].all()


def test_all_rows_are_drawn_if_they_are_few():
    mass = torch.tensor([[0.0, 3.0, 1e-3, 2.0], [1.0, 1.0, 1.0, 0.0]])
    drawn, weights = draw_columns(mass, 4)
    torch.testing.assert_close(weights * drawn, mass)
