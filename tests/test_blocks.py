"""Rows that come in blocks: the same fit as of all rows at once."""

import threading
import warnings
import weakref
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import NotFittedError

from skl_softmax import RowBlocks, TorchSoftmaxClassifier, pieces
from skl_softmax.blocks import place_blocks

EDGES = [0, 3, 50, 50, 51, 120, 178]


@pytest.fixture
def wine():
    X, y = load_wine(return_X_y=True)
    rng = np.random.default_rng(0)
    return X, np.array(["barolo", "grignolino", "barbera"])[y], rng.integers(0, 3, len(y)).astype(float)


def parted(*arrays):
    """Blocks of uneven size, one of them empty."""
    return [tuple(a[i:j] for a in arrays) for i, j in pairwise(EDGES)]


class Counted:
    """A source that counts how often it is gone through."""

    def __init__(self, blocks):
        self.blocks, self.n_times = blocks, 0

    def __iter__(self):
        self.n_times += 1
        return iter(self.blocks)


@pytest.mark.parametrize("kind", ["dense", "float32", "bfloat16", "sparse", "frame"])
@pytest.mark.parametrize("read_ahead", [0, 2])
def test_blocks_are_rows(wine, kind, read_ahead):
    X, y, weights = wine
    make = {
        "dense": lambda x: x, "float32": np.float32, "bfloat16": lambda x: torch.from_numpy(x).bfloat16(),
        "sparse": csr_array, "frame": lambda x: pd.DataFrame(x, columns=[f"x{i}" for i in range(13)]),
    }[kind]  # fmt: skip
    settings = {"solver": "lbfgs", "tol": 1e-13, "class_weight": "balanced", "label_smoothing": 0.1}
    whole = TorchSoftmaxClassifier(**settings).fit(make(X), y, weights)
    blocks = RowBlocks([(make(x), *rest) for x, *rest in parted(X, y, weights)], read_ahead)
    clf = TorchSoftmaxClassifier(**settings).fit(blocks)
    rtol = 1e-6 if whole.coef_.dtype == np.float64 else 1e-4
    np.testing.assert_allclose(clf.coef_, whole.coef_, rtol=rtol, atol=1e-7)
    np.testing.assert_array_equal(clf.classes_, whole.classes_)
    assert clf.converged_ == whole.converged_
    assert hasattr(clf, "feature_names_in_") == hasattr(whole, "feature_names_in_") == (kind == "frame")
    if kind == "frame":
        np.testing.assert_array_equal(clf.feature_names_in_, whole.feature_names_in_)
    np.testing.assert_allclose(clf.predict_proba(blocks), clf.predict_proba(make(X)), rtol=rtol)
    np.testing.assert_array_equal(clf.predict(blocks), clf.predict(make(X)))
    assert clf.score(blocks) == pytest.approx(clf.score(make(X), y, weights))


def test_two_classes_and_newton(wine):
    X, y, _ = wine
    for solver in ("newton", "lbfgs", "auto"):
        whole = TorchSoftmaxClassifier(solver=solver, tol=1e-13).fit(X, y == "barolo")
        clf = TorchSoftmaxClassifier(solver=solver, tol=1e-13).fit(RowBlocks(parted(X, y == "barolo")))
        np.testing.assert_allclose(clf.coef_, whole.coef_, rtol=1e-6)


def test_soft_targets_and_warm_starts(wine):
    X, y, _ = wine
    proba = TorchSoftmaxClassifier().fit(X, y).predict_proba(X)
    whole = TorchSoftmaxClassifier(tol=1e-12).fit(X, proba, classes=["a", "b", "c"])
    clf = TorchSoftmaxClassifier(tol=1e-12, warm_start=True).fit(RowBlocks(parted(X, proba)), classes=["a", "b", "c"])
    np.testing.assert_allclose(clf.coef_, whole.coef_, rtol=1e-5, atol=1e-8)
    assert clf.fit(RowBlocks(parted(X, proba)), classes=["a", "b", "c"]).n_passes_ <= 2


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.3}, {"are_proba": True}])
def test_blocks_of_a_class_without_weight(settings):
    """Their rows count where labels are smoothed, and are left out else, as they are in memory."""
    X, y = load_wine(return_X_y=True)
    settings = {"class_weight": {0: 0.0}, "solver": "newton", "tol": 1e-13, **settings}
    targets = np.eye(3)[y] if settings.pop("are_proba", False) else y
    whole = TorchSoftmaxClassifier(**settings).fit(X, targets)
    blocks = RowBlocks([(X[y == k], targets[y == k]) for k in range(3)])
    found = TorchSoftmaxClassifier(**settings).fit(blocks)
    np.testing.assert_allclose(found.coef_, whole.coef_, rtol=1e-5, atol=1e-8)


