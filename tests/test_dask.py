"""The estimator on a cluster is the local one, whatever the partitions and whichever workers are lost."""

import asyncio
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from distributed.comm.tcp import TCP
from pretended import DEVICE, pretended_device
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.datasets import load_iris, make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import skl_softmax.cluster
from skl_softmax import TorchSoftmaxClassifier
from skl_softmax.dask import DaskTorchSoftmaxClassifier

# Coefficients are right to the root of tol, those of "newton" to more.
TIGHT = {"tol": 1e-15, "solver": "newton"}
N_ROWS = 150


@pytest.fixture(scope="module")
def client():
    """Two workers with a thread each, in this process."""
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**settings, silence_logs=50) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture
def processes():
    """Two workers, each a process that can be killed and is then started anew."""
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0"}
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "60s"}),
        LocalCluster(**settings, silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_without_a_cluster_there_is_an_error():
    with pytest.raises(ValueError, match="No client"):
        DaskTorchSoftmaxClassifier().fit(da.ones((4, 2)), da.ones(4))


@pytest.fixture(scope="module")
def rows():
    """X of mixed scales, string labels, weights; sorted, so that partitions differ."""
    X, y = make_classification(N_ROWS, 5, n_informative=4, n_redundant=0, n_classes=3, flip_y=0.3, random_state=0)
    order = np.argsort(y, kind="stable")
    X = X[order] * np.logspace(-2, 2, 5) + np.linspace(0, 50, 5)
    return X, np.array(["one", "two", "three"])[y[order]], np.random.default_rng(0).uniform(0.1, 2, N_ROWS)


def assert_same(found, expected, tolerance=1e-8):
    np.testing.assert_array_equal(found.classes_, expected.classes_)
    for name in ("coef_", "intercept_"):
        here, there = getattr(found, name), getattr(expected, name)
        assert here.dtype == there.dtype
        np.testing.assert_allclose(here, there, rtol=0, atol=tolerance * np.abs(there).max())
    assert found.converged_
    assert found.loss_curve_[-1] == pytest.approx(expected.loss_curve_[-1], rel=1e-13)


def assert_nothing_left(client):
    """Nobody wants or holds anything once the releases have arrived."""
    for _ in range(100):
        # The scheduler may go on knowing a task of a failed graph for a while, of which no worker holds anything.
        if not any(client.who_has().values()) and not client.futures:
            return
        time.sleep(0.05)
    raise AssertionError((client.who_has(), client.futures))


def chunked(edges, *arrays):
    chunks = tuple(np.diff([0, *edges, N_ROWS]).tolist())
    return [da.from_array(a, chunks=(chunks, *a.shape[1:])) for a in arrays]


PARTITIONS = {
    "one": (),
    "uneven": (1, 4, 100),
    "empty": (0, 40, 40, 150),
    "one class only": (50, 100),
    "a row each": tuple(range(1, N_ROWS)),
}


@pytest.mark.parametrize("edges", PARTITIONS.values(), ids=PARTITIONS)
def test_coefficients_are_those_of_a_local_fit(client, rows, edges):
    expected = TorchSoftmaxClassifier(**TIGHT).fit(*rows)
    blocks = chunked(edges, *rows)
    assert_same(DaskTorchSoftmaxClassifier(**TIGHT).fit(*blocks), expected)
    found = DaskTorchSoftmaxClassifier(tol=1e-18).fit(*blocks)
    assert_same(found, expected)
    assert_nothing_left(client)
    assert found.optimality_gap_ <= 1e-18 * found.loss_curve_[-1]
    assert found.loss_curve_.shape == (found.n_iter_[0] + 1,)
    assert found.n_passes_ >= found.n_iter_[0]


@pytest.mark.parametrize(
    "parameters",
    [
        {"C": 100.0, "fit_intercept": False},
        {"class_weight": "balanced"},
        {"class_weight": {"one": 3.0, "two": 0.5}},
        {"label_smoothing": 0.1, "C": np.inf},
    ],
    ids=str,
)
def test_parameters_mean_the_same(client, rows, parameters):
    expected = TorchSoftmaxClassifier(**TIGHT, **parameters).fit(*rows)
    assert_same(DaskTorchSoftmaxClassifier(**TIGHT, **parameters).fit(*chunked((60, 61), *rows)), expected)


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_workers_with_a_device_each(rows, solver):
    expected = TorchSoftmaxClassifier(**TIGHT).fit(*rows)
    devices = []

    def find_device():  # in each thread: the modes of torch are those of a thread
        device = pretended_device()
        devices.append((device, device.__enter__()))

    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
    with (
        ThreadPoolExecutor(2, initializer=find_device) as executor,
        LocalCluster(**settings, silence_logs=50, executor=executor) as cluster,
        Client(cluster) as client,
    ):
        blocks = chunked((20, 60, 61), *rows)
        found = DaskTorchSoftmaxClassifier(tol=1e-18, solver=solver, device=DEVICE).fit(*blocks)
        proba = found.predict_proba(blocks[0]).compute()
        assert_nothing_left(client)
    assert_same(found, expected)
    np.testing.assert_allclose(proba, expected.predict_proba(rows[0]), atol=1e-8)
    assert any(mode.n_copied for _, mode in devices)  # sums came from there


def test_two_classes_and_float32(client, rows):
    X, y, weights = rows
    X, y = X.astype(np.float32), y == "two"
    expected = TorchSoftmaxClassifier(**TIGHT).fit(X, y, weights)
    found = DaskTorchSoftmaxClassifier(**TIGHT).fit(*chunked((60, 61), X, y, weights))
    assert found.classes_.dtype == bool
    assert_same(found, expected, tolerance=1e-6)  # coefficients are stored in float32


def test_columns_of_probabilities_in_another_order_are_refused(client, rows):
    proba = pd.DataFrame(np.full((N_ROWS, 3), 1 / 3), columns=["c", "a", "b"])
    frames = (dd.from_pandas(frame, npartitions=2) for frame in (pd.DataFrame(rows[0]), proba))
    with pytest.raises(ValueError, match="Partition 0: The columns of y are named"):
        DaskTorchSoftmaxClassifier().fit(*frames, classes=["a", "b", "c"])


def test_probabilities_as_targets(client, rows):
    X, _, weights = rows
    proba = np.random.default_rng(0).dirichlet(np.ones(3), N_ROWS)
    expected = TorchSoftmaxClassifier(**TIGHT).fit(X, proba, weights, classes=["c", "a", "b"])
    found = DaskTorchSoftmaxClassifier(**TIGHT)
    found.fit(*chunked((60, 61), X, proba, weights), classes=["c", "a", "b"])
    assert_same(found, expected)


def test_sparse_chunks(client, rows):
    X, y, weights = rows
    X = np.where(np.median(X, axis=0) < X, X / X.std(axis=0), 0.0)
    expected = TorchSoftmaxClassifier(**TIGHT).fit(csr_matrix(X), y, weights)
    blocks, labels, s = chunked((60, 60, 61), X, y, weights)
    blocks = blocks.map_blocks(csr_matrix, meta=csr_matrix((0, 0)))
    found = DaskTorchSoftmaxClassifier(**TIGHT).fit(blocks, labels, s)
    assert_same(found, expected)
    np.testing.assert_array_equal(found.predict(blocks).compute(), expected.predict(X))


def test_unknown_chunk_sizes(client, rows):
    X, y, weights = rows
    blocks, labels, s = chunked((60, 61), X, y, weights)
    keep = blocks[:, 0] > np.median(X[:, 0])
    kept = X[:, 0] > np.median(X[:, 0])
    assert np.isnan(blocks[keep].shape[0])
    expected = TorchSoftmaxClassifier(**TIGHT).fit(X[kept], y[kept], weights[kept])
    found = DaskTorchSoftmaxClassifier(**TIGHT).fit(blocks[keep], labels[keep], s[keep])
    assert_same(found, expected)
    np.testing.assert_array_equal(found.predict(blocks[keep]).compute(), expected.predict(X[kept]))
    assert found.score(blocks[keep], labels[keep]) == pytest.approx(expected.score(X[kept], y[kept]))


def test_chunks_of_columns_and_other_chunks_of_y(client, rows):
    X, y, weights = rows
    expected = TorchSoftmaxClassifier(**TIGHT).fit(X, y, weights)
    X, y, weights = (da.from_array(a, chunks=c) for a, c in zip(rows, [(40, 2), 70, 11], strict=True))
    found = DaskTorchSoftmaxClassifier(**TIGHT).fit(X, y, weights)
    assert_same(found, expected)
    assert found.predict(X).compute().tolist() == expected.predict(rows[0]).tolist()


def frame(rows):
    X, y, weights = rows
    return pd.DataFrame(X, columns=list("abcde")).assign(label=y, weight=weights).set_index(np.arange(N_ROWS) * 2)


def test_data_frames(client, rows):
    local = frame(rows)
    table = dd.from_pandas(local, npartitions=4)
    features = list("abcde")
    expected = TorchSoftmaxClassifier(**TIGHT).fit(local[features], local["label"], local["weight"])
    found = DaskTorchSoftmaxClassifier(**TIGHT).fit(table[features], table["label"], table["weight"])
    assert_same(found, expected)
    assert found.feature_names_in_.tolist() == features
    labels, proba = found.predict(table[features]), found.predict_proba(table[features])
    assert isinstance(labels, dd.Series)
    assert proba.columns.tolist() == expected.classes_.tolist()
    pd.testing.assert_index_equal(proba.compute().index, local.index)
    np.testing.assert_array_equal(labels.compute(), expected.predict(local[features]))
    np.testing.assert_allclose(proba.compute(), expected.predict_proba(local[features]), atol=1e-7)
    assert found.score(table[features], table["label"]) == pytest.approx(expected.score(local[features], local.label))
    with pytest.raises(ValueError, match="feature names should match"):
        found.predict(table[features[::-1]]).compute()


MIXED = dict(zip("abcde", [np.float32, np.int16, np.float32, bool, np.float16], strict=True))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, "Float64", MIXED], ids=str)
def test_frames_hold_what_they_promise(client, rows, dtype):
    local = (10 * frame(rows)[list("abcde")]).astype(int).astype(dtype)
    table = dd.from_pandas(local, npartitions=3)
    labels = dd.from_pandas(pd.Series(rows[1], local.index), npartitions=3)
    found = DaskTorchSoftmaxClassifier(tol=1e-3).fit(table, labels)
    for method in ("predict", "predict_proba", "decision_function"):
        lazy = getattr(found, method)(table)
        pd.testing.assert_series_equal(pd.Series(lazy.dtypes), pd.Series(lazy.compute().dtypes))


