"""Labels, encoded."""

import tracemalloc

import numpy as np
import pandas as pd
import pyarrow
import pytest
import torch
from scipy.sparse import csr_array, random_array
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

from skl_softmax import RowBlocks, TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.targets import encode_targets

RNG = np.random.default_rng(0)
LARGE = 2**63


def encode(y):
    """Indices and classes, of estimators without weights of classes."""
    found = encode_targets(TorchSoftmaxClassifier(), y, None, np.ones(len(y)), for_folds=False)
    return found.values, found.classes


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("labels", [range(3), [50, 53, 120], [0, 127], [-128, 0, 127], [-5, -4, -3], [7, 9]])
def test_integers_are_encoded_as_by_sorting_them(dtype, labels):
    low = min(labels) if dtype[0] == "u" else 0
    y = RNG.choice(np.array(labels) - min(low, 0), 500).astype(dtype)
    expected, index = np.unique(y, return_inverse=True)
    values, classes = encode(y)
    assert classes.dtype == expected.dtype
    np.testing.assert_array_equal(classes, expected)
    np.testing.assert_array_equal(values, index)


@pytest.mark.parametrize(
    "labels",
    [[-LARGE, 0, LARGE - 1], [-LARGE, 3 - LARGE, 5 - LARGE], [LARGE - 9, LARGE - 2, LARGE - 1], [0, 1, 2 * 10**9]],
)
def test_integers_far_from_zero_and_from_each_other(labels):
    y = np.tile(np.array(labels), 20)
    values, classes = encode(y)
    np.testing.assert_array_equal(classes, labels)
    np.testing.assert_array_equal(values, np.tile([0, 1, 2], 20))


@pytest.mark.parametrize(
    "labels", [[LARGE + 1, LARGE + 5, 2 * LARGE - 1], [0, 2, LARGE + 1], [LARGE - 3, LARGE - 1, 1]]
)
def test_integers_beyond_those_with_a_sign(labels):
    y = np.tile(np.array(labels, dtype=np.uint64), 20)
    values, classes = encode(y)
    np.testing.assert_array_equal(classes, np.sort(np.array(labels, dtype=np.uint64)))
    np.testing.assert_array_equal(classes[values], y)