def test_each_pass_goes_through_the_blocks_once(wine):
    X, y, _ = wine
    source = Counted(parted(X, y))
    clf = TorchSoftmaxClassifier(solver="lbfgs").fit(RowBlocks(source))
    assert source.n_times <= 2 + clf.n_passes_


def test_files(wine, tmp_path):
    X, y, _ = wine
    names = []
    for i, (x, labels) in enumerate(parted(X, y)):
        np.save(tmp_path / f"x{i}.npy", x)
        np.save(tmp_path / f"y{i}.npy", labels)
        names.append((str(tmp_path / f"x{i}.npy"), tmp_path / f"y{i}.npy"))
    clf = TorchSoftmaxClassifier(tol=1e-12).fit(RowBlocks(names))
    np.testing.assert_allclose(clf.coef_, TorchSoftmaxClassifier(tol=1e-12).fit(X, y).coef_, rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(clf.predict(RowBlocks([x for x, _ in names])), clf.predict(X))


def test_blocks_are_read_ahead():
    made, worked_on, before = [], threading.Event(), set(threading.enumerate())

    class Source:
        def __iter__(self):
            for i in range(4):
                made.append((i, threading.current_thread() is threading.main_thread()))
                if i == 1:
                    worked_on.set()
                yield np.full((2, 2), i)

    blocks = iter(RowBlocks(Source()))
    next(blocks)
    assert worked_on.wait(timeout=10)  # the second, while the first is worked on
    blocks.close()
    assert not any(is_main for _, is_main in made)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("source", [iter([]), (block for block in []), 3, "rows.npy", {"X": []}])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(TypeError, match="gone through again and again"):
        RowBlocks(source)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([(np.ones((3, 2)), [0, 1, 0]), (np.array([[1, np.nan]]), [1])], "Block 1: X holds NaN"),
        ([(np.ones((3, 2)), [0, 1, 0]), (np.ones((1, 3)), [1])], "Block 1: X has 3 features"),
        ([(np.ones((3, 2)), [0, 1])], "Block 0: .*inconsistent numbers of samples"),
        ([(np.ones((3, 2)), [0, 0, 0])], "one class only"),
        ([(np.ones((3, 2)), [0, 1, 2], None, None)], "Block 0 has 4 entries"),
        ([], "X has no rows"),
        ([np.ones((3, 2))], "Block 0: y is None, but rows to fit need labels"),
        ([(np.ones((3, 2)), [0, None, 1])], "Block 0: y holds no label in row 1"),
        ([(np.ones((3, 2)), [0, 1, 0]), (np.ones((2, 2)), np.eye(2))], "Block 1: y holds probabilities"),
        ([(np.ones((3, 2)), [0, 1, 0]), (csr_array(np.ones((2, 2))), [0, 1])], "Block 1: X is sparse where others"),
        (
            [(np.ones((3, 2)), np.array([0, "a", 1], object))],
            "Block 0: Unknown label type: y holds objects of the types int, str",
        ),
        ([(np.ones((2, 2)), np.array([["a", "b"]] * 2))], "Block 0: A two-dimensional y holds probabilities"),
        ([(np.ones((2, 2)), np.eye(2)), (np.ones((2, 2)), np.ones((2, 2)))], "Block 1: .* but row 0 is"),
        (
            [(np.ones((2, 2)), [0, 1]), (np.ones((2, 2)), ["0", "1"])],
            "y holds strings in some parts of the rows and num",
        ),
        ([(np.ones((2, 2)), [0, 1], ["a", "b"])], "Block 0: sample_weight must have a number"),
        ([(np.ones((2, 2)), [0, 1], [1, -1])], "Block 0: Negative values or NaN in sample_weight: that of row 1"),
    ],
)
def test_bad_blocks(blocks, message):
    clf = TorchSoftmaxClassifier().fit([[0.0, 1], [1, 0], [2, 2]], [0, 1, 0])
    before = dict(vars(clf))
    with pytest.raises(ValueError, match=message):
        clf.fit(RowBlocks(blocks))
    assert vars(clf) == before


