"""What is chosen by counts of operations."""

from dataclasses import replace

import pytest
import torch

from skl_softmax.data import standardised
from skl_softmax.objective import Objective, costs


def tall_objective(n_rows, n_features, n_outputs, dtype=torch.float64):
    X = torch.zeros(1, n_features, dtype=dtype).expand(n_rows, -1)
    targets, weights = torch.zeros(n_rows, dtype=torch.int64), torch.ones(1, n_rows)
    total = weights.sum(dim=1).double()
    return Objective(standardised(X, True), targets, weights, torch.ones_like(total), n_outputs, total)


@pytest.mark.parametrize(
    ("shape", "pays"),
    [((200_000, 50, 5), False), ((10_000, 784, 10), False), ((20_000, 512, 100), True), ((20_000, 16, 26), True)],
)
def test_float32_pays_where_products_are_more_than_conversions(shape, pays):
    objective = tall_objective(*shape)
    assert costs.narrow_pays(objective, objective.data.converts) == pays
    assert (objective.narrow() is objective) == (not pays)


def test_float32_pays_for_rows_that_have_it():
    objective = tall_objective(200_000, 50, 5, torch.float32)
    assert not objective.data.converts
    assert costs.narrow_pays(objective, converts=False)


def test_float32_does_not_pay_for_small_tables():
    assert not costs.narrow_pays(tall_objective(100, 50, 5), converts=False)


def sparse_objective(n_rows, n_columns, n_outputs):
    columns = torch.arange(4 * n_rows) % n_columns
    X = torch.sparse_csr_tensor(torch.arange(n_rows + 1) * 4, columns, torch.ones(4 * n_rows), (n_rows, n_columns))
    return replace(tall_objective(n_rows, 1, n_outputs), data=standardised(X, True))


@pytest.mark.parametrize(
    ("shape", "pays", "fit"),
    [
        ((20_000, 100, 3), True, True),
        ((20_000, 60, 20), True, True),
        ((2_000, 60, 20), True, False),  # a column has 7 rows for each class
        ((5_000, 100, 1), True, True),
        ((20_000, 300, 3), False, True),
        ((1_000, 800, 20), False, False),
        ((2_000, 1_000, 1), False, False),
    ],
)
def test_correlations_of_sparse_rows_are_known_where_that_costs_little(shape, pays, fit):
    objective = sparse_objective(*shape)
    assert costs.correlations_pay(objective) == pays
    assert objective.prefers_newton == (not pays)
    assert costs.factors_fit(objective) == fit


def test_sparse_hessians_that_cost_many_passes_are_made_where_products_have_cost_as_much():
    objective = sparse_objective(20_000, 300, 3)
    assert objective.products_pay(100.0)
    assert not objective.products_pay(1e6)
    assert not sparse_objective(2_000, 20, 2).products_pay(0.0)
    assert not tall_objective(20_000, 300, 3).products_pay(0.0)


@pytest.mark.parametrize(
    ("shape", "n_rows"), [((5_000, 100, 10), 5_000), ((1_797, 64, 10), 1_797), ((20_000, 512, 100), 8 * 513)]
)
def test_a_metric_at_zero_takes_all_rows_where_that_costs_two_passes(shape, n_rows):
    assert costs.rows_at_zero(tall_objective(*shape)) == n_rows


def test_correlations_of_dense_rows_are_known():
    objective = tall_objective(100, 5_000, 20)
    assert costs.correlations_pay(objective)
    assert costs.factors_fit(objective)


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "n_outputs", "pays"),
    [
        (1000, 100, 3, True),
        (5000, 30, 3, True),
        (2000, 120, 3, True),
        (800, 150, 3, False),  # fewer than two rows for each parameter
        (2000, 120, 8, False),
        (4000, 60, 3, True),  # 22 rows for each parameter
        (4000, 60, 6, False),
        (20_000, 30, 3, False),
        (20_000, 40, 1, True),
        (5000, 200, 1, False),
        (1000, 800, 1, False),
        (100_000, 10, 1, False),
    ],
)
def test_newton_is_for_tables_whose_hessian_costs_few_passes(n_rows, n_columns, n_outputs, pays):
    """Where it is that of a small part of the rows, L-BFGS is begun on these."""
    objective = tall_objective(n_rows, n_columns, n_outputs)
    assert costs.newton_pays(objective) == objective.prefers_newton == pays
