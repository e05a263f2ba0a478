"""Classes that no row is of: fits are those of the other classes, wherever the class that is missing stands."""

import warnings

import numpy as np
import pytest
import torch
from formulas import take_general_formulas
from scipy.sparse import csr_array
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from test_rare_classes import table

from skl_softmax import RowBlocks, TorchSoftmaxClassifier, TorchSoftmaxClassifierCV, sweep
from skl_softmax.objective import quadratic
from skl_softmax.objective.absent import mean_of_present

CLASSES = np.arange(12)
ABSENT = [0, 5, 11]


@pytest.fixture(scope="module")
def problem():
    """Columns on raw scales, and nine of twelve classes."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 10)) @ rng.normal(size=(10, 10))
    logits = 0.5 * X @ rng.normal(size=(10, 12)) + rng.gumbel(size=(600, 12))
    logits[:, ABSENT] = -np.inf
    return X * 10.0 ** np.arange(-3, 7) + 50, logits.argmax(axis=1)


def weigh_nothing(X, y):
    """The same with rows of the classes that are missing, which count nothing."""
    weights = np.append(np.ones(len(y)), np.zeros(len(ABSENT)))
    return np.vstack([X, X[: len(ABSENT)]]), np.append(y, ABSENT), {"sample_weight": weights}


def probabilities(X, y):
    return X, np.eye(12)[y], {}


WAYS = {"named": lambda X, y: (X, y, {"classes": CLASSES}), "weightless": weigh_nothing, "probabilities": probabilities}


@pytest.fixture(name="rare")
def _rare():
    """Where scikit-learn warns of classes with fewer rows than folds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        yield


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "parameters",
    [
        {"C": 0.01},
        {"C": 100},
        {"solver": "newton"},
        {"solver": "lbfgs"},
        {"solver": "lbfgs", "C": np.inf},
        {"l1_ratio": 0.5},
    ],
    ids=str,
)
def test_fits_are_those_without_the_class(problem, parameters, way):
    X, y = problem
    there = np.setdiff1d(CLASSES, ABSENT)
    expected = TorchSoftmaxClassifier(tol=1e-12, **parameters).fit(X, y)
    rows, targets, given = WAYS[way](X, y)
    model = TorchSoftmaxClassifier(tol=1e-12, **parameters).fit(rows, targets, **given)
    assert model.converged_
    assert model.loss_curve_[-1] == pytest.approx(expected.loss_curve_[-1], rel=1e-9)
    size = np.abs(X - X.mean(axis=0)).max(axis=0)
    np.testing.assert_allclose(
        model.coef_[there] * size, expected.coef_ * size, atol=1e-4 * np.ptp(expected.coef_ * size)
    )
    assert not model.coef_[ABSENT].any()
    proba = model.predict_proba(X)
    assert 0 < proba[:, ABSENT].max() <= (1e-12 if "l1_ratio" in parameters else np.finfo(float).eps)
    np.testing.assert_allclose(proba[:, there], expected.predict_proba(X), atol=1e-5)
    assert model.n_passes_ <= 1.5 * expected.n_passes_ + 5


@pytest.mark.parametrize("kind", ["float32", "sparse", "tensor", "warm"])
def test_other_kinds_of_rows_and_starts(kind):
    X, y = load_digits(return_X_y=True)
    X, y = X[y > 1], y[y > 1]
    expected = TorchSoftmaxClassifier(tol=1e-9).fit(X, y)
    model = TorchSoftmaxClassifier(tol=1e-9)
    if kind == "warm":
        model.set_params(warm_start=True).fit(*load_digits(return_X_y=True))
    make = {"float32": np.float32, "sparse": csr_array, "tensor": torch.from_numpy, "warm": np.asarray}[kind]
    model.fit(make(X), y, classes=range(10))
    np.testing.assert_allclose(np.asarray(model.coef_)[2:], expected.coef_, atol=1e-4)
    assert model.converged_


def test_where_there_is_a_bound_classes_are_fitted(problem):
    X, y = problem
    smoothed = TorchSoftmaxClassifier(label_smoothing=0.1).fit(X, y, classes=CLASSES)
    assert smoothed.predict_proba(X)[:, ABSENT].mean() == pytest.approx(0.1 / 12, rel=1e-3)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    without = TorchSoftmaxClassifier(fit_intercept=False, C=1e-4).fit(scaled, y, classes=CLASSES)
    assert without.predict_proba(scaled)[:, ABSENT].min() > 1e-3


def test_a_single_class_is_still_said_to_have_no_minimum(problem):
    X, _ = problem
    with pytest.warns(ConvergenceWarning, match="one class only"):
        TorchSoftmaxClassifier().fit(X, np.ones(len(X), dtype=int), classes=[0, 1, 2])