def test_blocks_with_names_for_their_entries(wine):
    X, y, _ = wine
    with pytest.raises(TypeError, match=r"Block 1 is a dict, but \(X, y\)"):
        TorchSoftmaxClassifier().fit(RowBlocks([(X, y), {"X": X, "y": y}]))


@pytest.mark.parametrize("empty", [([], []), (np.zeros((0, 13)), np.zeros(0)), (np.zeros((0, 13)), np.zeros((0, 3)))])
@pytest.mark.parametrize("are_proba", [False, True])
def test_empty_blocks_are_passed_over_wherever_they_are(wine, empty, are_proba):
    X, y, _ = wine
    y = np.eye(3)[y.argsort().argsort() % 3] if are_proba else y
    expected = TorchSoftmaxClassifier().fit(RowBlocks([(X, y)]))
    for blocks in ([empty, (X, y)], [(X, y), empty]):
        found = TorchSoftmaxClassifier().fit(RowBlocks(blocks))
        np.testing.assert_array_equal(found.coef_, expected.coef_)
        assert found.n_features_in_ == 13


def test_a_weight_may_be_that_of_all_rows_of_a_block(wine):
    X, y, _ = wine
    blocks = [(X[:90], y[:90], 2.0), (X[90:], y[90:], 0.5)]
    found = TorchSoftmaxClassifier(tol=1e-12).fit(RowBlocks(blocks))
    expected = TorchSoftmaxClassifier(tol=1e-12).fit(X, y, np.repeat([2.0, 0.5], [90, 88]))
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-5)
    assert found.score(RowBlocks(blocks)) == pytest.approx(expected.score(X, y, np.repeat([2.0, 0.5], [90, 88])))


def test_blocks_that_cannot_be_predicted_are_named(wine):
    X, y, _ = wine
    clf, bad = TorchSoftmaxClassifier().fit(X, y), X[70:].copy()
    bad[2, 0] = np.nan
    with pytest.raises(ValueError, match=r"Block 1: X holds NaN in row 2"):
        clf.predict(RowBlocks([X[:70], bad]))
    with pytest.raises(ValueError, match=r"Block 2: X has 2 features"):
        clf.predict_proba(RowBlocks([X[:70], X[:0], X[70:, :2]]))


def test_scores_of_blocks_need_labels(wine):
    X, y, _ = wine
    clf = TorchSoftmaxClassifier().fit(X, y)
    with pytest.raises(ValueError, match="Block 1: no labels are held"):
        clf.score(RowBlocks([(X, y), X]))
    with pytest.raises(ValueError, match="Block 2: Negative values or NaN in sample_weight: that of row 0"):
        clf.score(RowBlocks([(X, y), (X[:0], y[:0]), (X, y, -np.ones(len(y)))]))


def test_blocks_that_change_are_noticed(wine):
    X, y, _ = wine

    class Shrinking(Counted):
        def __iter__(self):
            self.n_times += 1
            return iter(self.blocks[:-1] if self.n_times > 3 else self.blocks)

    with pytest.raises(ValueError, match=r"The blocks gave 120 rows, but 178"):
        TorchSoftmaxClassifier(solver="lbfgs").fit(RowBlocks(Shrinking(parted(X, y))))


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (lambda X, y: (csr_array(X), y), "Block 0: X is sparse where others are dense"),
        (lambda X, y: (X, y, np.zeros(len(y))), "No row of the blocks has a positive weight"),
    ],
)
def test_blocks_that_become_others_are_named(later, message, wine):
    X, y, _ = wine

    class Changing(Counted):
        def __iter__(self):
            self.n_times += 1
            return iter([later(*block[:2]) for block in self.blocks] if self.n_times > 3 else self.blocks)

    with pytest.raises(ValueError, match=message):
        TorchSoftmaxClassifier(solver="lbfgs").fit(RowBlocks(Changing(parted(X, y))))


def test_without_a_penalty_it_is_no_L1_penalty(wine):
    X, _, _ = wine
    y = np.random.default_rng(0).integers(2, size=len(X))
    blocks, expected = RowBlocks(parted(X, y)), TorchSoftmaxClassifier(C=np.inf)
    found = clone(expected).set_params(l1_ratio=0.5).fit(blocks)
    np.testing.assert_array_equal(found.coef_, expected.fit(blocks).coef_)


