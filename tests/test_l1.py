"""L1 and elastic-net penalties, against scikit-learn's saga and the conditions for a minimum."""

import warnings
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from formulas import take_general_formulas
from reference import converged, objective, relative_error
from scipy.sparse import csr_array, random_array
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import l1_min_c
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_objective import make_objective

from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.objective import costs, quadratic
from skl_softmax.objective.losses import loss_for
from skl_softmax.solvers import SOLVERS, SolverOptions, Status


# One of the checks fits rows of one class.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([TorchSoftmaxClassifier(l1_ratio=0.5, tol=1e-12)])
def test_scikit_learn_estimator(estimator, check):
    check(estimator)


def table(n_classes=3, n_rows=150, n_features=8, seed=0):
    X, y = make_classification(
        n_rows,
        n_features,
        n_informative=4,
        n_redundant=2,
        n_classes=n_classes,
        n_clusters_per_class=1,
        random_state=seed,
    )
    return StandardScaler().fit_transform(X), np.array(["a", "b", "c", "d", "e"])[y]


def violation(model, X, y, C=1.0, l1_ratio=1.0, sample_weight=None):
    """By how much the derivatives miss the conditions for a minimum, relative to the penalty."""
    s = np.ones(len(y)) if sample_weight is None else sample_weight
    strength = 1 / (C * s.sum())
    logits = X @ model.coef_.T + model.intercept_
    one_hot = (y[:, None] == model.classes_).astype(float)
    residual = expit(logits) - one_hot[:, 1:] if len(model.classes_) == 2 else softmax(logits, axis=1) - one_hot
    W = model.coef_.astype(float)
    gradient = (residual * (s / s.sum())[:, None]).T @ X + (1 - l1_ratio) * strength * W
    penalty = l1_ratio * strength
    at_zero = np.maximum(np.abs(gradient) - penalty, 0)
    return np.where(W == 0, at_zero, np.abs(gradient + penalty * np.sign(W))).max() / penalty