def test_a_sample_does_not_tell_what_is_missing():
    """Blocks whose sample lacks a class of few rows, which others have."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40_000, 4))
    y = np.where(np.arange(len(X)) == 15_001, 2, (X[:, 0] + rng.logistic(size=len(X)) > 0).astype(int))
    blocks = RowBlocks(list(zip(np.split(X, 4), np.split(y, 4), strict=True)))
    model, expected = (TorchSoftmaxClassifier(tol=1e-10).fit(*rows) for rows in ((blocks,), (X, y)))
    assert model.converged_
    assert model.loss_curve_[-1] == pytest.approx(expected.loss_curve_[-1], rel=1e-10)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-3)


def test_means_are_over_the_models_that_have_a_class_whatever_is_added_to_all_classes():
    theta = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    is_absent = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]]).bool()
    theta[is_absent] = -1000.0
    means = torch.stack([of_model[~lacks].mean(dim=0) for of_model, lacks in zip(theta, is_absent, strict=True)])
    centred = theta - means[:, None]
    expected = torch.stack([centred[~is_absent[:, k], k].mean(dim=0) for k in range(4)])[None]
    torch.testing.assert_close(mean_of_present(is_absent, theta), expected)
    torch.testing.assert_close(mean_of_present(is_absent, theta + torch.arange(3.0)[:, None, None]), expected)


@pytest.mark.usefixtures("rare")
def test_a_sweep_over_classes_of_single_rows_takes_no_more_passes_than_separate_fits(monkeypatch):
    """One stack, whose models lack other classes each, took more than 20,000 passes; fits by themselves take some 900.

    A metric for all of them that took intercepts of missing classes for real, steps along these, and a metric for all
    where each needs its own.
    """
    X, y = table(8)
    passes, solve = [], sweep._Stack.solve
    monkeypatch.setattr(sweep._Stack, "solve", lambda *args: passes.append(found := solve(*args)) or found)
    folds, Cs = list(StratifiedKFold(3).split(X, y)), [0.01, 1.0]
    with pytest.warns(UserWarning, match="of which it trains on none"):
        model = TorchSoftmaxClassifierCV(Cs=Cs, cv=folds).fit(X, y)
    fits = [[TorchSoftmaxClassifier(C=C).fit(X[train], y[train]) for C in Cs] for train, _ in folds]
    # Those of the stack are for three models, or for what is left of them.
    assert sum(result.n_passes for result in passes) <= sum(one.n_passes_ for fit in fits for one in fit)
    for (_, test), of_fold, scores in zip(folds, fits, model.scores_[:, 0], strict=True):
        for one, score in zip(of_fold, scores, strict=True):
            known = test[np.isin(y[test], one.classes_)]
            own = np.searchsorted(one.classes_, y[known])
            lost = -np.log(one.predict_proba(X[known])[np.arange(len(known)), own]).sum()
            assert -score * len(test) >= lost + 36 * (len(test) - len(known))


@pytest.mark.parametrize("has_models", [True, False])
@pytest.mark.parametrize("l1_ratios", [(0.0,), (0.5,), (0.0, 0.5)])
def test_paths_of_folds_that_lack_classes_are_those_of_separate_fits(problem, l1_ratios, has_models, monkeypatch):
    if not has_models:  # but products
        take_general_formulas(monkeypatch)
        monkeypatch.setattr(quadratic, "WORKING_LIMIT", 0)
        monkeypatch.setattr(quadratic, "PRICE_LIMIT", 0.0)
    X, y = problem
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    Cs, folds = [0.01, 1.0], [(np.flatnonzero(y != k), np.flatnonzero(y == k)) for k in (1, 4)]
    model = TorchSoftmaxClassifierCV(Cs=Cs, cv=folds, l1_ratios=l1_ratios, scoring="accuracy", tol=1e-12).fit(X, y)
    for of_fold, (train, _) in zip(model.coefs_paths_, folds, strict=True):
        for of_ratio, l1_ratio in zip(of_fold, l1_ratios, strict=True):
            for found, C in zip(of_ratio, Cs, strict=True):
                expected = TorchSoftmaxClassifier(C=C, l1_ratio=l1_ratio, tol=1e-12).fit(X[train], y[train])
                there = np.isin(model.classes_, expected.classes_)
                logits, known = X @ found[:, :-1].T + found[:, -1], expected.decision_function(X)
                shift = (logits[:, there] - known).mean(axis=1, keepdims=True)
                np.testing.assert_allclose(logits[:, there] - shift, known, atol=1e-3)
                assert not found[~there, :-1].any()


@pytest.mark.usefixtures("rare")
def test_a_sweep_equals_a_search_where_folds_lack_classes():
    X, y = table(3, n_rows=400)
    folds = list(StratifiedKFold(4).split(X, y))
    model = TorchSoftmaxClassifierCV(Cs=[0.1, 1.0], cv=folds, scoring="accuracy", tol=1e-10).fit(X, y)
    search = GridSearchCV(TorchSoftmaxClassifier(tol=1e-10), {"C": [0.1, 1.0]}, cv=folds).fit(X, y)
    np.testing.assert_allclose(model.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"])
    np.testing.assert_allclose(model.predict_proba(X), search.predict_proba(X), atol=1e-4)
