"""The sweep over folds and C against the plain loop."""

import dataclasses
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from reference import relative_error
from scipy import stats
from scipy.sparse import bsr_array, coo_array, csr_array, random_array
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError, UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    get_scorer,
    jaccard_score,
    log_loss,
    make_scorer,
    precision_score,
)
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneOut,
    PredefinedSplit,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    TimeSeriesSplit,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skl_softmax import RowBlocks, TorchSoftmaxClassifier, TorchSoftmaxClassifierCV, classifier_cv, sweep
from skl_softmax.objective import metrics, tiny
from skl_softmax.scores import standard_errors
from skl_softmax.solvers.run import Run

CS = (0.01, 1.0, 100.0)


# One of the checks fits rows of one class.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([TorchSoftmaxClassifierCV(Cs=3, cv=3)])
def test_scikit_learn_estimator(estimator, check):
    check(estimator)


def separate(X, y, folds, Cs, sample_weight=None, l1_ratios=(0.0,), **parameters):
    """Coefficients of one fit after the other, (F, L, J, K, d + 1)."""
    paths = []
    for train, _ in folds:
        weights = None if sample_weight is None else sample_weight[train]
        models = [
            [TorchSoftmaxClassifier(C=C, l1_ratio=r, **parameters).fit(X[train], y[train], weights) for C in Cs]
            for r in l1_ratios
        ]
        paths.append([[np.column_stack([m.coef_, m.intercept_]) for m in row] for row in models])
    return np.array(paths)


@pytest.mark.usefixtures("sparse_as_it_is")
@pytest.mark.parametrize("kind", ["dense", "sparse", "weighted", "float32", "balanced", "smoothed"])
@pytest.mark.parametrize("l1_ratios", [(0.0,), (0.0, 0.5, 1.0)])
def test_coefficients_are_those_of_separate_fits(problem, kind, l1_ratios):
    X, y, sample_weight = problem
    X = StandardScaler().fit_transform(X)
    folds = list(StratifiedKFold(3).split(X, y))
    parameters = {"tol": 1e-13}  # at which coefficients are known to some 1e-6
    weights = sample_weight if kind == "weighted" else None
    if kind == "sparse":
        X = csr_array(np.where(np.abs(X) < 0.5, 0.0, X))
    elif kind == "float32":
        X = X.astype(np.float32)
    elif kind == "balanced":
        parameters["class_weight"] = "balanced"
    elif kind == "smoothed":
        parameters["label_smoothing"] = 0.1
    model = TorchSoftmaxClassifierCV(Cs=CS, l1_ratios=l1_ratios, cv=folds, **parameters).fit(X, y, weights)
    expected = separate(X, y, folds, CS, weights, l1_ratios, **parameters)
    assert model.coefs_paths_.shape == expected.shape
    for place in np.ndindex(expected.shape[:3]):
        found, wanted = model.coefs_paths_[place], expected[place]
        assert np.abs(found - wanted).max() <= 1e-5 * max(np.abs(wanted).max(), 1e-3)


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_choice_is_that_of_a_grid_search(load):
    X, y = load(return_X_y=True)
    Cs = np.logspace(-4, 4, 10)
    search = GridSearchCV(TorchSoftmaxClassifier(), {"C": Cs}, scoring="neg_log_loss", cv=5).fit(X, y)
    model = TorchSoftmaxClassifierCV().fit(X, y)
    assert search.best_params_["C"] == model.C_
    np.testing.assert_allclose(model.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"], atol=1e-4)
    assert relative_error(model.coef_, search.best_estimator_.coef_) < 1e-3
    assert model.best_score_ == pytest.approx(search.best_score_, abs=1e-4)


def test_it_is_exact_with_one_curvature_for_all_folds_and_in_groups_of_folds(monkeypatch):
    X, y = load_digits(return_X_y=True)
    folds = list(StratifiedKFold(3).split(X, y))
    parameters = {"Cs": (1e-3, 1.0), "cv": folds, "tol": 1e-10}
    model = TorchSoftmaxClassifierCV(solver="lbfgs", **parameters).fit(X, y)
    assert relative_error(model.coefs_paths_, separate(X, y, folds, (1e-3, 1.0), tol=1e-11)) < 1e-4
    monkeypatch.setattr(sweep, "WEIGHT_BYTES", 8 * len(y))
    single = TorchSoftmaxClassifierCV(solver="lbfgs", **parameters).fit(X, y)
    assert relative_error(single.coefs_paths_, model.coefs_paths_) < 1e-4


@pytest.mark.parametrize(("n_outputs", "n_stacks"), [(2, 1), (12, 3), (40, 5)])
@pytest.mark.usefixtures("sparse_as_it_is")
def test_stacks_of_sparse_rows_are_as_wide_as_pays(monkeypatch, n_outputs, n_stacks):
    made = []
    make_stack = sweep.make_stack
    monkeypatch.setattr(sweep, "make_stack", lambda *args: (made.append(args[2]), make_stack(*args))[1])
    rng = np.random.default_rng(0)
    X, y = random_array((400, 30), density=0.2, rng=rng, format="csr"), np.arange(400) % n_outputs
    TorchSoftmaxClassifierCV(Cs=[0.1], cv=5, refit=False).fit(X, y)
    assert len(made) == n_stacks
    assert sum(map(len, made)) == 5
    made.clear()
    TorchSoftmaxClassifierCV(Cs=[0.1], cv=5, refit=False).fit(X.toarray(), y)
    assert len(made) == 1


@pytest.mark.parametrize("scoring", ["neg_log_loss", "accuracy", "f1_macro", "roc_auc_ovr"])
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_those_of_scikit_learn(problem, scoring, weighted):
    X, y, sample_weight = problem
    weights = sample_weight if weighted else None
    folds = list(StratifiedKFold(3).split(X, y))
    model = TorchSoftmaxClassifierCV(Cs=CS, cv=folds, scoring=scoring, tol=1e-10).fit(X, y, weights)
    for f, (train, test) in enumerate(folds):
        for j, C in enumerate(CS):
            of_train, of_test = (None, None) if weights is None else (weights[train], weights[test])
            single = TorchSoftmaxClassifier(C=C, tol=1e-10).fit(X[train], y[train], of_train)
            expected = get_scorer(scoring)(single, X[test], y[test], sample_weight=of_test)
            assert model.scores_[f, 0, j] == pytest.approx(expected, rel=1e-5)


def test_attributes_have_the_shapes_of_logistic_regression_cv(problem):
    X, y, _ = problem
    X = StandardScaler().fit_transform(X)
    parameters = {"Cs": CS, "cv": 3, "scoring": "neg_log_loss", "l1_ratios": (0.0,)}
    for refit in (True, False):
        peer = LogisticRegressionCV(use_legacy_attributes=False, tol=1e-8, max_iter=5000, refit=refit, **parameters)
        peer.fit(X, y)
        ours = TorchSoftmaxClassifierCV(refit=refit, tol=1e-10, **parameters).fit(X, y)
        for name in ("Cs_", "l1_ratios_", "scores_", "coefs_paths_", "n_iter_", "coef_", "intercept_"):
            assert np.shape(getattr(ours, name)) == np.shape(getattr(peer, name)), name
        np.testing.assert_allclose(ours.scores_, peer.scores_, rtol=1e-4)
        assert pytest.approx(peer.C_) == ours.C_
        assert relative_error(ours.coef_, peer.coef_) < 1e-3
        assert type(ours.C_) is float


def test_results_are_a_table():
    X, y = load_iris(return_X_y=True)
    model = TorchSoftmaxClassifierCV(Cs=4, l1_ratios=(0.0, 1.0), cv=3).fit(X, y)
    frame = pd.DataFrame(model.cv_results_)
    assert len(frame) == 8
    best = frame.sort_values("rank_test_score").iloc[0]
    assert (best["param_C"], best["param_l1_ratio"]) == (model.C_, model.l1_ratio_)
    assert best["mean_test_score"] == model.best_score_ == frame["mean_test_score"].max()


def test_standard_errors_are_those_of_scipy():
    scores = np.random.default_rng(0).normal(size=(5, 7))
    np.testing.assert_allclose(standard_errors(scores), stats.sem(scores, axis=0), rtol=1e-12)
    np.testing.assert_array_equal(standard_errors(scores[:1]), np.zeros(7))


@pytest.mark.parametrize("l1_ratios", [(0.0,), (0.5, 0.0)])
def test_one_standard_error_rule_takes_penalties_in_any_order(l1_ratios):
    X, y = load_iris(return_X_y=True)
    Cs = np.logspace(-4, 4, 10)[np.random.default_rng(0).permutation(10)]
    model = TorchSoftmaxClassifierCV(Cs=Cs, l1_ratios=l1_ratios, cv=10, refit="1se").fit(X, y)
    means, errors = model.scores_.mean(axis=0), stats.sem(model.scores_, axis=0)  # (ratios, Cs)
    i, j = np.unravel_index(means.argmax(), means.shape)
    chosen = min(np.flatnonzero(means[i] >= means[i, j] - errors[i, j]), key=lambda place: Cs[place])
    assert (model.l1_ratio_, model.C_, model.best_score_) == (l1_ratios[i], Cs[chosen], means[i, chosen])
    assert Cs[j] >= model.C_


def test_what_a_sweep_without_refit_tells():
    X, y = load_iris(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match=r"of the 9 models of the folds, in the folds \[0, 1, 2\]"):
        model = TorchSoftmaxClassifierCV(Cs=3, cv=3, refit=False, max_iter=2).fit(X, y)
    assert not model.converged_
    assert np.isnan(model.optimality_gap_)
    model = TorchSoftmaxClassifierCV(Cs=3, cv=3, refit=False).fit(X, y)
    assert model.converged_
    assert model.best_score_ == pytest.approx(model.scores_[:, 0].max(axis=1).mean())


def test_a_warning_names_some_of_many_folds():
    X, y = load_iris(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match=r"in the folds \[0, 1, 2, 3, 4, 5, \.\.\.\]"):
        TorchSoftmaxClassifierCV(Cs=[1.0], cv=LeaveOneOut(), refit=False, max_iter=2).fit(X, y)


def test_one_standard_error_rule():
    X, y = load_iris(return_X_y=True)
    best = TorchSoftmaxClassifierCV(cv=10).fit(X, y)
    simple = TorchSoftmaxClassifierCV(cv=10, refit="1se").fit(X, y)
    scores = best.scores_[:, 0]
    means, top = scores.mean(axis=0), scores.mean(axis=0).argmax()
    limit = means[top] - scores[:, top].std(ddof=1) / np.sqrt(10)
    assert simple.C_ == best.Cs_[means >= limit].min() < best.C_
    assert relative_error(simple.coef_, TorchSoftmaxClassifier(C=simple.C_).fit(X, y).coef_) < 1e-3


@pytest.mark.parametrize(
    "cv", [RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0), KFold(4, shuffle=True, random_state=0)]
)
def test_any_splitter(cv):
    X, y = load_iris(return_X_y=True)
    model = TorchSoftmaxClassifierCV(Cs=CS, cv=cv, tol=1e-12).fit(X, y)
    expected = separate(X, y, list(cv.split(X, y)), CS, tol=1e-12)
    assert relative_error(model.coefs_paths_, expected) < 1e-5