def saga(X, y, sample_weight=None, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LogisticRegression(solver="saga", tol=1e-12, max_iter=100_000, random_state=0, **parameters)
        return model.fit(X, y, sample_weight)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("l1_ratio", [0.3, 1.0])
@pytest.mark.parametrize("C", [0.05, 1.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_coefficients_are_those_of_saga(n_classes, l1_ratio, C, fit_intercept):
    X, y = table(n_classes)
    weights = np.random.default_rng(0).uniform(0.2, 2, size=len(y))
    parameters = {"C": C, "l1_ratio": l1_ratio, "fit_intercept": fit_intercept}
    expected = saga(X, y, weights, **parameters)
    found = TorchSoftmaxClassifier(tol=1e-12, **parameters).fit(X, y, weights)
    assert relative_error(found.coef_, expected.coef_) < 1e-6
    if fit_intercept:
        assert relative_error(found.intercept_, expected.intercept_) < 1e-5
        assert relative_error(found.predict_proba(X), expected.predict_proba(X)) < 1e-6
    np.testing.assert_array_equal(found.coef_ == 0, np.abs(expected.coef_) < 1e-9)


@pytest.mark.parametrize("load", [load_iris, load_breast_cancer, load_digits])
@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
def test_raw_data_converge_to_the_conditions(load, l1_ratio):
    X, y = load(return_X_y=True)
    model = TorchSoftmaxClassifier(C=0.1, l1_ratio=l1_ratio, tol=1e-12).fit(X, y)
    assert model.converged_
    assert violation(model, X, y, 0.1, l1_ratio) < 1e-4
    assert 0 < np.mean(model.coef_ == 0) < 1


@pytest.mark.parametrize("n_classes", [2, 3])
def test_critical_C(n_classes):
    """Below it all coefficients are zero and the probabilities those of the classes."""
    X, y = table(n_classes, n_rows=149)
    X = X - X.mean(axis=0)  # without an intercept's share scikit-learn's bound is exact
    critical = l1_min_c(X, y, loss="log", fit_intercept=False)
    below = TorchSoftmaxClassifier(C=0.999 * critical, l1_ratio=1.0).fit(X, y)
    above = TorchSoftmaxClassifier(C=1.001 * critical, l1_ratio=1.0).fit(X, y)
    assert not below.coef_.any()
    assert above.coef_.any()
    assert below.n_iter_[0] == 0
    shares = np.unique(y, return_counts=True)[1] / len(y)
    np.testing.assert_allclose(below.predict_proba(X[:1])[0], shares, rtol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_weights_are_repeats(n_classes):
    X, y = table(n_classes)
    weights = np.random.default_rng(1).integers(0, 4, size=len(y))
    parameters = {"C": 0.3, "l1_ratio": 0.7, "tol": 1e-12}
    weighted = TorchSoftmaxClassifier(**parameters).fit(X, y, weights)
    repeated = TorchSoftmaxClassifier(**parameters).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    assert relative_error(weighted.coef_, repeated.coef_) < 1e-7


@pytest.mark.usefixtures("sparse_as_it_is")
def test_sparse_and_dense_agree():
    X = random_array((300, 40), density=0.2, format="csr", random_state=np.random.default_rng(0))
    y = (X @ np.random.default_rng(1).normal(size=(40, 3)) + np.random.default_rng(2).gumbel(size=(300, 3))).argmax(1)
    parameters = {"l1_ratio": 0.8, "tol": 1e-12}
    dense = TorchSoftmaxClassifier(**parameters).fit(X.toarray(), y)
    sparse = TorchSoftmaxClassifier(**parameters).fit(X, y)
    assert relative_error(sparse.coef_, dense.coef_) < 1e-6
    np.testing.assert_array_equal(sparse.coef_ == 0, dense.coef_ == 0)


def test_float32_has_the_support_of_float64():
    X, y = table(5)
    narrow = X.astype(np.float32)
    a = TorchSoftmaxClassifier(C=0.2, l1_ratio=1.0, tol=1e-10).fit(narrow, y)
    b = TorchSoftmaxClassifier(C=0.2, l1_ratio=1.0, tol=1e-10).fit(narrow.astype(np.float64), y)
    assert a.coef_.dtype == np.float32
    np.testing.assert_array_equal(a.coef_ == 0, b.coef_ == 0)
    assert relative_error(a.coef_, b.coef_) < 1e-6


def test_soft_targets_are_weighted_duplicates():
    X, y = table(3)
    proba = np.random.default_rng(0).dirichlet(np.ones(3), size=len(y))
    parameters = {"C": 2.0, "l1_ratio": 0.6, "tol": 1e-12}
    soft = TorchSoftmaxClassifier(**parameters).fit(X, proba)
    hard = TorchSoftmaxClassifier(**parameters).fit(np.repeat(X, 3, axis=0), np.tile([0, 1, 2], len(y)), proba.ravel())
    assert relative_error(soft.coef_, hard.coef_) < 1e-7


# How a model of the curvature is made: the limits that lead to it.
KINDS = {
    "tiny": {},
    "all rows": {},
    "sample": {"_exact_seconds": lambda *_: 1e3},
    "products": {"WORKING_LIMIT": 0, "PRICE_LIMIT": 0.0},
}
SAID = {"sample": "Hessian of a sample", "products": "products with the Hessian"}  # of the others of all rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_every_kind_of_model_leads_to_the_minimum(kind, n_classes, monkeypatch, capsys):
    limits = dict(KINDS[kind])
    if kind != "tiny":
        take_general_formulas(monkeypatch)
    if kind == "sample":
        monkeypatch.setattr(costs, "dense_rows", lambda *_: 60)
    for name, value in limits.items():
        monkeypatch.setattr(quadratic, name, value)
    X, y = table(n_classes, n_rows=300)
    model = TorchSoftmaxClassifier(C=0.1, l1_ratio=1.0, tol=1e-10, verbose=1).fit(X, y)
    assert model.converged_
    assert violation(model, X, y, 0.1) < 1e-5
    assert SAID.get(kind, "Hessian of all rows") in capsys.readouterr().out


@pytest.mark.parametrize("seed", [27, 25])
def test_gaps_are_told_where_a_class_has_no_rows(seed):
    """Its intercept has no minimum; the others' were left short of theirs, and the gap was told as zero."""
    rng = np.random.default_rng(seed)
    x = 3 * rng.standard_normal((20, 1))
    y = np.where(x[:, 0] + 2 * rng.logistic(size=20) > 0, 2, 0)
    found, exact = (
        TorchSoftmaxClassifier(C=0.01, l1_ratio=0.001, tol=tol).fit(x, y, classes=[0, 1, 2]) for tol in (1e-3, 1e-13)
    )
    assert exact.converged_
    assert found.optimality_gap_ >= 0.999 * (found.loss_curve_[-1] - exact.loss_curve_[-1])


@pytest.mark.parametrize("seed", range(20, 26))
def test_no_gap_is_told_as_rounding_where_columns_nearly_cancel(seed):
    """Terms of 1e7 made gradients beyond what the penalty allows look like rounding: "converged" at 2 % of F."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((80, 3))
    X = np.c_[X, 3 * X[:, 0] + 1e-7 * rng.standard_normal(80)]
    y = (X[:, :2] + rng.gumbel(size=(80, 2))).argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rough, fine = (TorchSoftmaxClassifier(C=1e8, l1_ratio=1.0, tol=tol).fit(X, y) for tol in (1e-4, 1e-7))
    # Points near the minimum by columns that do not cancel, in which another penalty shrinks what is dear here.
    apart, lowest = np.c_[X[:, :3], (X[:, 3] - 3 * X[:, 0]) / 1e-7], min(rough.loss_curve_[-1], fine.loss_curve_[-1])
    for C in np.logspace(-2, 8, 21):
        peer = converged(apart * [1, 1, 1, 0.01], y, C=C)
        part = peer.coef_[:, 3:] * 0.01 / 1e-7
        peer.coef_ = np.c_[peer.coef_[:, :1] - 3 * part, peer.coef_[:, 1:3], part]
        lowest = min(lowest, objective(peer, X, y, C=1e8, l1_ratio=1.0))
    for model, tol in ((rough, 1e-4), (fine, 1e-7)):
        # Rounding of the gradient is a tenth of the penalty, and worth 1e-4 of F by how far parameters go.
        assert not model.converged_ or model.loss_curve_[-1] <= (1 + max(10 * tol, 1e-4)) * lowest
        assert model.optimality_gap_ >= 0


def test_working_sets_grow_to_a_large_support(monkeypatch):
    """More features than rows, and more than one working set's worth of them."""
    monkeypatch.setattr(import_module("skl_softmax.solvers.proximal"), "SMALLEST", 20)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 600))
    y = (X[:, :90] @ rng.normal(size=(90, 3))).argmax(axis=1)
    model = TorchSoftmaxClassifier(C=1.0, l1_ratio=1.0, tol=1e-9).fit(X, y)
    assert model.converged_
    assert (model.coef_ != 0).sum() > 150
    assert violation(model, X, y) < 1e-4


def test_a_hundred_thousand_sparse_features():
    rng = np.random.default_rng(0)
    X = random_array((500, 100_000), density=2e-4, format="csr", random_state=rng)
    y = np.asarray(X[:, :50_000].sum(axis=1) > X[:, 50_000:].sum(axis=1)).ravel()
    model = TorchSoftmaxClassifier(C=3.0, l1_ratio=0.9).fit(X, y)
    assert model.converged_
    assert model.coef_.shape == (1, 100_000)
    assert violation(model, X, y, 3.0, 0.9) < 1e-2


@pytest.mark.parametrize(("C", "l1_ratio", "most"), [(0.2, 1.0, 25), (3.0, 1.0, 600), (3.0, 0.5, 420)])
def test_words_of_few_classes_take_few_passes(C, l1_ratio, most):
    """Where all classes have a weight for some word, what is added to each of them has no curvature but the norm's.

    Conjugate gradients went 1e31 that way, the step ended at the next zero of any weight, and 3,246 passes were taken
    with C=0.2; with curvature put there that was as much as each has, up to 1,500 still with C=3.
    """
    rng = np.random.default_rng(0)
    often, y, counts = 1 / np.arange(1.0, 3001.0), np.arange(2000) % 3, np.zeros((2000, 3000))
    for row, k in zip(counts, y, strict=True):
        share = often.copy()
        share[50 * k : 50 * (k + 1)] *= 1.5
        np.add.at(row, rng.choice(3000, rng.integers(10, 60), p=share / share.sum()), 1)
    X = csr_array(counts)
    model = TorchSoftmaxClassifier(C=C, l1_ratio=l1_ratio).fit(X, y)
    assert model.converged_
    assert model.n_passes_ <= most
    assert violation(model, X, y, C, l1_ratio) < 1e-2


def test_a_path_with_warm_starts_needs_fewer_passes():
    X, y = load_digits(return_X_y=True)
    Cs = np.logspace(-3, -1, 8)
    warm = TorchSoftmaxClassifier(l1_ratio=1.0, warm_start=True)
    passes = {"warm": 0.0, "cold": 0.0}
    for C in Cs:
        passes["warm"] += warm.set_params(C=C).fit(X, y).n_passes_
        cold = TorchSoftmaxClassifier(C=C, l1_ratio=1.0).fit(X, y)
        passes["cold"] += cold.n_passes_
        assert warm.loss_curve_[-1] == pytest.approx(cold.loss_curve_[-1], rel=2e-7)
    assert passes["warm"] < 0.8 * passes["cold"]


@pytest.mark.parametrize("kind", ["all rows", "products", "sample"])
def test_stacked_models_are_solved_as_if_alone(kind, monkeypatch):
    for name, value in KINDS[kind].items():
        monkeypatch.setattr(quadratic, name, value)
    monkeypatch.setattr(costs, "dense_rows", lambda *_: 30)  # of 40
    single = [make_objective(3, C=(C,)) for C in (0.05, 0.3, 5.0)]
    single = [replace(o, l2=0.2 * o.l2, l1=0.8 * o.l2) for o in single]
    l2, l1, total = (torch.cat([getattr(o, name) for o in single]) for name in ("l2", "l1", "total"))
    stack = replace(single[0], l2=l2, l1=l1, total=total)
    start = torch.zeros(3, 3, stack.data.n_columns, dtype=torch.float64)
    notes = []
    options = SolverOptions(tol=1e-12, max_iter=100, note=notes.append)
    together = SOLVERS["proximal"].minimise(stack, start, options)
    assert any(SAID.get(kind, "Hessian of all rows") in note for note in notes)
    for m, one in enumerate(single):
        alone = SOLVERS["proximal"].minimise(one, start[:1], options)
        torch.testing.assert_close(together.theta[m], alone.theta[0], rtol=1e-5, atol=1e-6)
        assert together.status[m] is alone.status[0] is Status.CONVERGED


def test_sparsify_and_back():
    X, y = table(3)
    model = TorchSoftmaxClassifier(C=0.1, l1_ratio=1.0).fit(X, y)
    coef, proba = model.coef_.copy(), model.predict_proba(X)
    assert model.sparsify() is model
    assert isinstance(model.coef_, csr_array)
    np.testing.assert_allclose(model.predict_proba(X), proba)
    np.testing.assert_allclose(model.predict_proba(csr_array(X)), proba)
    np.testing.assert_allclose(model.module_.weight.detach(), coef)
    model.set_params(warm_start=True).fit(X, y)
    model.sparsify().densify()
    np.testing.assert_allclose(model.coef_, coef, atol=1e-6)


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "sgd", torch.optim.Adam])
def test_solvers_without_it_say_so(solver):
    X, y = table()
    with pytest.raises(ValueError, match=r"takes no L1 penalty, but l1_ratio=0.5.*solver='proximal'"):
        TorchSoftmaxClassifier(solver=solver, l1_ratio=0.5).fit(X, y)


