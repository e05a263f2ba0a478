"""Labels, encoded."""

import tracemalloc

import numpy as np
import pytest
from sklearn.datasets import load_iris

from skl_softmax import TorchSoftmaxClassifier
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