@pytest.mark.parametrize("scoring", [None, "f1_macro"])
def test_splits_of_any_form(problem, scoring):
    X, y, _ = problem
    n_rows, numbers = len(y), np.random.default_rng(0).permutation(len(y))
    train, test = numbers[:-30], numbers[-30:]
    is_train = np.isin(np.arange(n_rows), train)
    forms = [
        (is_train, ~is_train),
        (train.tolist(), test.tolist()),
        (train - n_rows, test - n_rows),
        (train[::-1], test[::-1]),
        (train.astype(np.uint16), test.astype(np.uint16)),
    ]
    expected = TorchSoftmaxClassifierCV(Cs=CS, cv=[(train, test)], scoring=scoring).fit(X, y)
    for form in forms:
        found = TorchSoftmaxClassifierCV(Cs=CS, cv=[form], scoring=scoring).fit(X, y)
        np.testing.assert_allclose(found.scores_, expected.scores_, rtol=1e-6)
        np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ([], "gives no folds"),
        ([(np.arange(300), np.arange(10))], "indices in fold 0 that do not fit 150 rows"),
        ([(np.arange(100), np.arange(100, 150)), (np.arange(150), [])], "Fold 1 of cv holds out no row"),
        ([([], np.arange(150))], "Fold 0 of cv trains on no row"),
    ],
)
def test_splits_that_are_none(cv, message):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=message):
        TorchSoftmaxClassifierCV(Cs=2, cv=cv).fit(X, y)


def test_one_validation_set():
    X, y = load_iris(return_X_y=True)
    held_out = np.where(np.arange(150) % 5 == 0, 0, -1)
    model = TorchSoftmaxClassifierCV(Cs=CS, cv=PredefinedSplit(held_out), tol=1e-12).fit(X, y)
    assert model.scores_.shape == (1, 1, 3)
    single = TorchSoftmaxClassifier(tol=1e-12).fit(X[held_out < 0], y[held_out < 0])
    assert model.scores_[0, 0, 1] == pytest.approx(
        -log_loss(y[held_out == 0], single.predict_proba(X[held_out == 0])), rel=1e-5
    )


def test_a_fold_without_a_class():
    """Its training rows say nothing of the class, which stays improbable and does not go away."""
    X, y = load_iris(return_X_y=True)
    model = TorchSoftmaxClassifierCV(Cs=CS, cv=KFold(3))
    with pytest.warns(UserWarning, match=r"Fold 0 of cv holds out rows of the class 0, of which it trains on none"):
        model.fit(X, y)  # without shuffling, each fold is a class
    single = TorchSoftmaxClassifier(C=1.0).fit(X[50:], y[50:], classes=[0, 1, 2])
    np.testing.assert_allclose(model.coefs_paths_[0, 0, 1, :, :4], single.coef_, atol=1e-3)
    with pytest.warns(UserWarning, match="of the class 'a'"):
        clone(model).fit(X, np.array(["a", "b", "c"], dtype=object)[y])
    for settings in ({"label_smoothing": 0.1}, {"fit_intercept": False}):  # there is a bound
        clone(model).set_params(**settings).fit(X, y)
    assert np.isfinite(model.scores_).all()
    assert (model.scores_ < -2).all()


@pytest.mark.parametrize("seed", [11, 14])
def test_intercepts_of_missing_classes_beside_a_fold_of_one_class(seed):
    # In float32 the rounding of the others' gradients once led them to 300 and 2,000,000.
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(40_000, 50))
    y = np.sort((X @ rng.normal(size=(50, 5)) + rng.gumbel(size=(len(X), 5))).argmax(axis=1))
    k, held_out = np.searchsorted(y, 1), np.arange(5)
    cv = [
        (np.arange(k - 5000, k), held_out),
        (np.arange(k - 16, k + 9984), held_out),
        (np.arange(20_000, 30_000), held_out + 20_000),
    ]
    sweep = TorchSoftmaxClassifierCV(
        Cs=[0.03, 3.0], cv=cv, class_weight="balanced", tol=1e-10, refit=False, scoring="accuracy"
    )
    with pytest.warns(ConvergenceWarning, match="no minimum"):  # of the first fold
        sweep.fit(X, y)
    assert np.abs(sweep.coefs_paths_[1, ..., -1]).max() < 100


@pytest.mark.parametrize("l1_ratios", [(0.0,), (0.5,)])
def test_folds_that_train_on_a_few_of_many_rows(l1_ratios):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60_000, 10))
    y = (X[:, :3] + rng.gumbel(size=(len(X), 3))).argmax(axis=1)
    cv = TimeSeriesSplit(3, max_train_size=60)
    sweep = TorchSoftmaxClassifierCV(Cs=[1.0], l1_ratios=l1_ratios, cv=cv, tol=1e-12).fit(X, y)
    expected = separate(X, y, cv.split(X), [1.0], l1_ratios=l1_ratios, tol=1e-12)
    np.testing.assert_allclose(sweep.coefs_paths_, expected, atol=1e-5)


@pytest.mark.parametrize("cv", [KFold(2), TimeSeriesSplit(3)])
def test_a_fold_of_one_class(cv):
    X, y = load_iris(return_X_y=True)
    X, y = X[:100], y[:100]
    with pytest.warns(ConvergenceWarning, match="rows of one class only"):
        model = TorchSoftmaxClassifierCV(Cs=(0.1, 1.0), cv=cv).fit(X, y)
    single = TorchSoftmaxClassifier(C=model.C_).fit(X, y)
    assert model.converged_
    np.testing.assert_allclose(model.coef_, single.coef_, rtol=1e-3)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("solver", ["auto", "lbfgs", "newton"])
def test_folds_of_one_class_are_named_and_left(n_classes, solver):
    X, y = load_iris(return_X_y=True)
    X, y = X[: 50 * n_classes], y[: 50 * n_classes]
    folds = [(np.arange(40), np.arange(30)), (np.arange(0, len(y), 2), np.arange(1, len(y), 2))]
    with pytest.warns(ConvergenceWarning, match=r"in the folds \[0\], .*rows of one class only"):
        model = TorchSoftmaxClassifierCV(Cs=(0.1, 1.0, 1e4), cv=folds, solver=solver).fit(X, y)
    assert model.n_iter_[:, :, 0].max() < 60
    second = [X[folds[1][0]], y[folds[1][0]]]
    for j, C in enumerate(model.Cs_):
        alone = TorchSoftmaxClassifier(C=C, tol=1e-12).fit(*second)
        assert relative_error(model.coefs_paths_[1, 0, j, :, :-1], alone.coef_) < 1e-3


def test_groups_and_weights_are_routed():
    X, y = load_iris(return_X_y=True)
    groups = np.arange(150) // 3 % 10
    weights = np.random.default_rng(0).uniform(size=150)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = get_scorer("neg_log_loss").set_score_request(sample_weight=True)
        model = TorchSoftmaxClassifierCV(Cs=CS, cv=GroupKFold(5), scoring=scorer)
        model.set_fit_request(sample_weight=True).fit(X, y, sample_weight=weights, groups=groups)
    folds = list(GroupKFold(5).split(X, y, groups))
    plain = TorchSoftmaxClassifierCV(Cs=CS, cv=folds).fit(X, y, weights)
    np.testing.assert_allclose(model.scores_, plain.scores_)
    with pytest.raises(ValueError, match="groups"):
        TorchSoftmaxClassifierCV().fit(X, y, groups=groups)