def test_partial_fit_without_it_says_so():
    X, y = table()
    with pytest.raises(ValueError, match="takes no L1 penalty"):
        TorchSoftmaxClassifier(solver="sgd", l1_ratio=0.5).partial_fit(X, y, classes=np.unique(y))


def test_no_penalty_needs_none_of_it():
    X, y = load_iris(return_X_y=True)
    y = np.roll(y, 20)  # not separable
    a = TorchSoftmaxClassifier(C=np.inf, l1_ratio=1.0, tol=1e-12).fit(X, y)
    b = TorchSoftmaxClassifier(C=np.inf, tol=1e-12).fit(X, y)
    assert relative_error(a.coef_, b.coef_) < 1e-6
    with pytest.raises(ValueError, match="needs a penalty, but C=inf"):
        TorchSoftmaxClassifier(C=np.inf, solver="proximal").fit(X, y)


def test_proximal_also_does_ridge():
    X, y = table()
    a = TorchSoftmaxClassifier(solver="proximal", tol=1e-13).fit(X, y)
    b = TorchSoftmaxClassifier(solver="newton", tol=1e-13).fit(X, y)
    assert relative_error(a.coef_, b.coef_) < 1e-6


def test_ends_say_why():
    X, y = load_digits(return_X_y=True)
    with pytest.warns(UserWarning, match="max_iter=2 iterations were used up"):
        short = TorchSoftmaxClassifier(l1_ratio=1.0, max_iter=2).fit(X, y)
    best = TorchSoftmaxClassifier(l1_ratio=1.0, tol=1e-12).fit(X, y).loss_curve_[-1]
    assert short.optimality_gap_ >= short.loss_curve_[-1] - best
    X, y = table()
    with pytest.warns(UserWarning, match="below what rounding lets the objective resolve"):
        TorchSoftmaxClassifier(l1_ratio=1.0, tol=0.0).fit(X, y)