@pytest.mark.parametrize(("step", "n_arrays"), [(1, 2), (7, 3)])
def test_encoding_integers_takes_the_memory_of_the_indices(step, n_arrays):
    """That of the weights that are passed, and of one array more where numbers are left out. To sort takes six."""
    y = step * RNG.integers(3, size=200_000)
    tracemalloc.start()
    try:
        encode(y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= (n_arrays + 0.1) * y.nbytes


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, float, str])
def test_labels_of_any_type_lead_to_the_same_model(kind):
    X, y = load_iris(return_X_y=True)
    labels = np.array([10, 20, 30])[y].astype(kind)
    model = TorchSoftmaxClassifier().fit(X, labels)
    np.testing.assert_array_equal(model.coef_, TorchSoftmaxClassifier().fit(X, y).coef_)
    assert model.predict(X).dtype == labels.dtype
    np.testing.assert_array_equal(model.classes_, np.unique(labels))


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize(
    "labels",
    [
        np.array(["2020-01-01", "2021-01-01", "2022-01-01"], "datetime64[D]"),
        np.array([1, 2, 3], "timedelta64[s]"),
        np.array(["a", "b", "c"], dtype=object),
    ],
    ids=["dates", "times", "objects"],
)
def test_labels_of_blocks_are_those_of_arrays(labels, class_weight):
    X, y = load_iris(return_X_y=True)
    y = labels[y]
    whole = TorchSoftmaxClassifier(class_weight=class_weight, tol=1e-12).fit(X, y)
    blocks = RowBlocks([(X[i::2], y[i::2]) for i in range(2)])
    found = TorchSoftmaxClassifier(class_weight=class_weight, tol=1e-12).fit(blocks)
    np.testing.assert_array_equal(found.classes_, labels)
    np.testing.assert_allclose(found.coef_, whole.coef_, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("unit", ["datetime64[D]", "datetime64[ns]", "timedelta64[s]"])
@pytest.mark.parametrize("as_given", [np.asarray, pd.Series, lambda y: pd.Series(y).astype(object)])
def test_missing_times_are_no_labels(unit, as_given):
    X, y = load_iris(return_X_y=True)
    labels = np.where(y == 1, np.array("NaT", unit), y.astype(unit))
    with pytest.raises(ValueError, match=r"y holds no label in row 50 \(50 in all\)"):
        TorchSoftmaxClassifier().fit(X, as_given(labels))


def test_times_with_a_zone_are_no_labels():
    X, y = load_iris(return_X_y=True)
    times = pd.Series(y.astype("datetime64[s]")).dt.tz_localize("UTC")
    with pytest.raises(ValueError, match="Unknown label type"):
        TorchSoftmaxClassifier().fit(X, times)
    with pytest.raises(ValueError, match=r"y holds no label in row 50 \(50 in all\)"):
        TorchSoftmaxClassifier().fit(X, times.where(y != 1))


@pytest.mark.parametrize("estimator", [TorchSoftmaxClassifier(), TorchSoftmaxClassifierCV(Cs=2, cv=2)])
def test_weights_beyond_float64_are_refused(estimator):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="class_weight and sample_weight add up to more than float64 holds"):
        clone(estimator).set_params(class_weight=dict.fromkeys(range(3), 1e308)).fit(X, y)
    balanced = clone(estimator).set_params(class_weight="balanced")
    with pytest.raises(ValueError, match="'balanced' is more than float64 holds for the class 1"):
        balanced.fit(X, y, np.where(y == 1, 1e-310, 1.0))
    light, plain = (clone(balanced).fit(X, y, np.where(y == 1, w, 1.0)) for w in (1e-290, 1e-100))
    np.testing.assert_allclose(light.coef_, plain.coef_, rtol=1e-5)


def test_no_classes_at_all_are_named():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=r"classes must be a one-dimensional array-like of labels, got \[\]"):
        TorchSoftmaxClassifier().fit(RowBlocks([(X, y)]), classes=[])
    with pytest.raises(ValueError, match=r"classes must be a one-dimensional array-like of labels, got \[\]"):
        TorchSoftmaxClassifier(solver="sgd").partial_fit(X, y, classes=[])


