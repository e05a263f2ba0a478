"""Rows that count in the same models lie together, and are summed over for these alone: nothing else may change."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.model_selection import KFold, PredefinedSplit, ShuffleSplit, StratifiedKFold, TimeSeriesSplit

from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.data import DenseData, SparseData, csr_tensor, spread_rows
from skl_softmax.objective import Objective, anchor, costs, stretches
from skl_softmax.objective.stretches import WHOLE, find_stretches, order_rows

N, D = 700, 6


@pytest.fixture(autouse=True)
def short_stretches_pay(monkeypatch):
    monkeypatch.setattr(stretches, "LEAST_ROWS", 20)
    monkeypatch.setattr(costs, "STRETCH_SECONDS", 0.0)


def fold_weights(cv, n_rows=N, seed=0):
    """Weights (M, n) of the rows, zero for those that folds hold out."""
    weights = np.zeros((cv.get_n_splits(np.zeros(n_rows)), n_rows))
    for of_fold, (train, _) in zip(weights, cv.split(np.zeros((n_rows, 1)), np.arange(n_rows) % 3), strict=True):
        of_fold[train] = np.random.default_rng(seed).uniform(0.5, 2, len(train))
    return torch.from_numpy(weights)


def make_objective(cv, n_outputs=3, keeps=True, fit_intercept=True, dtype=torch.float64):
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.normal(loc=[0, 3, 0, 0, 50, 0], size=(N, D)))
    data = DenseData.standardised(X, fit_intercept)
    weights = fold_weights(cv)
    total = weights.sum(dim=1)
    targets = torch.from_numpy(rng.integers(max(n_outputs, 2), size=N))
    targets = targets.double() if n_outputs == 1 else targets
    objective = Objective(replace(data, may_keep=keeps), targets, weights, 0.1 / total, n_outputs, total)
    return objective if dtype == torch.float64 else objective.in_float32


def draw(objective, seed=0):
    shape = objective.n_models, objective.n_outputs, objective.data.n_columns
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def whole(objective):
    """The same without stretches."""
    other = replace(objective)
    other.__dict__["_stretches"] = [WHOLE]
    return other


SPLITTERS = [
    KFold(5),
    KFold(4, shuffle=True, random_state=0),
    TimeSeriesSplit(3),
    ShuffleSplit(3, test_size=0.4, random_state=0),
    PredefinedSplit(np.arange(N) % 3 - 1),
    PredefinedSplit(np.where(np.arange(N) < 200, 0, -1)),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("n_outputs", "fit_intercept", "keeps"), [(1, True, True), (3, False, False), (4, True, False)]
)
@pytest.mark.parametrize("cv", SPLITTERS, ids=lambda cv: type(cv).__name__)
def test_sums_are_those_of_all_rows(cv, n_outputs, fit_intercept, keeps, dtype):
    objective = make_objective(cv, n_outputs, keeps, fit_intercept, dtype).stretched()
    other, theta, direction = whole(objective), draw(objective), draw(objective, 1).to(dtype)
    assert objective._stretches[0] is not WHOLE
    assert all(portion.stretch is WHOLE for portion in other.counted_portions())
    here, there = objective.at(theta), other.at(theta)
    close = {torch.float64: {"rtol": 1e-12, "atol": 1e-13}, torch.float32: {"rtol": 1e-4, "atol": 1e-5}}[dtype]
    torch.testing.assert_close(here.value, there.value, **close)
    torch.testing.assert_close(here.gradient, there.gradient, **close)
    products = (o.hessian_product(theta)(direction) for o in (objective, other))
    torch.testing.assert_close(*products, **close)


@pytest.mark.parametrize("cv", SPLITTERS, ids=lambda cv: type(cv).__name__)
@pytest.mark.parametrize("keeps_proba", [True, False])
def test_order_and_stretches_leave_f_as_it_is(cv, keeps_proba, monkeypatch):
    monkeypatch.setattr("skl_softmax.objective.curvature.KEEP_PROBA_BYTES", 10**9 if keeps_proba else 0)
    objective = make_objective(cv)
    other, theta, direction = objective.stretched(), draw(objective), draw(objective, 1)
    torch.testing.assert_close(other.at(theta).value, whole(objective).at(theta).value)
    torch.testing.assert_close(other.at(theta).gradient, whole(objective).at(theta).gradient)
    torch.testing.assert_close(
        other.hessian_product(theta)(direction), whole(objective).hessian_product(theta)(direction)
    )
    some = torch.arange(other.n_models).flip(0)[: max(1, other.n_models - 1)]
    torch.testing.assert_close(other.select(some).at(theta[some]).value, whole(objective).at(theta).value[some])


def test_changes_from_a_point(monkeypatch):
    monkeypatch.setattr(costs, "narrow_pays", lambda *_: True)
    monkeypatch.setattr(anchor, "PROBA_BYTES", 10**9)
    objective = make_objective(KFold(3), n_outputs=2, keeps=False)
    objective = replace(objective, data=replace(objective.data, X=objective.data.X.repeat(1, 3), **coordinates(3)))
    theta, step = 0.1 * draw(objective), 1e-4 * draw(objective, 1)
    assert len(objective._stretches) > 1
    found = objective.anchor(theta, objective.at(theta)).at(theta + step)
    expected = whole(objective).at(theta + step)
    torch.testing.assert_close(found.value, expected.value, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-4, atol=1e-9)


def coordinates(times):
    """Those of as many times the columns."""
    data = make_objective(KFold(3), n_outputs=2).data
    return {name: getattr(data, name).repeat(times) for name in ("mean", "scale")}


@pytest.mark.parametrize("cv", SPLITTERS, ids=lambda cv: type(cv).__name__)
def test_as_many_logits_as_rows_are_trained_on(cv):
    objective = make_objective(cv).stretched()
    made = [portion.block.parts + portion.weights.shape[1:2] for portion in objective.counted_portions()]
    n_trained = objective.weights.count_nonzero().item()
    assert sum(n_parts * part * n_models for n_parts, part, n_models in made) == n_trained < objective.weights.numel()


def test_stretches_of_folds():
    cv = KFold(5)
    assert [(s.rows.start, s.rows.stop, s.models.tolist()) for s in find_stretches(fold_weights(cv))] == [
        (140 * fold, 140 * fold + 140, [model for model in range(5) if model != fold]) for fold in range(5)
    ]
    # Rows that count nowhere are in none of them.
    assert [s.rows for s in find_stretches(fold_weights(TimeSeriesSplit(3)))] == [
        slice(0, 175),
        slice(175, 350),
        slice(350, 525),
    ]


def test_rows_in_stretches_stay_where_they_are():
    objective = make_objective(KFold(5))
    assert objective.stretched() is objective
    shuffled = make_objective(KFold(5, shuffle=True, random_state=0))
    assert shuffled.stretched() is not shuffled


def test_where_stretches_do_not_pay_rows_stay_where_they_are(monkeypatch):
    objective = make_objective(KFold(5, shuffle=True, random_state=0))
    with monkeypatch.context() as patch:
        patch.setattr(costs, "STRETCH_SECONDS", 1.0)
        assert objective.stretched() is objective
    with monkeypatch.context() as patch:
        patch.setattr("skl_softmax.objective.base.STRETCHED_BYTES", 8 * N * D - 1)
        assert objective.stretched() is objective
    with monkeypatch.context() as patch:
        patch.setattr(stretches, "LEAST_ROWS", N // 5 + 1)
        assert objective.stretched() is objective
    assert objective.stretched() is not objective
    alone = make_objective(KFold(5)).alone(0)
    assert alone.stretched() is alone
    many = ShuffleSplit(63, random_state=0)
    assert order_rows(fold_weights(many)) is None
    assert order_rows(torch.ones(1, N)) is None  # in any order


@pytest.mark.parametrize("n_rows", [8, 64])
def test_samples_have_rows_of_every_model(n_rows):
    objective = make_objective(PredefinedSplit(np.repeat([0, 1], N // 2)))
    drawn, weights = spread_rows(N, n_rows), objective.weights.clone()
    few = np.setdiff1d(np.arange(N), drawn)[[0, 300, 301]]
    weights[0] = 0
    weights[0, few] = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    objective = replace(objective, weights=weights, total=weights.sum(dim=1))
    sample = objective.sample(n_rows)
    assert sample.n_rows == n_rows + 3
    assert sample.total[0] == 6
    assert objective.select(torch.tensor([1])).sample(n_rows).n_rows == n_rows


def test_sparse_rows_are_never_cut():
    objective = make_objective(KFold(5, shuffle=True, random_state=0))
    X = csr_tensor(csr_array(objective.data.X.numpy()))
    sparse = replace(objective, data=SparseData.raw(X, True, torch.float64))
    assert sparse.stretched() is sparse
    assert [portion.stretch for portion in sparse.counted_portions()] == [WHOLE]


@pytest.mark.parametrize("cv", [StratifiedKFold(3, shuffle=True, random_state=0), TimeSeriesSplit(3)], ids=["k", "t"])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_sweeps_find_what_separate_fits_find(cv, n_classes, monkeypatch):
    monkeypatch.setattr("skl_softmax.training.is_small", lambda *_: False)
    monkeypatch.setattr("skl_softmax.training.is_tiny", lambda *_: False)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, D))
    y = (X @ rng.normal(size=(D, n_classes)) + rng.gumbel(size=(N, n_classes))).argmax(axis=1)
    seen = []
    monkeypatch.setattr(Objective, "stretched", seen_by(seen, Objective.stretched))
    sweep = TorchSoftmaxClassifierCV(Cs=[0.1, 10.0], cv=cv, tol=1e-12).fit(X, y)
    assert len(seen[0]._stretches) > 1
    for fold, (train, _) in enumerate(cv.split(X, y)):
        for j, C in enumerate(sweep.Cs_):
            clf = TorchSoftmaxClassifier(C=C, tol=1e-12).fit(X[train], y[train])
            expected = np.hstack([clf.coef_, clf.intercept_[:, None]])
            np.testing.assert_allclose(sweep.coefs_paths_[fold, 0, j], expected, rtol=1e-5, atol=2e-6)  # √tol


def seen_by(seen, make):
    """The same function, with what it gives in a list."""

    def record(*args):
        seen.append(make(*args))
        return seen[-1]

    return record