def test_a_frame_with_an_array_and_a_frame_of_one_column(client, rows):
    local = frame(rows)
    table = dd.from_pandas(local, npartitions=4)
    local["heavy"], table["heavy"] = local["weight"] > 1, table["weight"] > 1
    expected = TorchSoftmaxClassifier(**TIGHT).fit(local[["a", "b"]], local["heavy"])
    for y in (table["heavy"].to_dask_array(), table[["heavy"]]):
        assert_same(DaskTorchSoftmaxClassifier(**TIGHT).fit(table[["a", "b"]], y), expected)


def test_parquet_files(client, rows, tmp_path):
    # Dask reads a single column of many files in fewer partitions if it may.
    local = frame(rows)
    for i in range(6):
        local[i::6].to_parquet(tmp_path / f"{i}.parquet")
    table, features = dd.read_parquet(tmp_path), list("abcde")
    expected = TorchSoftmaxClassifier(**TIGHT).fit(local[features], local["label"], local["weight"])
    found = DaskTorchSoftmaxClassifier(**TIGHT).fit(table[features], table["label"], table["weight"])
    assert_same(found, expected)
    assert found.score(table[features], table["label"]) == pytest.approx(expected.score(local[features], local.label))


def test_sparse_partitions_beside_dense_ones_are_refused(client, rows):
    X, y, _ = rows
    blocks, labels = (da.from_array(part, chunks=(len(X) // 2, -1)[: part.ndim]) for part in (X, y))
    mixed = da.concatenate([blocks.map_blocks(csr_matrix), blocks])
    with pytest.raises(ValueError, match="X is sparse in some partitions and dense in others"):
        DaskTorchSoftmaxClassifier().fit(mixed, da.concatenate([labels, labels]))


def test_the_link_of_the_html_is_that_of_the_page():
    assert (
        DaskTorchSoftmaxClassifier()._get_doc_link().endswith("/api/skl_softmax.dask.DaskTorchSoftmaxClassifier.html")
    )


def test_labels_that_are_scored_are_like_those_of_the_fit(client):
    X, y = load_iris(return_X_y=True)
    blocks, labels = (da.from_array(part, chunks=75) for part in (X, y))
    found = DaskTorchSoftmaxClassifier().fit(blocks, labels)
    with pytest.raises(ValueError, match=r"Partition \d: Mix of label input types"):
        found.score(blocks, labels.astype(str))
    missing = da.from_array(np.where(np.arange(150) == 80, np.nan, y), chunks=75)
    with pytest.raises(ValueError, match="Partition 1: Input y contains NaN"):
        found.score(blocks, missing)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_predictions_are_lazy_and_equal(client, rows, n_classes):
    X, y, weighs = rows
    y = y if n_classes == 3 else y == "one"
    blocks, labels = chunked((0, 60, 61), X, y)
    found = DaskTorchSoftmaxClassifier().fit(blocks, labels)
    local = found.to_local()
    assert type(local) is TorchSoftmaxClassifier
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        lazy, eager = getattr(found, method)(blocks), getattr(local, method)(X)
        assert isinstance(lazy, da.Array)
        assert (lazy.shape, lazy.dtype) == (eager.shape, eager.dtype)
        assert_equal = np.testing.assert_array_equal if method == "predict" else np.testing.assert_allclose
        assert_equal(lazy.compute(), eager)
        assert_equal(getattr(found, method)(X), eager)  # rows in memory: at once
        for dtype in (np.float32, np.float16):
            lazy, eager = (getattr(m, method)(x.astype(dtype)) for m, x in ((found, blocks), (local, X)))
            assert lazy.dtype == lazy.compute().dtype == eager.dtype
    with pytest.raises(ValueError, match="X must have rows and columns, but has 1 dimension"):
        found.predict(blocks[:, 0])
    assert found.score(blocks, labels) == pytest.approx(local.score(X, y))
    weights = da.from_array(np.ones(len(y), bool), chunks=labels.chunks)
    assert found.score(blocks, labels, weights) == pytest.approx(local.score(X, y))
    with pytest.raises(ValueError, match="no rows with a positive weight"):
        found.score(blocks, labels, 0 * weights)
    with pytest.raises(ValueError, match="a label for each row"):
        found.score(blocks, da.stack([labels, labels], axis=1))
    assert found.score(X, y) == local.score(X, y)
    uneven = da.from_array(weighs, chunks=labels.chunks)
    assert found.score(blocks, labels, uneven) == pytest.approx(local.score(X, y, weighs)) != local.score(X, y)


def test_what_is_lazy_does_not_change_with_the_estimator(client, rows):
    X, y, _ = rows
    blocks, labels = chunked((60,), X, y)
    found = DaskTorchSoftmaxClassifier().fit(blocks, labels)
    lazy, before = found.predict_proba(blocks), found.to_local().predict_proba(X)
    found.set_params(C=1e-3).fit(blocks, labels)
    np.testing.assert_allclose(lazy.compute(), before)


def test_to_local_copies(client, rows):
    X, y, weights = rows
    found = DaskTorchSoftmaxClassifier(C=3.0, label_smoothing=0.1).fit(*chunked((60,), X, y, weights))
    local = found.to_local()
    assert local.get_params()["C"] == 3.0
    for name in ("converged_", "optimality_gap_", "n_passes_", "n_features_in_"):
        assert getattr(local, name) == getattr(found, name)
    assert local._seen == pytest.approx(weights.sum())  # by which partial_fit takes the penalty
    local.coef_[:] = 0
    assert found.coef_.any()
    assert found.to_sklearn().predict(X).tolist() == found.predict(X).tolist()
    assert type(DaskTorchSoftmaxClassifier.from_sklearn(found.to_sklearn())) is DaskTorchSoftmaxClassifier
    with pytest.raises(NotFittedError):
        DaskTorchSoftmaxClassifier().to_local()


def test_the_client_is_found_cloned_and_not_pickled(client, rows):
    unfitted = DaskTorchSoftmaxClassifier()
    assert unfitted.client_ is client
    given = DaskTorchSoftmaxClassifier(client=client).fit(*chunked((60,), *rows))
    assert clone(given).client is client
    assert clone(given).get_params() == given.get_params()
    assert not hasattr(clone(given), "coef_")
    stored = pickle.loads(pickle.dumps(given))
    assert stored.client is None
    assert given.client is client
    np.testing.assert_array_equal(stored.predict(rows[0]), given.predict(rows[0]))


def test_warm_start_goes_on(client, rows):
    blocks = chunked((60,), *rows)
    found = DaskTorchSoftmaxClassifier(warm_start=True).fit(*blocks)
    first = found.n_iter_[0]
    assert found.fit(*blocks).n_iter_[0] < first
    again = DaskTorchSoftmaxClassifier().fit(*blocks, coef_init=found.coef_, intercept_init=found.intercept_)
    assert again.n_iter_[0] < first


def test_a_fit_that_is_cut_short_warns(client, rows):
    with pytest.warns(ConvergenceWarning, match="DaskTorchSoftmaxClassifier did not converge: max_iter=1 iterations"):
        DaskTorchSoftmaxClassifier(max_iter=1, tol=1e-12).fit(*chunked((60,), *rows))


def test_separable_rows_are_told_of(client):
    X = np.arange(20.0)[:, None]
    blocks = [da.from_array(a, chunks=7) for a in (X, X[:, 0] > 9.5)]
    with pytest.warns(ConvergenceWarning, match="the data are separable with C=inf"):
        DaskTorchSoftmaxClassifier(C=np.inf).fit(*blocks)


def test_printing(client, rows, capsys):
    DaskTorchSoftmaxClassifier(verbose=1).fit(*chunked((60,), *rows))
    assert "Iteration    0/1000 Cost: 1.09" in capsys.readouterr().out


def test_errors_name_the_partition_and_leave_the_estimator(client, rows):
    X, y, weights = (a.copy() for a in rows)
    found = DaskTorchSoftmaxClassifier().fit(*chunked((60, 100), X, y))
    before = found.coef_
    with pytest.raises(ValueError, match=r"Partition 1: y holds the labels \['three'\], which are not among"):
        found.fit(*chunked((50, 100), X, np.repeat(["one", "three", "two"], 50)), classes=["one", "two"])
    X[99, 2] = np.nan
    with pytest.raises(ValueError, match=r"Partition 1: X holds NaN in row"):
        found.fit(*chunked((60, 100), X, y))
    weights[149] = -1
    with pytest.raises(ValueError, match=r"Partition 2: Negative values or NaN in sample_weight: that of row 49 is -1"):
        found.fit(*chunked((60, 100), rows[0], y, weights))
    assert found.coef_ is before
    assert_nothing_left(client)


def test_what_does_not_belong_is_refused(client, rows):
    X, y, _ = rows
    blocks, labels = chunked((60,), X, y)
    fit = DaskTorchSoftmaxClassifier().fit
    with pytest.raises(TypeError, match=r"X must be a dask.array or a dask.dataframe collection, not ndarray"):
        fit(X, y)
    with pytest.raises(TypeError, match=r"y must be a dask.array"):
        fit(blocks, y)
    with pytest.raises(ValueError, match="X has 150 rows, but y has 149"):
        fit(blocks, labels[:-1])
    with pytest.raises(ValueError, match="X has 2 partitions, but y has 3"):
        fit(dd.from_pandas(pd.DataFrame(X), npartitions=2), da.zeros(150, chunks=50))
    with pytest.raises(ValueError, match="y holds one class only, 'one'"):
        fit(blocks, da.from_array(np.full(150, "one"), chunks=60))
    with pytest.raises(ValueError, match="X has no rows"):
        fit(blocks[:0], labels[:0])
    with pytest.raises(ValueError, match="leave no row with a positive weight"):
        fit(blocks, labels, da.zeros(150, chunks=60))
    with pytest.raises(ValueError, match=r"l1_ratio=0.5, but DaskTorchSoftmaxClassifier knows no L1 penalty"):
        DaskTorchSoftmaxClassifier(l1_ratio=0.5).fit(blocks, labels)
    with pytest.raises(
        ValueError, match="solver='sgd', but DaskTorchSoftmaxClassifier has 'auto', 'newton', 'lbfgs' only"
    ):
        DaskTorchSoftmaxClassifier(solver="sgd").fit(blocks, labels)
    with pytest.raises(AttributeError, match=r"go over the partitions with TorchSoftmaxClassifier.partial_fit"):
        DaskTorchSoftmaxClassifier(solver="sgd").partial_fit(blocks, labels)
    with pytest.raises(AttributeError, match=r"has no summary, which wants all rows in memory"):
        DaskTorchSoftmaxClassifier().fit(blocks, labels).summary(blocks, labels)
    assert not any(hasattr(DaskTorchSoftmaxClassifier(), name) for name in ("partial_fit", "summary"))


def test_grid_search_and_pipeline(client, rows):
    X, y, _ = rows
    order = np.random.default_rng(0).permutation(N_ROWS)
    blocks, labels = chunked((60, 61), X[order], y[order])
    grid = {"C": [0.01, 1.0]}
    found = GridSearchCV(DaskTorchSoftmaxClassifier(tol=1e-10), grid, cv=3).fit(blocks, labels)
    expected = GridSearchCV(TorchSoftmaxClassifier(tol=1e-10), grid, cv=3).fit(X[order], y[order])
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    assert found.best_params_ == expected.best_params_
    pipeline = make_pipeline("passthrough", DaskTorchSoftmaxClassifier()).fit(blocks, labels)
    assert isinstance(pipeline.predict(blocks), da.Array)


class At:
    """A callback that acts at the n-th iterations."""

    def __init__(self, actions):
        self._actions, self._n = actions, 0

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context, **_):
        self._n += 1
        if self._n in self._actions:
            self._actions[self._n]()

    def on_fit_task_end(self, estimator, context, **_):
        pass


def kill_one(client):
    """Once all workers are there."""
    client.wait_for_workers(2, timeout=60)
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)


@pytest.mark.parametrize("iterations", [(3,), (2, 4)], ids=["one", "two"])
def test_killed_workers_are_made_up_for(processes, rows, iterations):
    expected = TorchSoftmaxClassifier(**TIGHT).fit(*rows)
    killed = []
    actions = {n: lambda: killed.append(kill_one(processes)) for n in iterations}
    found = DaskTorchSoftmaxClassifier(tol=1e-18).set_callbacks(At(actions)).fit(*chunked((20, 60, 61), *rows))
    assert len(killed) == len(iterations)
    assert_same(found, expected)
    assert_nothing_left(processes)


def test_results_that_no_worker_holds_are_worked_on(client, rows, monkeypatch):
    # As they are from when a worker is lost until they are made anew.
    monkeypatch.setattr(Client, "who_has", lambda self, futures: dict.fromkeys((f.key for f in futures), ()))
    expected = TorchSoftmaxClassifier(**TIGHT).fit(*rows)
    assert_same(DaskTorchSoftmaxClassifier(tol=1e-18).fit(*chunked((20, 60, 61), *rows)), expected)


def test_without_workers_a_fit_ends(processes, rows, monkeypatch):
    monkeypatch.setattr(skl_softmax.cluster, "NO_WORKERS_SECONDS", 2.0)

    def kill_all():
        pids = processes.run(os.getpid).values()
        for nanny in processes.cluster.workers.values():
            nanny.close_gracefully()  # so that it starts no other
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    model = DaskTorchSoftmaxClassifier().set_callbacks(At({3: kill_all}))
    with pytest.raises(TimeoutError, match="The cluster has had no workers for 2 seconds"):
        model.fit(*chunked((60,), *rows))
    assert not hasattr(model, "coef_")


@pytest.fixture
def hears_ctrl_c():
    """Processes that a shell starts in the background, as tests may be, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_ends_the_work(client, rows, monkeypatch):
    # While a sum is waited for: the last iterate stays, and nothing goes on on the workers.
    released = threading.Event()
    evaluation = skl_softmax.parts.add_up

    def slow(*arguments):
        if interrupt.is_set():
            timer.start()
            released.wait(60)
        return evaluation(*arguments)

    interrupt = threading.Event()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    monkeypatch.setattr(skl_softmax.cluster.parts, "add_up", slow)
    model = DaskTorchSoftmaxClassifier().set_callbacks(At({4: interrupt.set}))
    with pytest.raises(KeyboardInterrupt):
        model.fit(*chunked((), *rows))
    released.set()
    assert model.coef_.shape == (3, 5)
    assert not model.converged_
    assert_nothing_left(client)


def test_wide_models_go_through_the_scheduler_once(monkeypatch):
    # Client and scheduler are in this process, workers in others. What this process sends in a sum over eight groups is
    # θ (or θ and a direction) to the scheduler, the same to one worker, the gradient to the client, and little else.
    sent, sums = [], []
    write, sum_of = TCP.write, skl_softmax.cluster.GroupSum.__call__

    async def counted_write(self, *arguments, **settings):
        n_bytes = await write(self, *arguments, **settings)
        sent.append(n_bytes)
        return n_bytes

    def counted_sum(self, quantity, *vectors):
        before = sum(sent)
        result = sum_of(self, quantity, *vectors)
        sums.append(((sum(sent) - before) / sum(vector.nbytes for vector in vectors), len(self.groups), len(vectors)))
        return result

    monkeypatch.setattr(TCP, "write", counted_write)
    monkeypatch.setattr(skl_softmax.cluster.GroupSum, "__call__", counted_sum)
    monkeypatch.setattr(skl_softmax.cluster, "VECTOR_BYTES", 2**17)  # so that θ goes in pieces
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 640)), np.arange(400) % 100
    settings = {"n_workers": 2, "threads_per_worker": 4, "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with LocalCluster(**settings) as cluster, Client(cluster) as client:
        DaskTorchSoftmaxClassifier(tol=0.1).fit(*(da.from_array(a, chunks=(20, *a.shape[1:])) for a in (X, y)))
        logs = client.run(lambda dask_worker: [list(log["keys"]) for log in dask_worker.transfer_incoming_log])
    assert len(sums) >= 3
    assert all(4 < groups <= 8 for _, groups, _ in sums)  # eight, if the scheduler gives each worker four partitions
    assert all(2 < part < 3.5 for part, *_ in sums)
    fetched = [key for log in logs.values() for keys in log for key in keys if str(key).startswith("asarray")]
    n_pieces = -(-8 * 100 * 641 // 2**17)
    assert len(fetched) == len(set(fetched))  # by the one worker that is not given it
    assert len(fetched) <= n_pieces * sum(n_vectors for *_, n_vectors in sums)


def test_a_result_may_be_long_on_its_way(client, monkeypatch):
    monkeypatch.setattr(skl_softmax.cluster, "NO_WORKERS_SECONDS", 0.2)
    gather = Client._gather

    async def slowly(self, *arguments, **settings):
        await asyncio.sleep(0.5)
        return await gather(self, *arguments, **settings)

    monkeypatch.setattr(Client, "_gather", slowly)
    total = skl_softmax.cluster.Work(client).get(dask.delayed(sum)([1, 2]))
    assert total == 3