def test_weights_of_blocks_have_one_dimension():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=r"Block 0: Sample weights must be 1D array or scalar, got 2D"):
        TorchSoftmaxClassifier().fit(RowBlocks([(X, y, np.ones((150, 1)))]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": np.arange(2000)[::2]}, "classes"),
        ({"class_weight": dict.fromkeys(range(500, 2000), 1.0)}, "class_weight"),
        ({"class_weight": {0: -1.0} | dict.fromkeys(range(1, 1000), 1.0)}, "that of 0 is -1"),
        ({"y": np.full((10, 1000), 0.1)}, "sum of 1 in each row, but row 0"),
        ({"classes": [*range(1000), None]}, "none missing"),
    ],
)
def test_messages_name_some_of_many_labels(change, message):
    known = {"X": np.ones((3000, 1)), "y": np.arange(3000) // 3} | change
    estimator = TorchSoftmaxClassifier(class_weight=known.pop("class_weight", None))
    known["X"] = known["X"][: len(known["y"])]
    with pytest.raises(ValueError, match=message) as raised:
        estimator.fit(**known)
    assert len(str(raised.value)) < 500


X, Y = load_iris(return_X_y=True)
NAMES = np.array(["a", "b", "c"])[Y]


@pytest.mark.parametrize(
    ("y", "settings", "message"),
    [
        (NAMES, {"classes": {"a", "b", "c"}}, "classes must be a one-dimensional array-like of labels"),
        (Y, {"classes": [[0, 1, 2]]}, "classes must be a one-dimensional array-like of labels"),
        (Y, {"classes": []}, "classes must be a one-dimensional array-like of labels"),
        (Y, {"classes": [0, 1, 2, np.nan]}, "classes must be a one-dimensional array-like of labels"),
        (np.r_[Y[:-1], np.nan], {}, r"y holds no label in row 149 \(1 in all\)"),
        (pd.Series(Y, dtype="Int64").mask(Y == 1), {}, r"y holds no label in row 50 \(50 in all\)"),
        (torch.tensor([*Y[:-1], np.nan]), {}, r"y holds no label in row 149 \(1 in all\)"),
        (NAMES, {"classes": ["a"]}, "y holds the labels"),
        (np.full(150, "a"), {"classes": ["a"]}, "classes holds one class only, 'a', .* all that may come"),
        (Y, {"classes": np.array([0, 1, 2, None])}, "classes must be .*all numbers or all strings, none missing"),
        (Y, {"classes": np.array([0, "b", 2], object)}, "classes must be .*all numbers or all strings, none missing"),
        (np.c_[NAMES, NAMES], {}, "two-dimensional y holds probabilities of the classes, which these are not"),
        (Y.astype(object), {}, r"y holds objects of the types int, .* Pass y.astype\(int\)"),
        ((Y > 0).astype(object), {}, r"y holds objects of the types bool, .* Pass y.astype\(bool\)"),
        (np.array([1, "a"] * 75, dtype=object), {}, "y holds objects of the types int, str"),
        (Y, {"sample_weight": np.where(np.arange(150) == 7, -1, 1)}, "in sample_weight: that of row 7 is -1"),
        (Y, {"sample_weight": np.where(np.arange(150) == 7, np.nan, 1)}, "in sample_weight: that of row 7 is nan"),
        (Y, {"sample_weight": np.nan}, "sample_weight must have a number >= 0 for each row, or one for all, got nan"),
        (3, {}, "y should be a 1d array, got an array of shape"),
        ({0, 1}, {}, "y should be a 1d array, got an array of shape"),
        (Y, {"coef_init": np.zeros((3, 4)), "intercept_init": 1.0}, r"intercept_init has shape \(1,\)"),
    ],
)
def test_what_cannot_be_taken_is_named(y, settings, message):
    with pytest.raises(ValueError, match=message):
        TorchSoftmaxClassifier().fit(X, y, **settings)


def test_sparse_labels_are_refused():
    with pytest.raises(TypeError, match=r"y is a sparse csr_array, but has to be dense. Pass y.toarray\(\)"):
        TorchSoftmaxClassifier().fit(X, csr_array(Y[:, None]))


@pytest.mark.parametrize("class_weight", [{0: 1, 3: 5}, {0: "x"}, {0: 10**400}], ids=["other label", "word", "huge"])
def test_class_weights_that_do_not_fit_are_named(class_weight):
    with pytest.raises(ValueError, match=r"class_weight must give a number for labels among the classes \[0, 1, 2\]"):
        TorchSoftmaxClassifier(class_weight=class_weight).fit(X, Y)


def test_labels_that_class_weights_name_and_nobody_has_are_named():
    with pytest.raises(ValueError, match=r"\['d'\] are none of them"):
        TorchSoftmaxClassifier(class_weight={"a": 2, "d": 3}).fit(X, NAMES)
    TorchSoftmaxClassifier(class_weight={"a": 2, "b": 1, "c": 1, "d": 3}).fit(X, NAMES)  # as those of a larger table


@pytest.mark.parametrize(
    "y", [np.arange(150), np.arange(150).astype(str), np.arange(150.0)], ids=["int", "str", "float"]
)
def test_numbers_that_look_like_a_regression_are_wondered_at(y):
    with pytest.warns(UserWarning, match="number of unique classes is greater than 50%"):
        TorchSoftmaxClassifier(max_iter=1, tol=1.0).fit(X, y)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_labels_are_checked_alike_beside_half_precision(dtype):
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        TorchSoftmaxClassifier().fit(X.astype(dtype), None)
    with pytest.raises(ValueError, match=r"y holds no label in row 0 \(50 in all\)"):
        TorchSoftmaxClassifier().fit(X.astype(dtype), np.where(Y == 0, np.nan, Y))


@pytest.mark.parametrize("names", [["1", "2", "3"], ["-1", "0", "1"], ["1.5", "b", "True"]])
def test_class_weights_of_labels_that_look_like_numbers(names):
    by_class = {names[0]: 2.0, names[1]: 0.5, names[2]: 1.0}
    found = TorchSoftmaxClassifier(class_weight=by_class).fit(X, np.array(names)[Y])
    expected = TorchSoftmaxClassifier(class_weight=dict(enumerate(by_class.values()))).fit(X, Y)
    np.testing.assert_allclose(found.coef_[np.argsort(np.argsort(names))], expected.coef_, rtol=1e-9)
    with pytest.raises(ValueError, match=r"are none of them"):
        clone(found).set_params(class_weight={1: 2.0}).fit(X, np.array(names)[Y])


def fitted(kind, weight, C, y):
    """A fit of iris, of rows that weigh this or twice as much."""
    weights, narrow = np.where(np.arange(len(y)) % 3, 1.0, 2.0) * weight, X.astype(np.float32)
    descent = {"solver": "sgd", "learning_rate": 0.1, "max_iter": 20, "tol": 0.0}
    match kind:
        case "cv":
            return TorchSoftmaxClassifierCV(Cs=[C, 10 * C], cv=3).fit(X, y, weights)
        case "alo":
            return TorchSoftmaxClassifierCV(Cs=[C, 10 * C], cv="alo").fit(X, y, weights)
        case "blocks":
            blocks = [(X[i : i + 50], y[i : i + 50], weights[i : i + 50]) for i in range(0, len(y), 50)]
            return TorchSoftmaxClassifier(C=C).fit(RowBlocks(blocks))
        case "sgd":
            return TorchSoftmaxClassifier(C=C, **descent).fit(narrow, y, weights)
        case "stream":
            clf = TorchSoftmaxClassifier(C=C, **descent).partial_fit(narrow, y, [0, 1, 2], weights)
            return clf.partial_fit(narrow, y, sample_weight=weights)
        case _:
            rows = {"float32": narrow, "sparse": csr_array(X)}.get(kind, X)
            return TorchSoftmaxClassifier(C=C, l1_ratio=0.5 if kind == "l1" else 0.0).fit(rows, y, weights)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("weight", [1e-290, 1e-150, 1e-46, 1e40, 1e150, 1e305])
@pytest.mark.parametrize("kind", ["auto", "float32", "sparse", "l1", "blocks", "cv", "alo", "sgd", "stream"])
def test_units_of_weights_are_those_of_one_over_c(kind, weight):
    """Also where float32 does not hold them, or their sum with what rows lose is more than float64 holds."""
    found, expected = fitted(kind, weight, 1 / weight, Y), fitted(kind, 1.0, 1.0, Y)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-5, atol=1e-7)
    assert found.converged_ == expected.converged_


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("weight", [1e-311, 1e-46, 1e305])
@pytest.mark.parametrize("kind", ["auto", "float32", "sparse", "blocks", "sgd"])
def test_units_of_weights_do_not_matter_without_a_penalty(kind, weight):
    y = np.random.default_rng(0).permutation(Y)
    found, expected = fitted(kind, weight, np.inf, y), fitted(kind, 1.0, np.inf, y)
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-4)
    assert found.converged_ == expected.converged_