@pytest.mark.parametrize("read_ahead", [-1, 1.5, "2"])
def test_read_ahead_is_a_number_of_blocks(read_ahead):
    with pytest.raises(ValueError, match="read_ahead must be a number of blocks"):
        RowBlocks([], read_ahead=read_ahead)


def test_labels_beside_the_blocks_are_no_number_of_blocks(wine):
    X, y, _ = wine
    with pytest.raises(ValueError, match=r"got array\(.{,90}\. Labels are passed in the blocks: RowBlocks\(\[\(X, y\)"):
        RowBlocks(X, y)


def test_files_of_objects_are_named(tmp_path):
    np.save(tmp_path / "y.npy", np.array(["a", "b"], dtype=object))
    with pytest.raises(ValueError, match=r"y\.npy' cannot be read: .*Save numbers"):
        TorchSoftmaxClassifier().fit(RowBlocks([(np.eye(2), str(tmp_path / "y.npy"))]))


@pytest.mark.parametrize("settings", [{"l1_ratio": 0.5}, {"solver": "sgd"}, {"early_stopping": True}])
def test_what_blocks_cannot(settings, wine):
    with pytest.raises(ValueError, match="Blocks of rows are fitted by solver"):
        TorchSoftmaxClassifier(**settings).fit(RowBlocks(parted(*wine)))


def test_labels_beside_blocks(wine):
    X, y, _ = wine
    with pytest.raises(ValueError, match="Blocks hold their labels"):
        TorchSoftmaxClassifier().fit(RowBlocks(parted(X, y)), y)


def test_blocks_hold_their_labels_and_rows():
    X, y = load_iris(return_X_y=True)
    clf = TorchSoftmaxClassifier().fit(X, y)
    with pytest.raises(ValueError, match="Blocks hold their labels and weights"):
        clf.score(RowBlocks([(X, y)]), y)
    with pytest.raises(ValueError, match="X has no rows"):
        clf.predict(RowBlocks([(X[:0],)]))
    with pytest.raises(ValueError, match="no rows with a positive weight"):
        clf.score(RowBlocks([(X[:0], y[:0])]))


def test_blocks_of_lists():
    X, y = load_iris(return_X_y=True)
    blocks = RowBlocks([(X[::2].tolist(), y[::2].tolist()), (X[1::2].tolist(), y[1::2])])
    found, whole = (TorchSoftmaxClassifier(tol=1e-14) for _ in range(2))
    np.testing.assert_allclose(found.fit(blocks).coef_, whole.fit(X, y).coef_, rtol=1e-6)


def test_labels_of_blocks_may_be_tensors_of_any_number_type():
    X, y = load_iris(return_X_y=True)
    expected = TorchSoftmaxClassifier().fit(RowBlocks([(X, y)])).coef_
    for dtype in (torch.int32, torch.float32, torch.bfloat16):
        found = TorchSoftmaxClassifier().fit(RowBlocks([(X, torch.from_numpy(y).to(dtype))]))
        np.testing.assert_array_equal(found.coef_, expected)


def test_scores_take_blocks_without_weight():
    X, y = load_iris(return_X_y=True)
    weights = np.repeat([0.0, 1.0], [70, 80])
    model = TorchSoftmaxClassifier().fit(X, y)
    blocks = RowBlocks([(X[:70], y[:70], weights[:70]), (X[70:], y[70:], weights[70:])])
    assert model.score(blocks) == model.score(X, y, weights)