def test_numbers_of_passes():
    """Deterministic counts, so that a slower method does not pass unseen."""
    X, y = load_digits(return_X_y=True)
    assert TorchSoftmaxClassifier(C=0.01, l1_ratio=1.0).fit(X, y).n_passes_ <= 11
    assert TorchSoftmaxClassifier(l1_ratio=1.0).fit(X, y).n_passes_ <= 16
    X, y = load_iris(return_X_y=True)
    assert TorchSoftmaxClassifier(l1_ratio=1.0).fit(X, y).n_passes_ <= 15


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("C", "l1_ratio"), [(100.0, 0.3), (1e4, 1.0), (1e5, 1.0)])
def test_rare_columns_that_samples_do_not_show(seed, C, l1_ratio):
    """One-hot columns of which some have few rows: models of samples promise steps of any length along them."""
    rng = np.random.default_rng(seed)
    common, rare = rng.integers(20, size=3000), np.minimum(rng.geometric(0.7, 3000) - 1, 4)
    X = np.hstack([np.eye(20)[common], np.eye(5)[rare]])
    y = (X / X.std(axis=0) @ rng.normal(size=(25, 6)) + rng.gumbel(size=(3000, 6))).argmax(axis=1)
    model = TorchSoftmaxClassifier(C=C, l1_ratio=l1_ratio).fit(X, y)
    assert model.converged_
    assert model.n_passes_ < 200
    exact = TorchSoftmaxClassifier(C=C, l1_ratio=l1_ratio, tol=1e-12).fit(X, y)
    assert violation(exact, X, y, C, l1_ratio) < 1e-3
    assert model.loss_curve_[-1] - exact.loss_curve_[-1] <= model.optimality_gap_ + 1e-12


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5])
def test_a_fold_that_finds_no_step_does_not_end_the_others(seed):
    """Rows of very different weights and heavy tails, where models need ridges; shared, those ended 200 of 720."""
    rng = np.random.default_rng(seed)
    X, y, w = np.exp(3 * rng.normal(size=(64, 7))), rng.integers(0, 4, 64), 10 ** rng.uniform(-6, 2, 64)
    folds, Cs = list(KFold(3, shuffle=True, random_state=0).split(X)), [1.0, 10.0, 300.0, 2e4]
    search = TorchSoftmaxClassifierCV(Cs=Cs, l1_ratios=(1.0,), cv=folds).fit(X, y, w)
    for fold, (train, _) in enumerate(folds):
        for j, C in enumerate(Cs):
            alone = TorchSoftmaxClassifier(C=C, l1_ratio=1.0).fit(X[train], y[train], w[train], classes=range(4))
            assert alone.converged_
            path = search.coefs_paths_[fold, 0, j]
            alone.coef_, alone.intercept_ = path[:, :-1], path[:, -1]
            value = objective(alone, X[train], y[train], C=C, sample_weight=w[train], l1_ratio=1.0)
            assert value <= (1 + 3e-7) * alone.loss_curve_[-1]