def test_soft_targets():
    X, y = load_iris(return_X_y=True)
    proba = TorchSoftmaxClassifier().fit(X, y).predict_proba(X)
    folds = list(StratifiedKFold(3).split(X, y))
    model = TorchSoftmaxClassifierCV(Cs=CS, cv=folds).fit(X, proba)
    train, test = folds[0]
    single = TorchSoftmaxClassifier().fit(X[train], proba[train])
    expected = (proba[test] * single.predict_log_proba(X[test])).sum(axis=1).mean()
    assert model.scores_[0, 0, 1] == pytest.approx(expected, rel=1e-4)
    assert TorchSoftmaxClassifierCV(Cs=CS, cv=3).fit(X, proba).scores_.shape == (3, 1, 3)
    two = TorchSoftmaxClassifierCV(Cs=CS, cv=3, scoring="accuracy").fit(
        X, np.column_stack([proba[:, 0], 1 - proba[:, 0]])
    )
    assert two.scores_.max() > 0.9
    with pytest.raises(ValueError, match="targets of its own"):
        TorchSoftmaxClassifierCV(class_weight="balanced", cv=3).fit(X, proba)


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_approximate_leave_one_out_is_within_a_hundredth(load):
    X, y = load(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        approximate = TorchSoftmaxClassifierCV(cv="alo").fit(X, y)
        exact = TorchSoftmaxClassifierCV(cv=LeaveOneOut(), tol=1e-6).fit(X, y)
    np.testing.assert_allclose(approximate.scores_[0, 0], exact.scores_.mean(axis=0)[0], rtol=0.01)
    assert approximate.scores_.shape == (1, 1, 10)
    assert approximate.C_ == exact.C_
    by_accuracy = TorchSoftmaxClassifierCV(cv="alo", scoring="accuracy").fit(X, y)
    assert by_accuracy.scores_[0, 0] == pytest.approx(
        TorchSoftmaxClassifierCV(cv=LeaveOneOut(), scoring="accuracy").fit(X, y).scores_.mean(axis=0)[0], abs=0.01
    )


@pytest.mark.parametrize("kind", ["heavy tails", "powers", "rare columns", "separable"])
def test_approximate_leave_one_out_knows_rows_that_other_rows_hang_on(kind):
    """By one Newton step for each row the mean log loss was a tenth too low, or a quarter too high, for some C."""
    rng = np.random.default_rng(0)
    n_features, n_classes = (30, 2) if kind == "separable" else (8, 3)
    X = rng.normal(size=(150, n_features))
    y = (X @ rng.normal(size=(n_features, n_classes)) + rng.gumbel(size=(150, n_classes))).argmax(axis=1)
    if kind == "heavy tails":
        X = np.exp(1.5 * X)
    elif kind == "powers":
        X = np.hstack([X[:, :2] ** power for power in range(1, 6)])
    elif kind == "rare columns":
        X = np.hstack([X, rng.random((150, 6)) < 0.03])
    weights = rng.uniform(0.5, 2.0, 150)
    approximate = TorchSoftmaxClassifierCV(cv="alo").fit(X, y, weights)
    exact = TorchSoftmaxClassifierCV(cv=LeaveOneOut(), refit=False, tol=1e-6).fit(X, y, weights)
    expected = np.average(exact.scores_[:, 0], axis=0, weights=weights)
    np.testing.assert_allclose(approximate.scores_[0, 0], expected, rtol=0.01)
    assert approximate.Cs_[expected.argmax()] == approximate.C_


def test_fits_without_a_row_are_near_enough_whatever_tol_is():
    X, y = load_iris(return_X_y=True)
    rough, fine = (TorchSoftmaxClassifierCV(Cs=[1e3], cv="alo", tol=tol).fit(X, y).scores_ for tol in (1e-3, 1e-9))
    np.testing.assert_allclose(rough, fine, rtol=0.05)


@pytest.mark.usefixtures("sparse_as_it_is")
@pytest.mark.parametrize("storage", ["sparse", "float32", "rows without weight"])
def test_rows_that_approximate_leave_one_out_fits_without_are_of_any_storage(storage):
    X, y = load_iris(return_X_y=True)
    weights = np.arange(150) % 5 > 0 if storage == "rows without weight" else np.ones(150)
    X = csr_array(X) if storage == "sparse" else X.astype(np.float32 if storage == "float32" else np.float64)
    approximate = TorchSoftmaxClassifierCV(Cs=[1e3], cv="alo").fit(X, y, weights)
    exact = TorchSoftmaxClassifierCV(Cs=[1e3], cv=LeaveOneOut(), refit=False).fit(X[weights > 0], y[weights > 0])
    np.testing.assert_allclose(approximate.scores_[0, 0], exact.scores_.mean(axis=0)[0], rtol=0.01)


def test_approximate_leave_one_out_says_where_rows_that_move_far_are_too_many():
    X, y = load_digits(return_X_y=True)
    with pytest.warns(
        UserWarning, match=r"cv='alo' is rough here: with C=0\.1, which scores best, the logits of \d+ rows"
    ):
        TorchSoftmaxClassifierCV(Cs=[0.1], cv="alo").fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TorchSoftmaxClassifierCV(Cs=[1e-4], cv="alo").fit(X, y)


@pytest.mark.parametrize("weighing", [{"sample_weight": True}, {"class_weight": {0: 0.2, 1: 1.0, 2: 3.0}}], ids=str)
def test_approximate_leave_one_out_of_weighted_rows(weighing):
    X, y = load_iris(return_X_y=True)
    weights = np.random.default_rng(0).uniform(0.1, 3.0, 150) if "sample_weight" in weighing else np.ones(150)
    parameters = {"Cs": (0.01, 0.1, 1.0), "class_weight": weighing.get("class_weight")}
    approximate = TorchSoftmaxClassifierCV(cv="alo", **parameters).fit(X, y, weights)
    exact = TorchSoftmaxClassifierCV(cv=LeaveOneOut(), refit=False, tol=1e-8, **parameters).fit(X, y, weights)
    expected = np.average(exact.scores_[:, 0], axis=0, weights=weights)
    np.testing.assert_allclose(approximate.scores_[0, 0], expected, rtol=0.01)


def test_the_standard_error_of_approximate_leave_one_out_is_that_of_rows():
    X, y = load_wine(return_X_y=True)
    Cs = np.logspace(-5, 0, 11)
    exact = TorchSoftmaxClassifierCV(Cs=Cs, cv=LeaveOneOut(), refit=False, tol=1e-6).fit(X, y).scores_[:, 0]  # (n, J)
    means, best = exact.mean(axis=0), exact.mean(axis=0).argmax()
    limit = means[best] - exact[:, best].std() / np.sqrt(len(y))
    chosen = TorchSoftmaxClassifierCV(Cs=Cs, cv="alo", refit="1se").fit(X, y).C_
    assert chosen == Cs[means >= limit].min() < Cs[best]
    assert chosen > Cs[means >= means[best] - 3 * exact[:, best].std() / np.sqrt(len(y))].min()


@pytest.mark.parametrize("settings", [{}, {"class_weight": "balanced"}], ids=str)
def test_rows_that_are_drawn_repeatedly_count_as_often(settings):
    X, y = load_iris(return_X_y=True)
    rng = np.random.default_rng(0)
    folds = [(train := rng.integers(150, size=150), np.setdiff1d(np.arange(150), train)) for _ in range(3)]
    model = TorchSoftmaxClassifierCV(Cs=CS, cv=folds, tol=1e-12, **settings).fit(X, y)
    assert relative_error(model.coefs_paths_, separate(X, y, folds, CS, tol=1e-12, **settings)) < 1e-5


def test_steps_of_many_folds_take_no_more_memory_than_their_weights(monkeypatch):
    """Columns weighted for each model at once took as many times that as there are columns."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 40))
    y = (X[:, 0] + rng.logistic(size=600) > 0).astype(int)
    parameters = {"Cs": [0.1], "cv": LeaveOneOut(), "refit": False, "solver": "newton"}
    whole = TorchSoftmaxClassifierCV(**parameters).fit(X, y)
    monkeypatch.setattr(tiny, "PRODUCT_BYTES", 2**22)
    tracemalloc.start()
    parts = TorchSoftmaxClassifierCV(**parameters).fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(parts.scores_, whole.scores_, rtol=1e-12)
    assert peak < 8 * 600 * 600 * 41 / 2


@pytest.mark.parametrize("seed", range(5))
def test_approximate_leave_one_out_does_not_see_collinear_columns(seed):
    # Without a penalty the Hessian is singular along them.
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(120, 3))
    y = (0.5 * X @ rng.normal(size=(3, 3)) + rng.gumbel(size=(120, 3))).argmax(axis=1)
    alone, beside = (
        TorchSoftmaxClassifierCV(Cs=[np.inf], cv="alo", tol=1e-10).fit(x, y).best_score_
        for x in (X, np.hstack([X, X @ rng.normal(size=(3, 2))]))
    )
    assert beside == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("kind", ["single row", "no weight"])
def test_approximate_leave_one_out_warns_of_classes_of_a_single_row(kind):
    X, y = load_iris(return_X_y=True)
    labels = np.array(["a", "b", "c"])[y]
    parameters = {}
    if kind == "single row":
        labels[0] = "d"
    else:
        parameters = {"class_weight": {"c": 0.0}}
    with pytest.warns(UserWarning, match=f"cv='alo' holds out rows of the class '{'d' if not parameters else 'c'}'"):
        TorchSoftmaxClassifierCV(Cs=[0.1], cv="alo", **parameters).fit(X, labels)


def test_approximate_leave_one_out_says_where_it_ends():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="only one has a positive weight: there is nothing to fit"):
        TorchSoftmaxClassifierCV(cv="alo").fit(X, y, np.eye(150)[0])
    for parameters in ({"l1_ratios": (0.5,)}, {"scoring": "f1_macro"}):
        with pytest.raises(ValueError, match="cv='alo' needs"):
            TorchSoftmaxClassifierCV(cv="alo", **parameters).fit(X, y)
    with pytest.raises(ValueError, match=r"at most 1200 parameters\. Here .*, 3003 parameters"):
        TorchSoftmaxClassifierCV(cv="alo").fit(np.random.default_rng(0).normal(size=(1200, 1000)), np.tile(y, 8))


@pytest.mark.parametrize("budget", [2**29, 1], ids=["one stack", "a stack for each fold"])
def test_callbacks_are_told_of_every_penalty(monkeypatch, budget):
    monkeypatch.setattr(sweep, "WEIGHT_BYTES", budget)
    told = []

    class Recorder(ScoringMonitor):
        def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
            told.append(("begin", context.task_name, context.task_id))

        def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
            told.append(("end", context.task_name, context.task_id))
            assert list(metadata) == ["sample_weight"]
            assert (fitted_estimator is None) == (context.task_name == "penalty")
            super().on_fit_task_end(estimator, context, X=X, y=y, metadata=metadata, fitted_estimator=fitted_estimator)

    X, y = load_iris(return_X_y=True)
    monitor = Recorder(scoring="accuracy")
    clf = TorchSoftmaxClassifierCV(Cs=4, cv=3).set_callbacks(monitor).fit(X, y, sample_weight=np.ones(150))
    tasks = [(when, "penalty", j) for j in range(4) for when in ("begin", "end")]
    assert told == [("begin", "fit", 0), *tasks, ("end", "fit", 0)]
    assert monitor.get_logs().data_as_pandas["accuracy"].iloc[-1] == np.mean(clf.predict(X) == y)


def test_scores_that_are_nan():
    X, y = load_iris(return_X_y=True)

    def score(model, X, y):
        return np.nan if abs(model.coef_).max() < 0.3 else 1.0

    model = TorchSoftmaxClassifierCV(Cs=(0.001, 1.0, 100.0), cv=3, scoring=score)
    with pytest.warns(UserWarning, match="Some scores are nan"):
        model.fit(X, y)
    assert model.C_ == 1.0
    np.testing.assert_array_equal(model.cv_results_["rank_test_score"], [3, 1, 1])
    with pytest.raises(ValueError, match="nan for every C, first in fold 0"):
        TorchSoftmaxClassifierCV(Cs=3, cv=3, scoring=lambda *_: np.nan).fit(X, y)


def test_splits_that_can_be_gone_through_once_are_routed():
    X, y = load_iris(return_X_y=True)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = get_scorer("accuracy").set_score_request(sample_weight=True)
        model = TorchSoftmaxClassifierCV(Cs=(1.0,), cv=KFold(3).split(X), scoring=scorer)
        model.set_fit_request(sample_weight=True).fit(X, y, sample_weight=np.ones(150))
    assert model.scores_.shape == (3, 1, 1)


def test_metadata_of_a_score_goes_to_the_scorer():
    X, y = load_iris(return_X_y=True)
    peer = LogisticRegressionCV(use_legacy_attributes=False, cv=3, Cs=2, l1_ratios=(0,), max_iter=1000)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(lambda y, found, groups: float(len(groups)))
        for model in (clone(peer), TorchSoftmaxClassifierCV(cv=3, Cs=2)):
            fitted = model.set_params(scoring="accuracy").fit(X, y)
            fitted.set_params(scoring=scorer.set_score_request(groups=True))
            assert fitted.score(X, y, groups=np.arange(150)) == 150
            fitted.set_params(scoring="accuracy")
            with pytest.raises(UnsetMetadataPassedError):
                fitted.score(X, y, sample_weight=np.ones(150))


def test_scorers_see_the_parameters_of_the_fit():
    X, y = load_iris(return_X_y=True)
    asked = {"label_smoothing": 0.1, "tol": 1e-5, "class_weight": {0: 2.0}, "fit_intercept": False}
    seen = []

    def scorer(estimator, X, y):
        seen.append(estimator.get_params())
        return -abs(estimator.C - 1) - estimator.l1_ratio

    model = TorchSoftmaxClassifierCV(Cs=[0.1, 1.0, 10.0], l1_ratios=[0.0, 0.5], cv=2, scoring=scorer, **asked)
    assert (model.fit(X, y).C_, model.l1_ratio_) == (1.0, 0.0)
    assert [(p["l1_ratio"], p["C"]) for p in seen] == 2 * [(r, C) for r in (0.0, 0.5) for C in (0.1, 1.0, 10.0)]
    assert all(asked.items() <= p.items() for p in seen)


@dataclasses.dataclass
class Agreement:
    """A scorer without a hash."""

    sign: float = 1.0

    def __call__(self, estimator, X, y):
        return self.sign * (estimator.predict(X) == y).mean()


def test_a_scorer_need_not_have_a_hash():
    X, y = load_iris(return_X_y=True)
    model = TorchSoftmaxClassifierCV(Cs=3, scoring=Agreement()).fit(X, y)
    np.testing.assert_allclose(model.scores_, TorchSoftmaxClassifierCV(Cs=3, scoring="accuracy").fit(X, y).scores_)


@pytest.mark.parametrize("scoring", ["f1_macro", "neg_log_loss"])
@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (np.asarray, lambda y: pd.Index(np.array(list("abc"))[y])),
        (np.asarray, list),
        (bsr_array, np.asarray),
        (coo_array, np.asarray),
    ],
    ids=["index", "list", "blocks", "coordinates"],
)
def test_any_scorer_takes_what_fit_takes(scoring, rows, labels):
    X, y = load_iris(return_X_y=True)
    model = TorchSoftmaxClassifierCV(Cs=[1.0, 10.0], cv=2, scoring=scoring, tol=1e-12)
    plain, found = clone(model).fit(X, np.asarray(labels(y))), model.fit(rows(X), labels(y))
    np.testing.assert_allclose(found.scores_, plain.scores_, atol=1e-5)


def test_infinite_scores_are_scores():
    X, y = load_iris(return_X_y=True)
    for refit in (True, "1se"):
        model = TorchSoftmaxClassifierCV(Cs=3, refit=refit, scoring=lambda *_: -np.inf).fit(X, y)
        assert model.C_ == 1e-4
        scorer = lambda estimator, *_: -np.inf if estimator.C == 1 else -1.0  # noqa: E731
        assert TorchSoftmaxClassifierCV(Cs=[1.0, 2.0], refit=refit, scoring=scorer).fit(X, y).C_ == 2


@pytest.mark.parametrize("score", ["x", {"a": 1}, [1.0, 2.0], None])
def test_scorers_that_give_no_number(score):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="scoring must give a number for each model, but gave"):
        TorchSoftmaxClassifierCV(Cs=2, cv=2, scoring=lambda *_: score).fit(X, y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"Cs": ["a"]}, "Cs must be positive numbers"),
        ({"Cs": [[1.0], [2.0, 3.0]]}, "Cs must be positive numbers"),
        ({"l1_ratios": ["x"]}, "l1_ratios must be numbers from 0 to 1"),
        ({"scoring": accuracy_score}, "make_scorer"),
    ],
)
def test_parameters_that_are_none(parameters, message):
    with pytest.raises(ValueError, match=message):
        TorchSoftmaxClassifierCV(**parameters).fit(*load_iris(return_X_y=True))


@pytest.mark.parametrize("weighs", ["sample_weight", "class_weight"])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"cv": "alo"},
        {"l1_ratios": (0.5,)},
        {"refit": False},
        {"scoring": "matthews_corrcoef"},
        {"scoring": "accuracy"},
    ],
    ids=str,
)
def test_rows_of_weight_zero_are_absent(parameters, weighs):
    X, y = load_iris(return_X_y=True)
    is_there = np.random.default_rng(0).random(150) < 0.8 if weighs == "sample_weight" else y < 2
    hidden, (there, absent) = np.where(is_there[:, None], X, 1e308), map(np.flatnonzero, (is_there, ~is_there))
    splits = list(StratifiedKFold(3).split(X[there], y[there]))
    beside = [tuple(np.concatenate([there[part], absent]) for part in split) for split in splits]

    def fit(X, y, splits, weights, class_weight=None):
        how = {"cv": splits, "Cs": 3, "class_weight": class_weight} | parameters
        return TorchSoftmaxClassifierCV(**how).fit(X, y, weights)

    if weighs == "sample_weight":
        a, b = fit(hidden, y, beside, is_there * 1.0), fit(X[there], y[there], splits, None)
    else:
        weights = is_there * 1.0  # of the scores, which know nothing of classes
        a = fit(hidden, y, beside, weights, {0: 1.0, 1: 1.0, 2: 0.0})
        b = fit(np.vstack([X[there], X[:1]]), np.append(y[there], 2), splits, np.append(np.ones(len(there)), 0.0))
    np.testing.assert_array_equal(a.coefs_paths_, b.coefs_paths_)
    np.testing.assert_array_equal(a.coef_, b.coef_)
    np.testing.assert_allclose(a.scores_, b.scores_, rtol=1e-12)
    assert a.C_ == b.C_


def test_scores_of_rows_that_are_not_trained_on_by_leave_one_out():
    X, y = load_iris(return_X_y=True)
    trains, scores = np.arange(150) % 3 > 0, np.arange(150) % 3 == 0
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = get_scorer("neg_log_loss").set_score_request(sample_weight=False)
        model = TorchSoftmaxClassifierCV(Cs=[1.0], cv="alo", scoring=scorer).set_fit_request(sample_weight=True)
        by_itself = model.fit(X, y, sample_weight=trains * 1.0)
    rows = np.array(
        [log_loss(y[i : i + 1], by_itself.predict_proba(X[i : i + 1]), labels=[0, 1, 2]) for i in range(150)]
    )
    alone = clone(model).fit(X[trains], y[trains])
    both = (-rows[scores].sum() + alone.best_score_ * trains.sum()) / 150
    np.testing.assert_allclose(by_itself.best_score_, both, rtol=1e-4)


def test_an_imported_model_scores_by_any_scorer():
    X, y = load_iris(return_X_y=True)
    known = LogisticRegression(max_iter=1000).fit(X, y)
    model = TorchSoftmaxClassifierCV.from_sklearn(known).set_params(scoring="f1_macro")
    np.testing.assert_allclose(model.score(X, y), f1_score(y, known.predict(X), average="macro"))


def test_rows_without_weight_count_for_no_standard_error():
    X, y = load_iris(return_X_y=True)
    parameters = {"cv": "alo", "refit": "1se", "Cs": np.logspace(-3, 4, 30)}
    plain = TorchSoftmaxClassifierCV(**parameters).fit(X, y)
    weights = np.concatenate([np.ones(150), np.zeros(3000)])
    padded = TorchSoftmaxClassifierCV(**parameters).fit(np.tile(X, (21, 1)), np.tile(y, 21), weights)
    assert padded.C_ == plain.C_


def test_the_scorer_says_whether_a_score_takes_weights():
    X, y = load_iris(return_X_y=True)
    weights = np.random.default_rng(0).uniform(size=150)
    with sklearn.config_context(enable_metadata_routing=True):
        found = []
        peer = LogisticRegressionCV(Cs=[0.01], l1_ratios=(0,), max_iter=1000, use_legacy_attributes=False)
        for model in (TorchSoftmaxClassifierCV(Cs=[0.01]), peer):
            scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
            model.set_params(scoring=scorer).set_fit_request(sample_weight=True)
            scaler = StandardScaler().set_fit_request(sample_weight=False)
            pipeline = make_pipeline(scaler, model).fit(X, y, sample_weight=weights)
            found.append(pipeline.score(X, y, sample_weight=weights))
            search = GridSearchCV(model, {"fit_intercept": [True, False]}).fit(X, y, sample_weight=weights)
            found.append(search.score(X, y, sample_weight=weights))
    np.testing.assert_allclose(found[:2], found[2:], rtol=1e-12)


@pytest.mark.parametrize("scoring", ["rand_score", lambda model, X, y: model.score(X, y)], ids=["name", "function"])
def test_a_scorer_that_takes_no_weights_is_refused_before_the_fits(scoring, calls_of):
    X, y = load_iris(return_X_y=True)
    solved, model = calls_of(classifier_cv, "solve_sweep"), TorchSoftmaxClassifierCV(Cs=2, scoring=scoring)
    with pytest.raises(ValueError, match=r"scoring=.* takes no sample_weight, by which scores are weighted"):
        model.fit(X, y, np.ones(150))
    assert not solved
    assert model.fit(X, y).best_score_ > 0.8
    taking = [lambda model, X, y, sample_weight: 1.0, lambda model, X, y, **known: 1.0]
    for function in taking:
        assert clone(model).set_params(scoring=function).fit(X, y, np.ones(150)).best_score_ == 1


def test_scorers_get_rows_of_half_precision_as_they_are():
    X, y = load_iris(return_X_y=True)
    kinds = []
    scorer = lambda model, X, y: (kinds.append((type(X), X.dtype)), model.predict_proba(X).astype(float).mean())[1]  # noqa: E731
    model = TorchSoftmaxClassifierCV(Cs=2, cv=2, scoring=scorer).fit(X.astype(np.float16), y)
    model.score(X.astype(np.float16), y)
    assert set(kinds) == {(np.ndarray, np.dtype(np.float16))}


def test_weights_of_a_score_may_have_another_name():
    X, y = load_iris(return_X_y=True)
    weights = np.random.default_rng(0).uniform(size=150)
    plain = TorchSoftmaxClassifierCV(Cs=[0.01], scoring="f1_macro").fit(X, y)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = get_scorer("f1_macro").set_score_request(sample_weight="importance")
        model = TorchSoftmaxClassifierCV(Cs=[0.01], scoring=scorer).fit(X, y)
        found = model.score(X, y, importance=weights)
    assert found == pytest.approx(f1_score(y, plain.predict(X), average="macro", sample_weight=weights))
    assert found != pytest.approx(plain.score(X, y))


def test_rows_without_weight_leave_no_mark_on_a_score():
    X, y = load_iris(return_X_y=True)
    model = TorchSoftmaxClassifierCV(Cs=[1e3, 1e4]).fit(X, y)
    X[0], weights = 1e308, np.r_[0.0, np.ones(149)]
    assert model.score(X, y, weights) == pytest.approx(model.score(X[1:], y[1:]))


def test_a_mean_over_classes_of_scores_by_logits_has_a_positive_class():
    X, y = load_breast_cancer(return_X_y=True)
    y = np.array(["no", "yes"])[y]
    by_mean = make_scorer(average_precision_score, response_method="decision_function", average="macro")
    found, expected = (
        TorchSoftmaxClassifierCV(Cs=2, cv=3, scoring=scoring).fit(X, y) for scoring in (by_mean, "average_precision")
    )
    np.testing.assert_array_equal(found.scores_, expected.scores_)


def test_a_scalar_weighs_all_rows_alike():
    X, y = load_iris(return_X_y=True)
    scores = [TorchSoftmaxClassifierCV(Cs=2).fit(X, y, weights).scores_ for weights in (2.0, np.full(150, 2.0))]
    np.testing.assert_array_equal(*scores)


def test_rows_in_blocks_are_refused():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(TypeError, match="X is RowBlocks, which only TorchSoftmaxClassifier takes"):
        TorchSoftmaxClassifierCV().fit(RowBlocks([(X, y)]), y)


def test_parameters_and_scores_are_not_those_that_are_kept():
    Cs, l1_ratios = np.array([0.1, 1.0]), np.array([0.0])
    clf = TorchSoftmaxClassifierCV(Cs=Cs, l1_ratios=l1_ratios, cv=2).fit(*load_iris(return_X_y=True))
    for kept, other in (
        (clf.Cs_, Cs),
        (clf.l1_ratios_, l1_ratios),
        (clf.scores_, clf.cv_results_["split0_test_score"]),
    ):
        assert not np.shares_memory(kept, other)


def test_a_failing_fit_leaves_the_old_one():
    X, y = load_iris(return_X_y=True)
    model = TorchSoftmaxClassifierCV(Cs=CS, cv=3).fit(X, y)
    before = dict(vars(model))
    bad = X.copy()
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.fit(bad, y)
    assert all(vars(model)[name] is value for name, value in before.items())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"Cs": (1.0, -1.0)}, "Cs must be positive numbers"),
        ({"l1_ratios": (2.0,)}, "l1_ratios must be numbers from 0 to 1"),
        ({"l1_ratios": (0.5,), "solver": "newton"}, "takes no L1 penalty, but l1_ratios=0.5"),
        ({"Cs": (1.0, np.inf), "solver": "proximal"}, "needs a penalty, but Cs=inf"),
    ],
)
def test_bad_parameters(parameters, message):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=message):
        TorchSoftmaxClassifierCV(**parameters).fit(X, y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_iter": 1}, "did not converge"),
        ({"cv": KFold(3)}, "holds out rows of the class"),
        ({"cv": "alo", "class_weight": {2: 0.0}}, "holds out rows of the class"),
        ({"scoring": lambda model, *_: np.nan if model.C < 1 else 1.0}, "Some scores are nan"),
    ],
    ids=["max_iter", "a fold without a class", "each row", "nan"],
)
def test_warnings_name_the_line_that_called_fit(parameters, message):
    X, y = load_iris(return_X_y=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        TorchSoftmaxClassifierCV(Cs=[0.1, 1.0], **parameters).fit(X, y)
    of_this = [warning for warning in said if message in str(warning.message)]
    assert [warning.filename for warning in of_this] == [__file__]


def test_no_penalty_needs_no_solver_for_l1():
    X, y = load_iris(return_X_y=True)
    y = np.roll(y, 20)  # not separable
    model = TorchSoftmaxClassifierCV(Cs=[np.inf], l1_ratios=(0.5,), solver="newton").fit(X, y)
    assert relative_error(model.coef_, TorchSoftmaxClassifier(C=np.inf).fit(X, y).coef_) < 1e-3


@pytest.mark.parametrize("Cs", [[1e-11, 1e-2], [1e-8, 1e-2], [1e-4, 1e4]], ids=str)
def test_a_rise_of_c_by_orders_of_magnitude(Cs):
    # The metric of a C whose penalty was all of the curvature took the start for the minimum.
    rng = np.random.default_rng(10)
    X = rng.normal(size=(998, 143))
    y = (X @ rng.normal(size=(143, 2)) / 4 + rng.gumbel(size=(998, 2))).argmax(axis=1)
    found = TorchSoftmaxClassifierCV(Cs=Cs, cv=3, refit=False).fit(X, y)
    exact = TorchSoftmaxClassifierCV(Cs=Cs, cv=3, refit=False, solver="newton", tol=1e-12).fit(X, y)
    np.testing.assert_allclose(found.scores_, exact.scores_, rtol=1e-3)


def test_a_sweep_goes_on_from_where_the_line_leads():
    """Deterministic counts: from the last minima the three took 171, 197 and 183 iterations."""
    for load, most in ((load_iris, 126), (load_wine, 156), (load_breast_cancer, 171)):
        assert TorchSoftmaxClassifierCV().fit(*load(return_X_y=True)).n_iter_.sum() <= most


def test_a_sweep_over_many_classes(many_classes):
    """Begun near their minima, folds take a metric class by class, and share it: 542 iterations without."""
    sweep = TorchSoftmaxClassifierCV(Cs=np.logspace(-3, 3, 7), cv=3, refit=False).fit(*many_classes)
    assert sweep.n_iter_.sum() <= 290  # 238 when this was written


def test_a_dear_metric_serves_the_next_penalties(calls_of):
    """Deterministic counts: digits took one for each of ten C."""
    made = calls_of(metrics, "dense_metric")
    sweep = TorchSoftmaxClassifierCV(refit=False).fit(*load_digits(return_X_y=True))
    assert len(made) <= 6  # 5 when this was written
    assert sweep.n_iter_.sum() <= 360  # 333 when this was written


def test_products_stay_as_they_are_where_a_metric_is_kept(capsys):
    TorchSoftmaxClassifierCV(refit=False, verbose=1).fit(*load_digits(return_X_y=True))
    said = capsys.readouterr().out.splitlines()
    assert "1,797 rows, products in torch.float64" in said
    assert not any(line.startswith("products in") for line in said)


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_a_poor_metric_is_replaced(monkeypatch, factor):
    """Whatever a run for another penalty has left, the minima are those of separate fits."""
    kept, used = metrics.Metric.kept, []
    spoilt = lambda metric, numbers: used.append(None) or kept(metric, factor * numbers)  # noqa: E731
    monkeypatch.setattr(metrics.Metric, "kept", spoilt)
    X, y = load_digits(return_X_y=True)
    folds, Cs = list(StratifiedKFold(3).split(X, y)), (0.1, 1.0, 10.0)
    model = TorchSoftmaxClassifierCV(Cs=Cs, cv=folds, tol=1e-10).fit(X, y)
    assert used
    assert relative_error(model.coefs_paths_, separate(X, y, folds, Cs, tol=1e-11)) < 1e-4


def test_penalties_that_no_longer_matter_cost_no_pass(calls_of):
    """Of a table with many rows for each parameter the minima are the same from some C on."""
    X, y = make_classification(40_000, 5, n_informative=5, n_redundant=0, n_classes=3, random_state=0)
    passes, counts = calls_of(Run, "evaluate"), []
    for end in (2, 6):
        passes.clear()
        model = TorchSoftmaxClassifierCV(Cs=np.logspace(-4, end, end + 5), refit=False).fit(X, y)
        counts.append(len(passes))
    assert (model.n_iter_[..., 7:] == 0).all()
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("Cs", [(1.0, 1.0, 0.1), (0.1, 1.0, 1.001, 100.0), (0.1, 1.0, 10.0, np.inf), (3.0,)])
def test_any_values_of_C(problem, Cs):
    X, y, _ = problem
    model = TorchSoftmaxClassifierCV(Cs=Cs, cv=3, tol=1e-12).fit(X, y)
    expected = separate(X, y, StratifiedKFold(3).split(X, y), Cs, tol=1e-12)
    np.testing.assert_allclose(model.coefs_paths_, expected, rtol=1e-4, atol=1e-5)


def test_models_that_do_not_converge_are_counted():
    X, y = load_wine(return_X_y=True)
    with pytest.warns(UserWarning, match=r"15 of the 15 models of the folds.* did not converge.*raise max_iter"):
        TorchSoftmaxClassifierCV(Cs=CS, max_iter=2, refit=False).fit(X, y)


def test_a_last_fit_that_does_not_converge_is_told(monkeypatch):
    X, y = load_wine(return_X_y=True)
    found = classifier_cv.solve_refit

    def short(estimator, *known):
        return found(clone(estimator).set_params(max_iter=1, tol=1e-15), *known)

    monkeypatch.setattr(classifier_cv, "solve_refit", short)
    with pytest.warns(UserWarning, match=r"all rows with C=1 did not converge.*raise max_iter"):
        model = TorchSoftmaxClassifierCV(Cs=[1.0]).fit(X, y)
    assert not model.converged_


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0}])
def test_the_last_fit_is_that_of_all_rows(class_weight):
    X, y = load_wine(return_X_y=True)
    weights = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    parameters = {"class_weight": class_weight, "tol": 1e-12}
    model = TorchSoftmaxClassifierCV(Cs=CS, **parameters).fit(X, y, weights)
    alone = TorchSoftmaxClassifier(C=model.C_, **parameters).fit(X, y, weights)
    np.testing.assert_allclose(model.coef_, alone.coef_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.intercept_, alone.intercept_, rtol=1e-4, atol=1e-5)


def test_a_tiny_sweep_is_led_along_the_tangents(monkeypatch):
    from skl_softmax.solvers.run import Run

    evaluate, points = Run.evaluate, []
    monkeypatch.setattr(Run, "evaluate", lambda run, theta: points.append(theta) or evaluate(run, theta))
    TorchSoftmaxClassifierCV(cv=5).fit(*load_iris(return_X_y=True))
    assert len(points) <= 35  # 40 by secants


class TestScore:
    """`score` is what the held-out rows get, also where some classes are not among them."""

    @pytest.mark.parametrize("scoring", [None, "neg_log_loss", "accuracy", get_scorer("neg_log_loss")], ids=str)
    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_of_any_rows(self, scoring, n_classes):
        X, y = load_iris(return_X_y=True)
        X, y = X[50 * (3 - n_classes) :], np.array(["a", "b", "c"])[y[50 * (3 - n_classes) :]]
        weights = np.random.default_rng(0).uniform(size=len(y))
        clf = TorchSoftmaxClassifierCV(Cs=[0.1, 10.0], scoring=scoring).fit(X, y)
        for rows in (slice(0, 1), slice(0, 60), slice(None)):
            proba = clf.predict_proba(X[rows])[np.arange(len(y[rows])), np.searchsorted(clf.classes_, y[rows])]
            by_row = clf.predict(X[rows]) == y[rows] if scoring == "accuracy" else np.log(proba)
            assert clf.score(X[rows], y[rows]) == pytest.approx(by_row.mean(), rel=1e-12)
            expected = np.average(by_row, weights=weights[rows])
            assert clf.score(X[rows], y[rows], weights[rows]) == pytest.approx(expected, rel=1e-12)
        assert clf.score(torch.from_numpy(X), y) == pytest.approx(clf.score(csr_array(X), y), rel=1e-12)

    def test_of_probabilities(self):
        X, y = load_iris(return_X_y=True)
        proba = 0.9 * np.eye(3)[y] + 0.1 / 3
        clf = TorchSoftmaxClassifierCV(Cs=[0.1, 10.0]).fit(X, proba)
        assert clf.score(X, proba) == pytest.approx((proba * clf.predict_log_proba(X)).sum(axis=1).mean())

    @pytest.mark.parametrize("scoring", ["neg_brier_score", "f1_macro"])
    def test_tensors_are_scored_as_arrays(self, scoring):
        X, y = load_iris(return_X_y=True)
        clf = TorchSoftmaxClassifierCV(Cs=[1.0], scoring=scoring).fit(X, y)
        assert clf.score(torch.from_numpy(X), torch.from_numpy(y)) == clf.score(X, y)

    @pytest.mark.parametrize("scoring", [None, "neg_brier_score"])
    def test_folds_that_hold_out_nothing_that_counts_are_named(self, scoring):
        X, y = load_iris(return_X_y=True)
        cv, weights = PredefinedSplit(np.arange(150) % 3), (np.arange(150) % 3 > 0).astype(float)
        with pytest.raises(ValueError, match="Fold 0 of cv holds out no row with a positive weight"):
            TorchSoftmaxClassifierCV(Cs=[1.0], cv=cv, scoring=scoring).fit(X, y, weights)

    def test_unknown_labels_are_misses(self):
        X, y = load_iris(return_X_y=True)
        clf = TorchSoftmaxClassifierCV(Cs=[1.0], scoring="accuracy").fit(X[:100], y[:100])
        assert clf.score(X, y) == (clf.predict(X) == y).mean()
        assert clf.score(torch.from_numpy(X), torch.from_numpy(y)) == clf.score(X, y)

    def test_a_scorer_may_ask_for_the_score(self):
        X, y = load_iris(return_X_y=True)
        clf = TorchSoftmaxClassifierCV(Cs=[1.0], scoring=lambda model, X, y: model.score(X, y)).fit(X, y)
        assert clf.score(X, y) == (clf.predict(X) == y).mean()

    def test_what_cannot_be_scored(self):
        X, y = load_iris(return_X_y=True)
        with pytest.raises(NotFittedError):
            TorchSoftmaxClassifierCV().score(X, y)
        clf = TorchSoftmaxClassifierCV(Cs=[1.0]).fit(X, y)
        with pytest.raises(ValueError, match=r"y holds the labels \[3\], which are not among the classes"):
            clf.score(X, np.where(y == 2, 3, y))
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            clf.score(X, y[1:])
        with pytest.raises(ValueError, match="at least one non-zero"):
            clf.score(X, y, np.zeros(150))
        for wrong in (np.nan, -1.0):
            with pytest.raises(ValueError, match="Negative values or NaN in sample_weight: that of row 3"):
                clf.score(X, y, np.where(np.arange(150) == 3, wrong, 1.0))
        with pytest.raises(ValueError, match="sample_weight contains infinity"):
            clf.score(X, y, np.full(150, np.inf))
        with pytest.raises(ValueError, match="y holds no label in row 0"):
            clf.score(X, [None] * 150)


ASKING_FOR_CLASSES = ["neg_brier_score", "d2_log_loss_score", "d2_brier_score", "top_k_accuracy"]


class TestScorers:
    @pytest.mark.parametrize("scoring", ASKING_FOR_CLASSES)
    def test_folds_that_lack_a_class(self, scoring):
        X, y = load_iris(return_X_y=True)
        X, y = X[:104], y[:104]
        cv = KFold(5, shuffle=True, random_state=1)
        model = TorchSoftmaxClassifierCV(Cs=[0.1, 10.0], cv=cv, scoring=scoring, refit=False).fit(X, y)
        theirs = LogisticRegressionCV(
            Cs=[0.1, 10.0],
            cv=cv,
            scoring=scoring,
            l1_ratios=(0.0,),
            use_legacy_attributes=False,
            tol=1e-8,
            max_iter=10**4,
        )
        np.testing.assert_allclose(model.scores_, theirs.fit(X, y).scores_, rtol=1e-4)

    @pytest.mark.parametrize("scoring", ["neg_brier_score", "d2_brier_score", "f1", "precision", "jaccard"])
    @pytest.mark.parametrize("labels", [["no", "yes"], [1, 2], [0, 1]])
    def test_the_last_of_two_classes_is_the_positive_one(self, scoring, labels):
        X, y = load_breast_cancer(return_X_y=True)
        settings = {"Cs": [0.1, 10.0], "cv": 3, "scoring": scoring}
        found = TorchSoftmaxClassifierCV(**settings).fit(X, np.array(labels)[y]).scores_
        if labels == [1, 2] and scoring in ("f1", "precision", "jaccard"):  # 1 is what these call positive
            settings["scoring"] = make_scorer(
                {"f1": f1_score, "precision": precision_score, "jaccard": jaccard_score}[scoring], pos_label=0
            )
        np.testing.assert_array_equal(found, TorchSoftmaxClassifierCV(**settings).fit(X, y).scores_)

    @pytest.mark.parametrize("name", ["neg_log_loss", "accuracy"])
    def test_scorers_of_measures_are_these(self, name):
        X, y = load_iris(return_X_y=True)
        weights = np.random.default_rng(0).uniform(size=150)
        for cv in (3, "alo"):
            with sklearn.config_context(enable_metadata_routing=True):
                scorer = get_scorer(name).set_score_request(sample_weight=True)
                model = TorchSoftmaxClassifierCV(Cs=[0.1, 10.0], cv=cv, scoring=scorer)
                model.set_fit_request(sample_weight=True).fit(X, y, sample_weight=weights)
            expected = TorchSoftmaxClassifierCV(Cs=[0.1, 10.0], cv=cv, scoring=name).fit(X, y, weights)
            np.testing.assert_array_equal(model.scores_, expected.scores_)

    @pytest.mark.parametrize("kind", [float, torch.bfloat16], ids=str)
    def test_weights_of_any_form(self, kind):
        X, y = load_iris(return_X_y=True)
        weights = 2.0 if kind is float else torch.full((150,), 2, dtype=kind)
        model = TorchSoftmaxClassifierCV(Cs=[0.1, 10.0], cv=3, scoring="f1_macro").fit(X, y, weights)
        plain = np.full(150, 2.0)
        expected = TorchSoftmaxClassifierCV(Cs=[0.1, 10.0], cv=3, scoring="f1_macro").fit(X, y, plain)
        np.testing.assert_allclose(model.scores_, expected.scores_, rtol=1e-12)

    def test_probabilities_and_scorers_of_labels(self):
        X, y = load_iris(return_X_y=True)
        proba = 0.9 * np.eye(3)[y] + 0.1 / 3
        with pytest.raises(ValueError, match="scoring='f1_macro' wants labels, but y holds probabilities"):
            TorchSoftmaxClassifierCV(scoring="f1_macro").fit(X, proba)
        for targets in (proba, np.c_[proba[:, 0], proba[:, 1:].sum(axis=1)]):
            with pytest.raises(ValueError, match=r"wants labels, but y holds probabilities\. Pass a splitter"):
                TorchSoftmaxClassifierCV(cv=StratifiedKFold(3)).fit(X, targets)
        with pytest.raises(ValueError, match="'groups' parameter should not be None"):
            TorchSoftmaxClassifierCV(cv=GroupKFold(3)).fit(X, proba)

        def soft(targets, found):
            return (targets * np.log(found)).sum(axis=1).mean()

        settings = {"Cs": [1.0], "cv": KFold(3, shuffle=True, random_state=0)}
        scorer = make_scorer(soft, response_method="predict_proba")
        found, expected = (TorchSoftmaxClassifierCV(scoring=s, **settings).fit(X, proba) for s in (scorer, None))
        np.testing.assert_allclose(found.scores_, expected.scores_, rtol=1e-9)

    def test_scorers_of_other_classes_are_called(self):
        class Mine(type(get_scorer("neg_log_loss"))):
            def _score(self, *args, **kwargs):
                return -7.0

        X, y = load_iris(return_X_y=True)
        scoring = Mine(log_loss, -1, {}, "predict_proba")
        assert (TorchSoftmaxClassifierCV(Cs=[1.0], cv=3, scoring=scoring).fit(X, y).scores_ == -7).all()

    def test_a_mean_over_classes_has_no_positive_one(self):
        X, y = load_breast_cancer(return_X_y=True)
        scoring = make_scorer(f1_score, average="macro")
        found = TorchSoftmaxClassifierCV(Cs=[1.0], cv=3, scoring=scoring).fit(X, np.array(["no", "yes"])[y])
        np.testing.assert_array_equal(found.scores_, clone(found).set_params(scoring="f1_macro").fit(X, y).scores_)

    def test_probabilities_that_do_not_quite_add_up(self):
        X, y = load_iris(return_X_y=True)
        X, proba = X[:100], np.eye(2)[y[:100]]
        settings = {"Cs": [1.0, 1e4], "cv": KFold(3, shuffle=True, random_state=0)}
        found, expected = (TorchSoftmaxClassifierCV(**settings).fit(X, p) for p in ((1 + 9e-5) * proba, proba))
        np.testing.assert_allclose(found.scores_, expected.scores_, rtol=1e-9)


class Triples:
    """A splitter with validation rows besides."""

    def split(self, X, y=None, groups=None):
        yield np.arange(50), np.arange(50, 100), np.arange(100, 150)

    def get_n_splits(self, X=None, y=None, groups=None):
        return 1


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (Triples(), "pairs of training and test indices, got .*too many values"),
        ([(1, 2, 3)], "pairs of training and test indices, got .*too many values"),
        ([1, 2], "pairs of training and test indices, got .*cannot unpack"),
        ([(np.arange(150), 5)], "of one dimension, but fold 0 has some of 0"),
        ([(np.arange(150)[:, None], np.arange(5))], "of one dimension, but fold 0 has some of 2"),
    ],
    ids=["splitter", "three", "numbers", "number", "column"],
)
def test_folds_that_are_none_are_named(cv, message):
    with pytest.raises(ValueError, match=message):
        TorchSoftmaxClassifierCV(cv=cv).fit(*load_iris(return_X_y=True))


def test_folds_in_an_array():
    X, y = load_iris(return_X_y=True)
    folds = list(StratifiedKFold(2).split(X, y))
    found, expected = (TorchSoftmaxClassifierCV(Cs=2, cv=cv).fit(X, y) for cv in (np.array(folds), folds))
    np.testing.assert_array_equal(found.scores_, expected.scores_)


def test_classes_that_weigh_nothing_do_not_count_where_weights_are_balanced():
    X, y = load_iris(return_X_y=True)
    weights = (y < 2) * 1.0
    settings = {"class_weight": "balanced", "tol": 1e-12}
    single = TorchSoftmaxClassifier(**settings).fit(X, y, weights)
    search = TorchSoftmaxClassifierCV(Cs=[1.0], cv=KFold(3, shuffle=True, random_state=0), **settings)
    np.testing.assert_allclose(search.fit(X, y, weights).coef_, single.coef_, rtol=1e-5, atol=1e-8)
    without = TorchSoftmaxClassifier(**settings).fit(X[:100], y[:100], classes=[0, 1, 2])
    np.testing.assert_allclose(single.coef_, without.coef_, rtol=1e-5, atol=1e-8)


def test_without_a_penalty_after_one_of_l1():
    X, y = load_wine(return_X_y=True)
    y = np.random.default_rng(0).permutation(y)  # not separable
    model = TorchSoftmaxClassifierCV(Cs=(0.1, np.inf), l1_ratios=(1.0,), cv=3, tol=1e-12).fit(X, y)
    for fold, (train, _) in enumerate(StratifiedKFold(3).split(X, y)):
        alone = TorchSoftmaxClassifier(C=np.inf, tol=1e-12).fit(X[train], y[train])
        assert relative_error(model.coefs_paths_[fold, 0, 1, :, :-1], alone.coef_) < 1e-5


def test_a_penalty_beyond_what_floats_hold_is_named():
    X, y = load_iris(return_X_y=True)
    for model in (TorchSoftmaxClassifierCV(Cs=[5e-324]), TorchSoftmaxClassifier(C=5e-324)):
        with pytest.raises(ValueError, match="C=5e-324 is so small"):
            model.fit(X, y)


def test_intercepts_of_classes_that_no_row_of_a_fold_has_end():
    # They have no minimum; what rounding left of their curvature took them to 1e15, and all other digits with them.
    rng = np.random.default_rng(6)
    X = rng.standard_normal((60, 2))
    y = (3 * X @ rng.standard_normal((2, 3)) + rng.gumbel(size=(60, 3))).argmax(axis=1)
    y[:2] = 3, 4
    folds = [(np.arange(2, 40), np.arange(40, 60)), (np.arange(20, 60), np.arange(2, 20))]
    model = TorchSoftmaxClassifierCV(Cs=[0.01, 1, 1e4, 1e9], cv=folds, scoring="accuracy", tol=1e-10).fit(X, y)
    assert np.abs(model.coefs_paths_[..., -1]).max() < 100
    assert model.n_iter_.max() < 50


def test_callbacks_are_taken_down_where_a_fit_fails():
    class Monitor(ScoringMonitor):
        is_up = False

        def setup(self, **known):
            self.is_up = True
            super().setup(**known)

        def teardown(self, **known):
            self.is_up = False
            super().teardown(**known)

    def broken(estimator, X, y):
        raise ArithmeticError

    X, y = load_iris(return_X_y=True)
    for monitor, settings in ((Monitor(scoring="accuracy"), {"scoring": broken}), (Monitor(scoring=broken), {})):
        with pytest.raises(ArithmeticError):
            TorchSoftmaxClassifierCV(Cs=2, cv=3, **settings).set_callbacks(monitor).fit(X, y)
        assert not monitor.is_up


class Ending(ScoringMonitor):
    """Asks for an end after so many penalties."""

    after = 2

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        return context.task_name == "penalty" and context.task_id == self.after - 1


@pytest.mark.parametrize("cv", [3, "alo"])
@pytest.mark.parametrize("refit", [True, False])
def test_a_callback_ends_a_sweep(cv, refit):
    X, y = load_iris(return_X_y=True)
    Cs = [100.0, 0.01, 1.0, 10.0]
    model = TorchSoftmaxClassifierCV(Cs=Cs, cv=cv, refit=refit).set_callbacks(Ending(scoring="accuracy")).fit(X, y)
    expected = TorchSoftmaxClassifierCV(Cs=Cs, cv=cv).fit(X, y)
    np.testing.assert_array_equal(np.isnan(model.scores_[0, 0]), [True, False, False, True])
    np.testing.assert_array_equal(model.scores_[..., 1:3], expected.scores_[..., 1:3])
    assert model.C_ == 1.0
    assert np.isfinite(model.coef_).all()
    assert model.converged_


def hits(estimator, X, y):
    """An accuracy as somebody may have written it."""
    return np.mean(estimator.predict(X) == y)


class OfZeros:
    """A splitter that asks for the rows of the label 0."""

    def split(self, X, y, groups=None):
        rows = np.flatnonzero(y == 0)
        yield np.setdiff1d(np.arange(len(y)), rows[:5]), rows[:5]

    def get_n_splits(self, X=None, y=None, groups=None):
        return 1


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.parametrize("form", [np.ndarray.tolist, lambda y: y[:, None], lambda y: pd.DataFrame({"label": y})])
@pytest.mark.parametrize("cv", [3, OfZeros()])
def test_scorers_and_splitters_are_given_one_dimension(form, cv):
    X, y = load_iris(return_X_y=True)
    found = TorchSoftmaxClassifierCV(Cs=[1.0], cv=cv, scoring=hits).fit(X, form(y))
    expected = TorchSoftmaxClassifierCV(Cs=[1.0], cv=cv, scoring=hits).fit(X, y)
    np.testing.assert_array_equal(found.scores_, expected.scores_)
    assert found.score(X, form(y)) == expected.score(X, y)


@pytest.mark.parametrize("refit", [True, False])
def test_of_equal_scores_the_first_c_is_taken_as_by_scikit_learn(refit):
    X, y = load_iris(return_X_y=True)
    X, y = StandardScaler().fit_transform(X[:100]), y[:100]
    shared = {"Cs": [1e-3, 1.0], "l1_ratios": np.array([1.0, 0.0]), "scoring": "accuracy", "cv": 5, "refit": refit}
    ours = TorchSoftmaxClassifierCV(**shared).fit(X, y)
    theirs = LogisticRegressionCV(**shared, solver="saga", max_iter=10_000, use_legacy_attributes=False).fit(X, y)
    np.testing.assert_array_equal(ours.scores_, theirs.scores_)
    assert (ours.C_, ours.l1_ratio_) == (theirs.C_, theirs.l1_ratio_) == (1e-3, 0.0)


@pytest.mark.parametrize("scoring", [None, "accuracy"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_row_that_alone_holds_a_parameter_has_no_score_without_it(n_classes, scoring):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=(200, 2)), np.arange(200) == 7])
    y = (X @ rng.normal(size=(3, n_classes)) + 2 * rng.gumbel(size=(200, n_classes))).argmax(axis=1)
    shared = {"Cs": [1.0, np.inf], "label_smoothing": 0.1, "scoring": scoring, "cv": "alo"}
    with pytest.warns(UserWarning, match="Some scores are nan"):
        found = TorchSoftmaxClassifierCV(**shared).fit(X, y)
    assert np.isnan(found.scores_).tolist() == [[[False, True]]]
    assert found.C_ == 1.0
    known = TorchSoftmaxClassifierCV(**shared).fit(X[:, :2], y)
    assert np.isfinite(known.scores_).all()


def test_rows_that_each_hold_a_parameter():
    proba = np.random.default_rng(0).uniform(0.05, 0.95, 50)
    with pytest.warns(UserWarning, match="Some scores are nan"):
        found = TorchSoftmaxClassifierCV(Cs=[1.0, np.inf], cv="alo", fit_intercept=False).fit(
            np.eye(50), np.column_stack([1 - proba, proba])
        )
    assert found.C_ == 1.0


@pytest.mark.parametrize("refit", [True, False])
def test_a_penalty_without_models_is_not_chosen(refit):
    X, y = load_iris(return_X_y=True)
    clf = TorchSoftmaxClassifierCV(Cs=[10.0, 0.1], cv=3, scoring=lambda *_: -np.inf, refit=refit)
    ending = Ending(scoring="accuracy")
    ending.after = 1
    clf.set_callbacks(ending).fit(X, y)
    np.testing.assert_allclose(clf.C_, 0.1)
    assert np.isfinite(clf.coef_).all()


def test_a_sweep_takes_weights_that_a_fit_takes():
    X, y = load_iris(return_X_y=True)
    found = TorchSoftmaxClassifierCV(Cs=[1e300], cv=3).fit(X, y, np.full(len(y), 1e-300))
    expected = TorchSoftmaxClassifierCV(Cs=[1.0], cv=3).fit(X, y)
    np.testing.assert_allclose(found.scores_, expected.scores_, rtol=1e-6)
    y = np.random.default_rng(0).permutation(y)
    found = TorchSoftmaxClassifierCV(Cs=[np.inf], cv=3).fit(X, y, np.full(len(y), 1e-311))
    np.testing.assert_allclose(found.scores_, TorchSoftmaxClassifierCV(Cs=[np.inf], cv=3).fit(X, y).scores_, rtol=1e-6)
