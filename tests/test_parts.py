"""F as a sum over parts is F, however the rows are parted."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from pretended import DEVICE, pretended_device
from scipy.sparse import csr_array
from sklearn.datasets import make_classification

from skl_softmax import TorchSoftmaxClassifier, parts, pieces
from skl_softmax.data import in_coordinates, standardised
from skl_softmax.inputs import check_training_rows
from skl_softmax.objective import costs
from skl_softmax.objective.losses import apart
from skl_softmax.solvers import SOLVERS, SolverOptions, Status
from skl_softmax.targets import class_weights
from skl_softmax.training import make_objective


def problem(n_classes=3, n_rows=400, sparse=False, C=0.7, smoothing=0.0, soft=False):
    X, y = make_classification(
        n_rows, 6, n_informative=4, n_classes=n_classes, n_clusters_per_class=1, random_state=n_classes
    )
    X = X * np.logspace(-2, 2, 6) + np.linspace(-3, 3000, 6)
    X = csr_array(np.where(np.abs(X) > np.quantile(np.abs(X), 0.5, axis=0), X, 0)) if sparse else X
    rng = np.random.default_rng(0)
    y = rng.dirichlet(np.ones(n_classes), n_rows) if soft else np.array(["a", "b", "c"])[y]
    estimator = TorchSoftmaxClassifier(C=C, label_smoothing=smoothing)
    return estimator, X, y, rng.uniform(0, 2, n_rows)


def in_parts(estimator, X, y, weights, edges, share=1.0, device=None):
    """The objective over parts of the rows between edges, by the same steps as on a cluster, and F of all rows."""
    rows = check_training_rows(estimator, X, y, weights)
    loaded = [
        pieces.load_piece(i, estimator, X[a:b], y[a:b], weights[a:b])
        for i, (a, b) in enumerate(zip([0, *edges], [*edges, X.shape[0]], strict=True))
    ]
    counts = pieces.merge_counts([pieces.count_labels(piece) for piece in loaded])
    classes, by_class = pieces.settle_classes(counts, None, y.ndim == 2)
    checker = TorchSoftmaxClassifier(label_smoothing=estimator.label_smoothing, device=device)
    checker.class_weight = class_weights(estimator, classes, by_class)
    checker.n_features_in_ = X.shape[1]
    groups = [pieces.encode(loaded[i::2], checker, classes) for i in range(2)]
    total = pieces.merge_tallies([pieces.tally(group) for group in groups])
    sample = pieces.join([pieces.draw(group, share) for group in groups])
    data = parts.sample_coordinates(sample, total, estimator.fit_intercept)
    made = [parts.make_parts([group], data, total.total_weight) for group in groups]

    def sum_of(quantity, *vectors):
        return parts.merge_sums([parts.add_up(quantity, group, *vectors) for group in made])

    objective = parts.make_parts_objective(sum_of, sample, data, total, estimator.C)
    same = in_coordinates(rows.X, True, data.mean, data.scale) if data.is_dense else standardised(rows.X, True)
    return objective, make_objective(rows, same, estimator)


KINDS = {
    "two classes": {"n_classes": 2},
    "three classes": {},
    "sparse": {"sparse": True},
    "smoothed": {"smoothing": 0.2},
    "probabilities": {"soft": True},
    "no penalty": {"C": np.inf},
}


@pytest.mark.parametrize("kind", KINDS)
def test_parts_on_devices(kind):
    shared = problem(**KINDS[kind])
    here, _ = in_parts(*shared, (100, 150))
    shape = (2, 1, here.n_outputs, here.data.n_columns)
    theta, direction = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pretended_device() as device:
        there, _ = in_parts(*shared, (100, 150), device=DEVICE)
        torch.testing.assert_close(there.at(theta).gradient, here.at(theta).gradient)
        torch.testing.assert_close(there.hessian_product(theta)(direction), here.hessian_product(theta)(direction))
        torch.testing.assert_close(there.inverse_hessian(theta)(direction), here.inverse_hessian(theta)(direction))
    assert (device.n_copied > 0) == here.data.is_dense  # sparse rows stay on the CPU


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edges", [(), (1, 2, 3, 250), (0, 100, 100, 400), range(1, 400, 7)], ids=str)
def test_sums_over_parts_are_those_over_rows(kind, edges):
    objective, whole = in_parts(*problem(**KINDS[kind]), edges)
    shape = (1, whole.n_outputs, whole.data.n_columns)
    theta, direction = torch.randn((2, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    here, there = objective.at(theta), whole.at(theta)
    close = partial(torch.testing.assert_close, rtol=1e-11, atol=1e-12)
    close(here.value, there.value)
    close(here.gradient, there.gradient)
    close(objective.hessian_product(theta)(direction), whole.hessian_product(theta)(direction))
    close(objective.sum_of(parts.hessian_diagonal, theta)[0] + whole.column_l2, whole.hessian_diagonal(theta))
    close(objective.separable_below, whole.separable_below)
    largest = apart(direction @ whole.data.design(slice(0, whole.n_rows)).T).amax(dim=1)
    assert objective.change_at_most(direction) >= largest
    assert objective.moves_apart(0 * theta, direction, 0.999 * largest)
    assert not objective.moves_apart(0 * theta, direction, 1.001 * largest)
    assert (objective.n_rows, objective.n_parameters) == (whole.n_rows, whole.n_parameters)


@pytest.mark.parametrize("quantity", [parts.evaluation, parts.narrow_evaluation, parts.hessian_diagonal])
def test_parts_hold_nothing_beside_their_rows(quantity):
    X, y = make_classification(1000, 40, random_state=0)
    rows = check_training_rows(TorchSoftmaxClassifier(), X, y, None)
    group = parts.make_parts([[rows]], standardised(rows.X, True), 1000.0)
    sent = len(pickle.dumps(group))
    assert sent > X.nbytes
    parts.add_up(quantity, group, torch.zeros(1, 1, 41, dtype=torch.float64))
    assert len(pickle.dumps(group)) < sent + X.nbytes / 20


@pytest.mark.parametrize("seed", range(5))
def test_any_partition_gives_the_same_value(seed):
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.integers(0, 401, size=rng.integers(1, 40)))
    objective, whole = in_parts(*problem(), edges, share=0.3)
    theta = torch.from_numpy(rng.normal(size=(1, 3, 7)))
    np.testing.assert_allclose(objective.at(theta).value, whole.at(theta).value, rtol=1e-12)


def test_float32_is_near(monkeypatch):
    monkeypatch.setattr(costs, "narrow_pays", lambda *_: True)
    objective, whole = in_parts(*problem(n_rows=200_000), (100,))
    narrow = objective.narrow()
    assert narrow.dtype == torch.float32
    theta = torch.full((1, 3, 7), 0.1, dtype=torch.float64)
    found, expected = narrow.at(theta), whole.at(theta)
    assert 0 < abs(found.value - expected.value) < 1e-5
    assert found.gradient.dtype == torch.float64
    direction = theta.float()
    found, expected = narrow.hessian_product(theta)(direction), whole.hessian_product(theta)(theta)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)


def test_the_sample_stands_for_all_rows():
    # With a share of the rows, weights of what is drawn add up to those of all, and F of it is near F.
    objective, whole = in_parts(*problem(n_rows=20_000), (3, 500, 501, 9000), share=0.2)
    assert 0.2 <= objective.sample.n_rows / 20_000 < 0.21
    theta = torch.full((1, 3, 7), 0.1, dtype=torch.float64)
    assert objective.sample.at(theta).value == pytest.approx(whole.at(theta).value, rel=0.02)
    np.testing.assert_allclose(objective.sample.l2, whole.l2, rtol=1e-12)


def test_columns_that_are_constant_in_the_sample_are_scaled_to_all_rows():
    estimator, X, y, weights = problem(n_rows=4000)
    X[:, 2] = 5.0
    X[3999, 2] = 5e6  # the last row of the last part is not drawn
    objective, whole = in_parts(estimator, X, y, weights, (2000,), share=0.01)
    assert objective.data.scale[2] > 4e6
    assert not (objective.sample.data.X[:, 2] > 5).any()
    theta = torch.ones((1, 3, 7), dtype=torch.float64)
    np.testing.assert_allclose(objective.at(theta).value, whole.at(theta).value, rtol=1e-12)


def test_a_curvature_of_columns_that_are_zero_in_the_sample():
    # The diagonal metric of sparse X is that of all rows: a column of which the sample knows nothing has its curvature.
    rng = np.random.default_rng(0)
    n_columns = 700
    X = csr_array(rng.random((3000, n_columns)) < 0.001).astype(np.float64)
    y = rng.choice(["a", "b", "c"], size=3000)
    objective, whole = in_parts(TorchSoftmaxClassifier(), X, y, np.ones(3000), (1000,), share=0.01)
    theta = torch.zeros((1, 3, n_columns + 1), dtype=torch.float64)
    metric = objective.metric(theta)
    assert metric.kind == "diagonal"
    ones = torch.ones_like(theta)
    torch.testing.assert_close(metric.solve(ones), 1 / whole.hessian_diagonal(theta), rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("n_columns", [20, 700])
def test_solvers_cannot_tell(solver, n_columns):
    # Sparse X with few parameters and with many, for which there are products with the Hessian and diagonal metrics.
    rng = np.random.default_rng(0)
    X = csr_array(rng.random((1000, n_columns)) * (rng.random((1000, n_columns)) < 0.02))
    y = np.array(["a", "b", "c"])[
        (X @ (3 * rng.normal(size=(n_columns, 3))) + rng.gumbel(size=(1000, 3))).argmax(axis=1)
    ]
    objective, whole = in_parts(TorchSoftmaxClassifier(C=10.0), X, y, np.ones(1000), (1, 400), share=0.5)
    start = torch.zeros((1, 3, n_columns + 1), dtype=torch.float64)
    options = SolverOptions(tol=1e-9, max_iter=500)
    found, expected = (SOLVERS[solver].minimise(f, start, options) for f in (objective, whole))
    assert found.status == expected.status == [Status.CONVERGED]
    assert len(found.loss_curve[0]) > (9 if solver == "lbfgs" and n_columns == 700 else 1)
    assert found.loss_curve[0][-1] == pytest.approx(expected.loss_curve[0][-1], rel=1e-8)
    assert found.n_passes <= 1.5 * expected.n_passes + 3


def test_stages_go_by_the_number_of_all_rows():
    objective, _ = in_parts(*problem(n_rows=20_000), (10_000,), share=0.2)
    sizes = [stage.n_rows for stage, _ in objective.samples()]
    assert sizes == [8 * 21, 64 * 21]
    assert all(gap > 0 for _, gap in objective.samples())


@pytest.mark.parametrize("labels", [["a"], ["a", "b"]], ids=str)
def test_separable_rows_are_known_from_a_few_targets(labels):
    # All rows of one class: with an intercept F has no minimum, which one target cannot tell but two can.
    estimator, X, _, weights = problem()
    y = np.resize(labels, len(X))
    rows = check_training_rows(estimator, X, y, weights, classes=["a", "b"])
    group = [pieces.encode([pieces.load_piece(0, estimator, X, y, weights)], checker(estimator), np.array(["a", "b"]))]
    total = pieces.tally(group[0])
    data = parts.sample_coordinates(rows, total, True)
    objective = parts.make_parts_objective(None, rows, data, total, 1.0)
    np.testing.assert_allclose(objective.separable_below, make_objective(rows, data, estimator).separable_below)
    assert bool(objective.separable_below.isfinite().all()) == (len(labels) == 1)


def checker(estimator):
    checker = TorchSoftmaxClassifier(class_weight={"a": 1.0, "b": 1.0})
    checker.n_features_in_ = estimator.n_features_in_
    return checker


def test_a_partition_without_weight_has_no_part():
    estimator, X, y, weights = problem()
    weights[:100] = 0
    objective, whole = in_parts(estimator, X, y, weights, (100, 200))
    theta = torch.ones((1, 3, 7), dtype=torch.float64)
    np.testing.assert_allclose(objective.at(theta).value, whole.at(theta).value, rtol=1e-12)
    assert objective.n_rows == 300