@pytest.mark.parametrize("C", [1e4, 1e6])
@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_offsets_are_no_part_of_intercepts_on_the_way(seed, l1_ratio, C):
    """Beside weights of three classes that do not sum to zero they left no digits of the logits."""
    rng = np.random.default_rng(seed)
    X, offset = rng.normal(size=(150, 6)), 1e5 * rng.choice([-1, 1], size=6)
    y = (X @ rng.normal(size=(6, 3)) + rng.gumbel(size=(150, 3))).argmax(axis=1)
    model = TorchSoftmaxClassifier(C=C, l1_ratio=l1_ratio)
    near, far = clone(model).fit(X, y), clone(model).fit(X + offset, y)
    search = TorchSoftmaxClassifierCV(Cs=[C], l1_ratios=[l1_ratio], cv=2).fit(X + offset, y)
    again = clone(model).set_params(warm_start=True).fit(X + offset, y)
    again.fit(X + offset, y)
    for fit in (far, search, again):
        assert fit.converged_
        assert relative_error(fit.coef_, near.coef_) < 1e-3
        assert abs(fit.intercept_.sum()) < 1e-9 * np.abs(fit.intercept_).max()
    assert np.abs(search.coefs_paths_[..., -1].sum(axis=-1)).max() < 1e-9 * np.abs(search.intercept_).max()
    assert again.n_iter_ == 0


