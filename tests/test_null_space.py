"""One-hot encoded categories: what moves no logit is found, and fits do not search along it."""

import io
from contextlib import redirect_stdout
from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder

from skl_softmax import RowBlocks, TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.blocks import place_blocks
from skl_softmax.data import csr_tensor, standardised

pytestmark = pytest.mark.usefixtures("sparse_as_it_is")


def null_space(X, fit_intercept=True):
    return standardised(csr_tensor(sp.csr_array(X)), fit_intercept).null_space


def one_hot(*categories):
    return OneHotEncoder().fit_transform(np.column_stack(categories)).tocsr()


def users(n_rows=3000, n_users=300, n_cities=30, seed=0):
    """Users, their cities, the countries of these, and devices, which are no one's."""
    rng = np.random.default_rng(seed)
    city_of, country_of = rng.integers(n_cities, size=n_users), np.arange(n_cities) // 5
    user = (n_users * rng.random(n_rows) ** 2).astype(int)
    city = city_of[user]
    return user, city, country_of[city], rng.integers(7, size=n_rows)


def labels(X, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    logits = X @ rng.normal(size=X.shape[1]) + rng.logistic(size=X.shape[0])
    return np.digitize(logits, np.quantile(logits, np.arange(1, n_classes) / n_classes))


NUMBERS = np.random.default_rng(1).normal(size=(3000, 5))
SPARSE_NUMBERS = NUMBERS * (NUMBERS > 0)
USER, CITY, COUNTRY, DEVICE = users()
TABLES = {
    "one category": one_hot(DEVICE),
    "two": one_hot(CITY, DEVICE),
    "nested": one_hot(USER, CITY, DEVICE),
    "nested in what nests": one_hot(DEVICE, COUNTRY, CITY, USER),
    "the same twice": one_hot(CITY, CITY),
    "of another value": sp.hstack([3 * one_hot(USER), -0.5 * one_hot(CITY)]).tocsr(),
    "beside numbers": sp.hstack(
        [NUMBERS[:, :2], one_hot(USER), NUMBERS[:, 2:4], one_hot(CITY), NUMBERS[:, 4:]]
    ).tocsr(),
    "beside numbers, some zero": sp.hstack([SPARSE_NUMBERS[:, :2], one_hot(USER, CITY), SPARSE_NUMBERS[:, 2:]]).tocsr(),
    "a constant column": sp.hstack([np.full((3000, 1), 2.0), NUMBERS, one_hot(CITY)]).tocsr(),
    "levels without rows": sp.hstack(
        [sp.csr_array((3000, 2)), one_hot(CITY), sp.csr_array((3000, 3)), one_hot(DEVICE), sp.csr_array((3000, 1))]
    ).tocsr(),
    "bins": KBinsDiscretizer(5, quantile_method="averaged_inverted_cdf").fit_transform(NUMBERS),
    "float32": one_hot(USER, CITY).astype(np.float32),
}


def dimension(X):
    """How many directions move no logit, beyond columns without entries."""
    seen = X[:, np.asarray(abs(X).sum(axis=0)).ravel() > 0].toarray().astype(float)
    return seen.shape[1] + 1 - np.linalg.matrix_rank(np.column_stack([seen, np.ones(len(seen))]))


@pytest.mark.parametrize("name", TABLES)
def test_all_that_moves_no_logit_is_found(name):
    X = TABLES[name]
    N = null_space(X).directions.toarray()
    np.testing.assert_allclose(X @ N[:-1] + N[-1], 0, atol=1e-12)
    assert np.linalg.matrix_rank(N[:-1]) == N.shape[1] == dimension(X)


def test_rows_without_a_level_leave_the_other_categories():
    X = sp.lil_array(TABLES["two"])
    X[7] = 0
    X[7, 33] = 1  # a device, in no city
    N = null_space(X).directions.toarray()
    assert N.shape[1] == 1
    np.testing.assert_array_equal(N[:-1, 0], np.arange(37) >= 30)


@pytest.mark.parametrize(
    "X",
    [
        sp.csr_array(SPARSE_NUMBERS),
        sp.csr_array(NUMBERS),
        CountVectorizer().fit_transform(["one two", "two three", "three one"] * 50 + ["four"]),
        one_hot(CITY)[:, 1:],  # as with drop="first"
        one_hot(CITY).multiply(np.arange(3000)[:, None] + 1.0).tocsr(),
        sp.csr_array((5, 3)),
        sp.csr_array((np.zeros(5), ([0, 1, 2, 3, 4], [0, 1, 1, 0, 2])), (5, 3)),
        sp.csr_array((np.full(5, np.nan), ([0, 1, 2, 3, 4], [0, 1, 1, 0, 2])), (5, 3)),
    ],
)
def test_others_have_none(X):
    assert null_space(X) is None


def test_numbers_beside_far_larger_ones_are_no_category():
    """Rounding of the larger ones would hide that they differ."""
    X = sp.csr_array(np.column_stack([np.full(3000, 1e15), NUMBERS[:, 0], 1e-7 * NUMBERS[:, 1]]))
    N = null_space(X).directions.toarray()
    np.testing.assert_array_equal(N, [[1.0], [0.0], [0.0], [-1e15]])


def test_columns_that_seem_to_be_levels_do_not_hide_the_category():
    """A word in one row and all levels but the last, which is in one row, have as many entries as there are rows."""
    word = sp.csr_array((np.ones(1), ([7], [0])), (3000, 1))
    city = np.r_[CITY[:5], 29, CITY[6:]]
    city[np.flatnonzero(city == 29)[1:]] = 0
    X = sp.hstack([word, one_hot(city, DEVICE)]).tocsr()
    np.testing.assert_array_equal(null_space(X).directions.toarray()[0], [0.0, 0.0])
    assert null_space(X).directions.shape[1] == 2


def test_words_beside_a_category_go_by_newtons_method():
    words = sp.random_array((3000, 2000), density=0.01, rng=np.random.default_rng(0), format="csr")
    y = labels(words, 2)
    for X, solver in (
        (words, "newton"),
        (sp.hstack([words, one_hot(CITY)]).tocsr(), "newton"),
        (sp.hstack([words[:, :20], one_hot(*users(3000, 2500, 300))]).tocsr(), "lbfgs"),
    ):
        said = io.StringIO()
        with redirect_stdout(said):
            TorchSoftmaxClassifier(verbose=1).fit(X, y)
        assert said.getvalue().startswith(solver)


def test_stored_zeros_count_as_entries():
    columns = np.concatenate([[3, 4, 33], TABLES["two"].indices[2:]])
    ends = np.append(0, TABLES["two"].indptr[1:] + 1)
    X = sp.csr_array((np.append([1.0, 0.0], np.ones(5999)), columns, ends), (3000, 37))
    assert null_space(X).directions.shape[1] == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("row", [0, 7])
def test_a_category_with_a_number_that_is_none_or_zero_is_left_out(row, value):
    X = TABLES["two"].copy()
    X.data[2 * row] = value  # of the first
    N = null_space(X).directions.toarray()
    assert N.shape[1] == 1
    np.testing.assert_array_equal(N[:-1, 0], np.arange(37) >= 30)


def test_a_level_of_most_rows_is_not_centred_though_rounded():
    rng = np.random.default_rng(0)
    is_most = rng.random(400) < 0.95
    X = np.outer(np.where(rng.random(400) < 0.5, 0.3, 0.1 + 0.2), [1, 1]) * np.stack([is_most, ~is_most], axis=1)
    rows = standardised(csr_tensor(sp.csr_array(np.hstack([X, rng.normal(50, 1, (400, 1))]))), fit_intercept=True)
    assert (rows.mean != 0).tolist() == [False, False, True]
    design, directions = rows.design(slice(0, 400)).numpy(), rows.null_space.directions.toarray()
    assert directions.shape[1] == 1
    assert abs(design @ directions).max() < 1e-12


def test_there_is_none_without_an_intercept_nor_of_dense_rows():
    assert null_space(TABLES["two"], fit_intercept=False) is None
    assert standardised(torch.from_numpy(TABLES["two"].toarray()), True).null_space is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["nested", "of another value", "beside numbers, some zero"])
