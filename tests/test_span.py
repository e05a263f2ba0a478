"""Rows in the space that they span, where columns are more than rows."""

import numpy as np
import pytest
import torch
from reference import converged, objective
from sklearn.model_selection import LeaveOneOut, StratifiedKFold

from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV, inputs
from skl_softmax.data import rotated, standardised
from skl_softmax.objective import costs

N_ROWS, N_COLUMNS = 40, 260


def make_table(n_classes, seed=0):
    """Columns of other means and scales, a constant one, two that agree and two rows that do."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N_ROWS, N_COLUMNS)) * np.logspace(-1, 1, N_COLUMNS) + rng.normal(size=N_COLUMNS)
    y = (X[:, -n_classes:] + 5 * rng.normal(size=(N_ROWS, n_classes))).argmax(axis=1)
    X[:, 3], X[:, 5], X[7] = 2.0, X[:, 4], X[8]
    return X, y


def make_data(fit_intercept, X=None):
    return standardised(torch.from_numpy(make_table(3)[0] if X is None else X), fit_intercept)


@pytest.fixture
def in_columns(monkeypatch):
    """What a call gives whose coordinates are the columns."""

    def call(function):
        with monkeypatch.context() as patch:
            patch.setattr(costs, "SPAN_BYTES", 0)
            return function()

    return call


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_models", [(), (2,)])
def test_coefficients_go_there_and_back(fit_intercept, n_models):
    data = make_data(fit_intercept)
    span = rotated(data)
    assert (data.rotates, span.rotates) == (False, True)
    assert span.n_columns == N_ROWS + fit_intercept
    theta = torch.randn(*n_models, 3, span.n_columns, generator=torch.Generator().manual_seed(0)).double()
    theta[..., :N_ROWS] *= span.X.any(dim=0)  # no row has anything along these
    weight, bias = span.from_theta(theta)
    assert weight.shape == (*n_models, 3, N_COLUMNS)
    assert bias.shape == (*n_models, 3)
    torch.testing.assert_close(span.to_theta(weight, bias), theta)
    logits = weight @ data.X.T + bias[..., None]
    torch.testing.assert_close(theta @ span.design(slice(None)).T, logits)
    penalty = (span.penalty_scale() * theta.square()).sum()
    torch.testing.assert_close(penalty, weight.square().sum())


def test_rows_themselves_are_not_written_to():
    X = torch.from_numpy(make_table(3)[0])
    before = X.clone()
    rotated(standardised(X, fit_intercept=False))
    assert torch.equal(X, before)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_the_minimum_is_that_of_all_columns(n_classes, fit_intercept, C):
    X, y = make_table(n_classes)
    weights = np.random.default_rng(1).uniform(0.5, 2, size=N_ROWS)
    parameters = {"C": C, "fit_intercept": fit_intercept}
    clf = TorchSoftmaxClassifier(tol=1e-15, **parameters).fit(X, y, sample_weight=weights)
    reference = converged(X, y, sample_weight=weights, **parameters)
    np.testing.assert_allclose(clf.coef_, reference.coef_, rtol=1e-6, atol=1e-6 * np.abs(reference.coef_).max())
    np.testing.assert_allclose(clf.intercept_, reference.intercept_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(clf.loss_curve_[-1], objective(clf, X, y, C, weights), rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_narrow_rows_are_solved_as_the_same_numbers_in_float64_are(dtype):
    X, y = make_table(3)
    X = X.astype(dtype)
    clf, wide = (TorchSoftmaxClassifier(tol=1e-10).fit(rows, y) for rows in (X, X.astype(float)))
    assert clf.coef_.dtype == np.float32
    np.testing.assert_allclose(clf.coef_, wide.coef_, rtol=1e-5, atol=1e-6 * np.abs(wide.coef_).max())


def test_rows_that_others_give_add_nothing_without_a_penalty():
    # What rounding leaves of them would be a column of its own, and tell them apart.
    X, _ = make_table(2)
    proba = np.random.default_rng(0).uniform(0.1, 0.9, size=(N_ROWS, 1))
    targets = np.hstack([1 - proba, proba])
    clf = TorchSoftmaxClassifier(C=np.inf, tol=1e-12).fit(X, targets)
    proba[7] = proba[8] = proba[7:9].mean()  # the most that rows that agree can have
    best = np.mean(-targets * np.log(np.hstack([1 - proba, proba]))) * 2
    assert clf.converged_
    assert clf.loss_curve_[-1] == pytest.approx(best, rel=1e-11)
    assert clf.loss_curve_[-1] == pytest.approx(objective(clf, X, targets, np.inf), rel=1e-10)
    assert np.abs(clf.coef_).max() < 100


@pytest.mark.parametrize("n_large", [3, 130])
@pytest.mark.parametrize("factor", [1e7, 1e12])
def test_columns_keep_their_digits_beside_larger_ones(n_large, factor, in_columns):
    X, y = make_table(3)
    X[:, np.random.default_rng(2).permutation(N_COLUMNS)[:n_large]] *= factor
    data = make_data(True, X)
    span = rotated(data)
    assert span.rotates
    theta = span.to_theta((1 / data.scale).diag(), -data.mean / data.scale)  # whose logits are the columns of X
    columns = span.design(slice(None)) @ theta.T
    torch.testing.assert_close(columns, (data.X - data.mean) / data.scale, rtol=0, atol=1e-9)
    values = [
        call(lambda: TorchSoftmaxClassifier(C=1e-2 / factor, tol=1e-10).fit(X, y).loss_curve_[-1])
        for call in (lambda function: function(), in_columns)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_columns_stay_where_they_would_lose_their_digits(in_columns):
    X, y = make_table(2)
    X[:, :3] *= 1e9
    X[:30, :3] = 0.0  # rows that do not show what the first columns have are the first to be reflected
    assert not rotated(make_data(True, X)).rotates
    assert not rotated(make_data(True, np.ones((4, 300)))).rotates
    known = TorchSoftmaxClassifier().fit(X, y).coef_
    np.testing.assert_array_equal(known, in_columns(lambda: TorchSoftmaxClassifier().fit(X, y).coef_))


def test_a_row_with_nan_is_named(monkeypatch):
    X, y = make_table(2)
    X[11, 40] = np.nan
    monkeypatch.setattr(inputs, "is_large", lambda X: True)
    with pytest.raises(ValueError, match="row 11"):
        TorchSoftmaxClassifier().fit(X, y)


def test_with_an_l1_penalty_the_columns_stay():
    X, y = make_table(2)
    clf = TorchSoftmaxClassifier(l1_ratio=1.0, C=0.1).fit(X, y)
    assert clf.converged_
    assert (clf.coef_ == 0).sum() > N_COLUMNS // 2


def test_warm_starts_end_where_they_begin():
    X, y = make_table(3)
    clf = TorchSoftmaxClassifier(warm_start=True, tol=1e-8).fit(X, y)
    n_passes, value = clf.n_passes_, clf.loss_curve_[-1]
    clf.fit(X, y)
    assert clf.n_passes_ < n_passes / 2
    assert clf.loss_curve_[0] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_sweeps_equal_single_fits_in_columns(n_classes, in_columns):
    X, y = make_table(n_classes)
    folds, Cs = StratifiedKFold(3), [0.01, 1.0, 10.0]
    sweep = TorchSoftmaxClassifierCV(Cs=Cs, cv=folds, tol=1e-13).fit(X, y)
    for i, (train, _) in enumerate(folds.split(X, y)):
        for j, C in enumerate(Cs):
            one = in_columns(lambda C=C, train=train: TorchSoftmaxClassifier(C=C, tol=1e-13).fit(X[train], y[train]))
            found = sweep.coefs_paths_[i, 0, j, :, :N_COLUMNS]
            np.testing.assert_allclose(found, one.coef_, rtol=1e-5, atol=1e-5 * np.abs(one.coef_).max())


def test_left_out_rows_are_predicted_from_the_span():
    X, y = make_table(2)
    X, Cs = np.tile(X, 5), [2e-4, 2e-3]  # 1,301 parameters of columns, 41 of the span
    near = TorchSoftmaxClassifierCV(Cs=Cs, cv="alo").fit(X, y)
    exact = TorchSoftmaxClassifierCV(Cs=Cs, cv=LeaveOneOut()).fit(X, y)
    np.testing.assert_allclose(near.scores_.mean(axis=0), exact.scores_.mean(axis=0), rtol=0.03)


def test_where_to_rotate_is_told_by_sizes():
    assert costs.rotation_pays(100, 1000)
    assert not costs.rotation_pays(50, 100)  # over before threads are awake
    assert not costs.rotation_pays(1000, 1100)
    assert not costs.rotation_pays(10_000, 100_000)  # 8 GB


def test_a_column_whose_square_overflows_changes_no_row():
    X, y = make_table(3)
    X[:, 0] *= 1e155
    span = rotated(standardised(torch.from_numpy(X), fit_intercept=True))
    assert span.rotates
    clf = TorchSoftmaxClassifier().fit(X, y)
    assert clf.converged_
    np.testing.assert_allclose(clf.loss_curve_[-1], objective(clf, X, y), rtol=1e-9)