@pytest.mark.parametrize("tol", [1e-5, 1e-7])
def test_rows_far_out_are_not_missed(tol):
    """Samples do not show them: 1,500 times tol were left while the fit said that it had converged."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 8))
    y = X[:, 0] + rng.logistic(size=20_000) > 0
    X[-1, 3] = 1e6
    clf, exact = TorchSoftmaxClassifier(tol=tol), TorchSoftmaxClassifier(tol=1e-12).fit(X, y)
    clf.fit(RowBlocks([(X[i::5], y[i::5]) for i in range(5)]))
    assert clf.converged_
    assert clf.loss_curve_[-1] <= exact.loss_curve_[-1] * (1 + 2 * tol)


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("is_soft", [False, True])
def test_the_sample_of_the_rows_is_bounded_however_small_blocks_are(size, is_soft, monkeypatch):
    monkeypatch.setattr(pieces, "DRAWN_BYTES", 50 * 8 * (4 + 3 * is_soft))
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 4))
    y = rng.dirichlet(np.ones(3), size=2000) if is_soft else rng.integers(0, 3, 2000)
    blocks, clf = (
        RowBlocks([(X[i : i + size], y[i : i + size]) for i in range(0, 2000, size)]),
        TorchSoftmaxClassifier(),
    )
    placed = place_blocks(clf, blocks, None, None, None)
    assert len(placed.sample.X) == 50
    places = [np.flatnonzero((x == X).all(axis=1)).item() for x in placed.sample.X.numpy()]
    assert np.diff(places).max() <= 2 * max(2000 / 50, size)
    assert placed.sample.weights.sum().item() == pytest.approx(2000)
    np.testing.assert_allclose(clf.fit(blocks).coef_, TorchSoftmaxClassifier().fit(X, y).coef_, atol=1e-3)


def test_blocks_share_what_smoothed_labels_stand_for(wine):
    X, y, weights = wine
    estimator = TorchSoftmaxClassifier(label_smoothing=0.1, class_weight="balanced")
    known = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "draw", lambda group, *_: known.extend(rows.label_proba for rows in group) or group)
        place_blocks(estimator, RowBlocks(parted(X, y, weights)), None, None, None)
    assert len(known) > 3
    assert len(set(map(id, known))) == 1


@pytest.mark.parametrize("read_ahead", [0, 1, 3])
def test_a_fit_holds_some_blocks(read_ahead, monkeypatch):
    monkeypatch.setattr(pieces, "DRAWN_BYTES", 800)  # or else the sample were all of them
    X, y = load_iris(return_X_y=True)
    alive, most = set(), [0]

    class Source:
        def __iter__(self):
            for i in range(15):
                x = X[i::15].copy()
                alive.add(id(x))
                weakref.finalize(x, alive.discard, id(x))
                most[0] = max(most[0], len(alive))
                yield x, y[i::15]
                del x

    TorchSoftmaxClassifier().fit(RowBlocks(Source(), read_ahead=read_ahead))
    assert most[0] <= read_ahead + 2


def test_blocks_of_few_rows_with_many_labels_are_no_reason_to_wonder():
    y = np.array(list("abcdefghijklmnopqrstuvwxyz") * 10, dtype=object)
    X = np.random.default_rng(0).normal(size=(260, 2))
    with warnings.catch_warnings(action="error"):
        clf = TorchSoftmaxClassifier().fit(RowBlocks([(X[i : i + 26], y[i : i + 26]) for i in range(0, 260, 26)]))
    assert len(clf.classes_) == 26
    numbers = np.random.default_rng(0).normal(size=260)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        TorchSoftmaxClassifier().fit(RowBlocks([(X, numbers)]))


def test_scores_before_a_fit():
    X, y = load_iris(return_X_y=True)
    for arguments in ((RowBlocks([(X, y)]),), (X, y)):
        with pytest.raises(NotFittedError):
            TorchSoftmaxClassifier().score(*arguments)


class Reused:
    """A source whose blocks are all in the same memory, one after the other."""

    def __init__(self, *arrays):
        self.blocks = [block for block in parted(*arrays) if len(block[0])]

    def __iter__(self):
        memory = np.empty_like(np.concatenate([X for X, *_ in self.blocks]))
        for X, *rest in self.blocks:
            memory[: len(X)] = X
            yield memory[: len(X)], *rest


@pytest.mark.parametrize("solver", ["lbfgs", "newton"])
def test_blocks_in_the_same_memory_are_read_one_by_one(wine, solver):
    X, y, weights = wine
    whole = TorchSoftmaxClassifier(solver=solver, tol=1e-13).fit(X, y, weights)
    clf = TorchSoftmaxClassifier(solver=solver, tol=1e-13).fit(RowBlocks(Reused(X, y, weights), read_ahead=0))
    np.testing.assert_allclose(clf.coef_, whole.coef_, rtol=1e-6, atol=1e-9)
    apart = TorchSoftmaxClassifier(solver=solver, tol=1e-13).fit(RowBlocks(parted(X, y, weights)))
    assert clf.n_passes_ == apart.n_passes_  # led by the same sample