@pytest.mark.parametrize("seed", [4, 25, 29, 31])
def test_what_logits_lose_is_no_gap(seed):
    """In columns of 1e8 the L1 penalty is below the rounding of gradients, which grows with the logits."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(120, 12))
    y = (X @ rng.normal(size=(12, 5)) + rng.gumbel(size=(120, 5))).argmax(axis=1)
    X, model = X * 10.0 ** rng.uniform(-8, 8, 12), TorchSoftmaxClassifier(C=1e5, l1_ratio=1.0)
    near, far = clone(model).fit(X, y), clone(model).set_params(tol=1e-12)
    far.fit(X, y, coef_init=1.1 * near.coef_, intercept_init=near.intercept_)
    assert near.converged_
    values = [objective(fit, X, y, C=1e5, sample_weight=np.ones(120), l1_ratio=1.0) for fit in (near, far)]
    assert values[0] <= (1 + 1e-7) * values[1]


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("light", [1e-8, 1e-10, 1e-11, 1e-12, 1e-13])
def test_intercepts_of_classes_that_weigh_next_to_nothing(n_classes, light):
    """Where all coefficients are zero the minimum is the entropy of the classes' weights."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 2)), np.array([0, 1, n_classes - 1, *[0] * 17])
    w = np.where(y == 1, light, 1.0)
    clf = TorchSoftmaxClassifier(C=1e-9, l1_ratio=1.0).fit(X, y, w)
    shares = np.bincount(y, w) / w.sum()
    minimum = -(np.log(shares[1:]) * shares[1:]).sum() - shares[0] * np.log1p(-shares[1:].sum())
    assert clf.converged_
    assert not clf.coef_.any()
    assert clf.loss_curve_[-1] - minimum <= max(clf.optimality_gap_, 1e-9 * minimum)