def test_parameters_are_those_of_least_penalty_among_the_same_logits(name, dtype):
    X = TABLES[name].toarray()
    space, n_columns = null_space(TABLES[name]), X.shape[1] + 1
    generator = torch.Generator().manual_seed(0)
    theta, gradient = (torch.randn(2, 3, n_columns, dtype=dtype, generator=generator) for _ in range(2))
    centred, balanced, accuracy = space.centred(theta), space.balanced(gradient), 1e4 * torch.finfo(dtype).eps
    assert centred.dtype == dtype
    logits = lambda theta: theta[..., :-1].double().numpy() @ X.T + theta[..., -1:].double().numpy()  # noqa: E731
    np.testing.assert_allclose(logits(centred), logits(theta), atol=accuracy)
    N = space.directions.toarray()
    np.testing.assert_allclose(centred[..., :-1].double().numpy() @ N[:-1], 0, atol=accuracy)
    torch.testing.assert_close(space.centred(centred), centred, rtol=0, atol=accuracy)
    torch.testing.assert_close((centred * gradient).sum(), (theta * balanced).sum(), rtol=0, atol=accuracy * 10)


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", ["nested in what nests", "of another value", "beside numbers, some zero", "float32"])
def test_the_minimum_is_that_of_scikit_learn(name, n_classes, solver):
    X = TABLES[name]
    y, weights = labels(X, n_classes), np.random.default_rng(2).integers(3, size=3000)
    reference = LogisticRegression(C=10, solver="newton-cholesky", tol=1e-12).fit(X.astype(float), y, weights)
    clf = TorchSoftmaxClassifier(C=10, solver=solver, tol=1e-16).fit(X, y, weights)
    assert clf.converged_
    accuracy = 1e-5 if X.dtype == np.float32 else 1e-6
    np.testing.assert_allclose(clf.coef_, reference.coef_, atol=accuracy)
    np.testing.assert_allclose(clf.intercept_, reference.intercept_, atol=accuracy)