def test_weights_that_float32_does_not_hold_are_no_end_of_a_fit():
    rows = random_array((20_000, 3_000), density=20 / 3_000, format="csr", random_state=0)
    y = np.random.default_rng(0).integers(0, 3, 20_000)
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        found = TorchSoftmaxClassifier(C=np.inf, max_iter=3).fit(rows, y, np.full(20_000, 1e-46))
    assert found.coef_.any()


def test_standard_errors_are_of_the_weights_as_they_are():
    weights = np.full(len(Y), 2.0**-100)
    small = TorchSoftmaxClassifier(C=np.inf).fit(X[50:, :2], Y[50:], weights[50:])
    one = TorchSoftmaxClassifier(C=np.inf).fit(X[50:, :2], Y[50:])
    for covariance in ("observed", "sandwich"):
        found = small.summary(X[50:, :2], Y[50:], weights[50:], covariance=covariance)["std err"]
        expected = one.summary(X[50:, :2], Y[50:], covariance=covariance)["std err"]
        np.testing.assert_allclose(found, 2.0**50 * expected, rtol=1e-4)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 2.0}])
def test_encoding_many_classes_takes_no_matrix_of_them(class_weight):
    n_classes = 5_000
    y, estimator = np.repeat(np.arange(n_classes), 3), TorchSoftmaxClassifier(class_weight=class_weight)
    tracemalloc.start()
    encode_targets(estimator, y, None, np.ones(len(y)), for_folds=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * n_classes**2 / 20


def test_bytes_are_no_labels():
    with pytest.raises(TypeError, match=r"y holds bytes.*Pass y\.astype\(str\)"):
        TorchSoftmaxClassifier().fit(X, np.array([b"a", b"b", b"c"])[Y])


@pytest.mark.parametrize("names", [["0", "1", "2"], [0, 1, 2]])
def test_labels_of_another_kind_are_named(names):
    labels = np.array(names, dtype=object if isinstance(names[0], str) else int)[Y]
    others = [0, 1, 2] if isinstance(names[0], str) else ["0", "1", "2"]
    with pytest.raises(ValueError, match=r"which are not among the classes|Mix of label input types"):
        TorchSoftmaxClassifier().fit(X, labels, classes=others)
    fitted_one = TorchSoftmaxClassifierCV(Cs=2).fit(X, labels)
    with pytest.raises(ValueError, match=r"which are not among the classes|Mix of label input types"):
        fitted_one.score(X, np.array(others)[Y])


def test_both_types_of_the_same_integers_are_predicted():
    for code in "qlQL":
        labels = TorchSoftmaxClassifier().fit(X, Y.astype(code)).predict(X)
        assert labels.dtype == np.dtype(code)


def test_bools_in_categories_stay_bools():
    y = pd.Series(Y > 0).astype("category")
    clf = TorchSoftmaxClassifier().fit(X, y)
    assert clf.classes_.dtype == bool
    assert clf.score(X, y) == 1


@pytest.mark.parametrize("classes", [torch.tensor([0, 2], dtype=torch.bfloat16), [0, 2]], ids=str)
def test_other_classes_than_a_stream_began_with_are_named(classes):
    clf = TorchSoftmaxClassifier(solver="sgd").partial_fit(X[:100], Y[:100], classes=[0, 1])
    with pytest.raises(ValueError, match=r"classes is \[0(\.0)?, 2(\.0)?\], but partial_fit began with \[0, 1\]"):
        clf.partial_fit(X[:100], Y[:100], classes=classes)


def test_probabilities_in_a_table_of_pyarrow():
    proba = np.eye(3)[Y] * 0.7 + 0.1
    table = pyarrow.table(dict(zip("abc", proba.T, strict=True)))
    found = TorchSoftmaxClassifier().fit(X, table, classes=["a", "b", "c"])
    np.testing.assert_allclose(found.coef_, TorchSoftmaxClassifier().fit(X, proba).coef_)
    with pytest.raises(ValueError, match="in this order"):
        TorchSoftmaxClassifier().fit(X, table, classes=["b", "a", "c"])