@pytest.mark.parametrize(("l1_ratio", "C", "n_classes"), [(1.0, 1e14, 2), (0.5, 1e12, 2), (1.0, 1e14, 3)])
def test_gaps_of_rows_that_are_told_apart(l1_ratio, C, n_classes):
    X = np.random.default_rng(0).normal(size=(30, 3))
    y = (X[:, 0] > 0).astype(int) + (X[:, 0] > 1) * (n_classes > 2)
    assert TorchSoftmaxClassifier(l1_ratio=l1_ratio, C=C).fit(X, y).converged_


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_entropies_are_known_to_rounding_of_themselves(n_outputs):
    n = 40
    small = np.geomspace(1e-20, 0.4, n)
    wide = small.astype(np.longdouble)
    if n_outputs == 1:
        targets = torch.arange(n, dtype=torch.float64)[None, None] % 2
        residual = torch.from_numpy(small)[None, None] * (1 - 2 * targets)
        expected = np.log1p(-wide) * (1 - wide) + small * np.log(small)
    else:
        targets = torch.zeros(1, 1, n, dtype=torch.int64)
        q = np.stack([0.25 * small, 0.75 * small])
        residual = torch.from_numpy(np.stack([-small, *q]))[None]
        expected = (q * np.log(q)).sum(axis=0) + np.log1p(-wide) * (1 - wide)
    found = loss_for(n_outputs).negative_entropy(residual, targets).flatten()
    np.testing.assert_allclose(found, expected.astype(float), rtol=1e-14)


@pytest.mark.parametrize(
    "make", [TorchSoftmaxClassifier, lambda C, **_: TorchSoftmaxClassifierCV(Cs=[C], l1_ratios=[1.0])]
)
def test_features_that_are_selected_are_those_that_are_not_zero(make):
    X, y = load_digits(return_X_y=True)
    selector = SelectFromModel(make(C=0.02, l1_ratio=1.0)).fit(X, y)
    used = (selector.estimator_.coef_ != 0).any(axis=0)
    assert 0 < used.sum() < 64
    np.testing.assert_array_equal(selector.get_support(), used)


def test_the_kind_of_penalty_is_named():
    kinds = [TorchSoftmaxClassifier(l1_ratio=r, C=C).penalty for r, C in ((1, 1), (0.0, 1), (0.5, 1), (1.0, np.inf))]
    assert kinds == ["l1", "l2", "elasticnet", None]
    assert not hasattr(TorchSoftmaxClassifierCV(), "penalty")  # what it is, is chosen by fit


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("l1_ratio", [0.3, 1.0])
def test_rows_of_one_class_have_no_minimum(l1_ratio, n_classes):
    # F goes to zero as the intercept grows, so that it is the gap itself.
    X = np.random.default_rng(0).normal(size=(9, 2))
    y = np.repeat([1, 0, n_classes - 1], 3)
    with pytest.warns(ConvergenceWarning, match="no minimum"):
        clf = TorchSoftmaxClassifier(l1_ratio=l1_ratio).fit(X, y, sample_weight=np.repeat([1, 0, 0], 3))
    assert clf.optimality_gap_ == clf.loss_curve_[-1] > 0
    assert not clf.converged_


@pytest.mark.usefixtures("sparse_as_it_is")
@pytest.mark.parametrize("n_classes", [3, 7, 10, 21, 22, 25, 30])
def test_zero_is_an_end_also_where_rounding_leaves_a_gap(n_classes):
    for n_rows in (4 * n_classes, 64 * n_classes, 101 * n_classes):
        X = random_array((n_rows, 5), density=0.3, format="csr", random_state=0)
        clf = TorchSoftmaxClassifier(C=1e-6, l1_ratio=1.0, fit_intercept=False, tol=1e-18)
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # of the floor of precision
            clf.fit(X, np.arange(n_rows) % n_classes)
        assert not clf.coef_.any()
        assert clf.optimality_gap_ <= 1e-14 * clf.loss_curve_[-1]