@pytest.mark.parametrize(
    ("C", "n_classes", "solver", "most"),
    [  # along what moves no logit they took 77, 86, 111, 144, 342, 276, 734 and 588
        (1.0, 2, "newton", 30),
        (1.0, 2, "lbfgs", 21),
        (1.0, 3, "newton", 41),
        (1.0, 3, "lbfgs", 23),
        (1000.0, 2, "newton", 57),
        (1000.0, 2, "lbfgs", 35),
        (1000.0, 3, "newton", 94),
        (1000.0, 3, "lbfgs", 54),
    ],
)
def test_fits_take_few_passes_and_tell_their_gap(C, n_classes, solver, most):
    X = one_hot(*users(10_000, 2000, 100))
    y = labels(X, n_classes)
    clf = TorchSoftmaxClassifier(C=C, solver=solver).fit(X, y)
    least = TorchSoftmaxClassifier(C=C, solver="newton", tol=1e-14).fit(X, y).loss_curve_[-1]
    assert clf.loss_curve_[-1] - least <= 1.1 * clf.optimality_gap_
    assert clf.n_passes_ <= most


def test_a_start_off_the_minimum_along_it_leads_to_the_minimum():
    X = TABLES["nested in what nests"]
    y = labels(X, 3)
    expected = TorchSoftmaxClassifier(tol=1e-12).fit(X, y)
    N = null_space(X).directions.toarray()
    clf = TorchSoftmaxClassifier(tol=1e-12, warm_start=True).fit(X, y)
    move = N @ np.random.default_rng(0).normal(size=(N.shape[1], 3))
    clf.coef_, clf.intercept_ = clf.coef_ + move[:-1].T, clf.intercept_ + move[-1]
    clf.fit(X, y)
    np.testing.assert_allclose(clf.coef_, expected.coef_, atol=1e-5)


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_without_a_penalty_probabilities_are_the_best(solver):
    X = TABLES["nested in what nests"][:, :-300]  # cities in countries, and devices
    y = labels(X, 3)
    clf = TorchSoftmaxClassifier(C=np.inf, solver=solver, tol=1e-12).fit(X, y)
    reference = TorchSoftmaxClassifier(C=np.inf, tol=1e-12).fit(X[:, 1:].toarray(), y)
    assert clf.converged_
    np.testing.assert_allclose(clf.predict_proba(X), reference.predict_proba(X[:, 1:].toarray()), atol=1e-5)


def test_folds_are_as_fits_of_their_own():
    X = TABLES["beside numbers, some zero"]
    y = labels(X, 3)
    search = TorchSoftmaxClassifierCV(Cs=[0.1, 10], l1_ratios=[0, 0.5], cv=3, tol=1e-14).fit(X, y)
    splits = list(StratifiedKFold(3).split(X, y))
    for (i, l1_ratio), (j, C) in product(enumerate([0, 0.5]), enumerate([0.1, 10])):
        for fold, (train, _) in enumerate(splits):
            alone = TorchSoftmaxClassifier(C=C, l1_ratio=l1_ratio, tol=1e-14).fit(X[train], y[train])
            np.testing.assert_allclose(search.coefs_paths_[fold, i, j, :, :-1], alone.coef_, atol=1e-5)


def test_that_of_a_sample_is_not_taken_for_that_of_all_rows():
    X, y = TABLES["nested"], labels(TABLES["nested"], 3)
    clf, blocks = TorchSoftmaxClassifier(tol=1e-12), RowBlocks([(X[:2000], y[:2000]), (X[2000:], y[2000:])])
    objective = place_blocks(clf, blocks, None, None, None).objective(1.0, True)
    assert objective.sample.null_space is None
    theta = torch.randn(1, 3, X.shape[1] + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(objective.centred(theta), theta - theta.mean(dim=1, keepdim=True))
    np.testing.assert_allclose(clf.fit(blocks).coef_, TorchSoftmaxClassifier(tol=1e-12).fit(X, y).coef_, atol=1e-5)
