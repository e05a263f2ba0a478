"""Computing on a device: on a pretended one, which refuses to mix with the CPU, every path gives what the CPU gives."""

import numpy as np
import pytest
import torch
from formulas import take_general_formulas
from pretended import DEVICE, pretended_device
from sklearn.datasets import load_digits, load_iris, load_wine

from skl_softmax import RowBlocks, TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.data import devices

FITS = {
    "auto": {},
    "newton": {"solver": "newton"},
    "lbfgs": {"solver": "lbfgs"},
    "no intercept": {"solver": "lbfgs", "fit_intercept": False},
    "balanced, smoothed": {"class_weight": "balanced", "label_smoothing": 0.1},
    "no penalty": {"C": np.inf, "solver": "newton", "max_iter": 30},
    "lasso": {"l1_ratio": 1.0},
    "elastic net": {"l1_ratio": 0.5, "C": 0.01},
    "early stopping": {"early_stopping": True, "random_state": 0},
    "sgd": {"solver": "sgd", "max_iter": 20},
    "batches": {"solver": "sgd", "batch_size": 32, "max_iter": 5, "random_state": 0, "momentum": 0.9, "average": True},
    "adam": {"solver": "adam", "max_iter": 20},
}


pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def both(make, X, y, float64=True, dtype=None):
    """A fit on the CPU and one on the pretended device."""
    X = torch.from_numpy(X).to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        take_general_formulas(patch)
        here = make().fit(X, y)
    with pretended_device(float64):
        there = make().fit(X.to(DEVICE), y)
    return here, there


@pytest.mark.parametrize("data", [load_wine, load_digits], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", FITS)
def test_a_fit_where_x_is(name, data):
    X, y = data(return_X_y=True)
    here, there = both(lambda: TorchSoftmaxClassifier(**FITS[name]), X, y)
    assert there.converged_ == here.converged_
    if name == "early stopping":  # each restores the best of its own iterates
        assert max(there.validation_scores_) == pytest.approx(max(here.validation_scores_), abs=1e-3)
    else:
        tolerance = 1e-3 if here.optimality_gap_ > 0 else 1e-12
        np.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), atol=tolerance)
    assert abs(there.loss_curve_[-1] - here.loss_curve_[-1]) <= 1e-6 * here.loss_curve_[-1]
    assert type(there.coef_) is np.ndarray


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_narrow_types(dtype):
    X, y = load_digits(return_X_y=True)
    here, there = both(TorchSoftmaxClassifier, X, y, dtype=dtype)
    np.testing.assert_allclose(there.coef_, here.coef_, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_two_classes_and_soft_targets(weighted):
    X, y = load_iris(return_X_y=True)
    X, y = X[50:], y[50:]
    weights = np.random.default_rng(0).integers(0, 3, len(y)).astype(float) if weighted else None
    for targets in (y, np.eye(2)[y - 1] * 0.8 + 0.1):
        here = TorchSoftmaxClassifier(tol=1e-12).fit(X, targets, weights)
        with pretended_device():
            rows = torch.from_numpy(X).to(DEVICE)
            there = TorchSoftmaxClassifier(tol=1e-12).fit(rows, torch.from_numpy(targets).to(DEVICE), weights)
        np.testing.assert_allclose(there.coef_, here.coef_, rtol=1e-5)


def test_blocks_of_rows_on_the_device_give_arrays():
    X, y = load_digits(return_X_y=True)
    here = TorchSoftmaxClassifier().fit(X, y)
    with pretended_device():
        rows = torch.from_numpy(X).to(DEVICE)
        blocks = RowBlocks([(rows[:1000], y[:1000]), (rows[1000:], y[1000:])])
        for method in ("predict_proba", "decision_function", "predict"):
            found, expected = getattr(here, method)(blocks), getattr(here, method)(X)
            assert type(found) is np.ndarray
            np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_results_stay_on_the_device():
    X, y = load_digits(return_X_y=True)
    clf = TorchSoftmaxClassifier().fit(X, y)
    with pretended_device() as device:
        rows = torch.from_numpy(X).to(DEVICE)
        proba = clf.predict_proba(rows)
        assert device.n_copied == 0
        assert proba.device == clf.decision_function(rows).device == clf.predict(rows).device == DEVICE
        np.testing.assert_allclose(proba.cpu().numpy(), clf.predict_proba(X), rtol=1e-12)
        assert clf.score(rows, torch.from_numpy(y).to(DEVICE)) == clf.score(X, y)


def test_x_is_not_brought_back():
    X, y = load_digits(return_X_y=True)
    X, y, copied, iterations = np.tile(X, (10, 1)), np.tile(y, 10), [], []
    for tol in (1e-2, 1e-9):
        with pretended_device() as device:
            clf = TorchSoftmaxClassifier(tol=tol).fit(torch.from_numpy(X).to(DEVICE), y)
        copied.append(device.n_copied)
        iterations.append(clf.n_iter_[0])
    # Some thousand rows, for the scale of the columns, and the coefficients; not a tensor in each of the iterations.
    assert copied[1] < 2 * 4096 * X.shape[1]
    assert iterations[1] > iterations[0]
    assert copied[1] - copied[0] < clf.coef_.size * (iterations[1] - iterations[0])


def test_streams():
    X, y = load_wine(return_X_y=True)
    streams = [TorchSoftmaxClassifier(solver="sgd", momentum=0.9, average=True) for _ in range(2)]
    for part in np.array_split(np.random.default_rng(0).permutation(len(y)), 5):
        streams[0].partial_fit(X[part], y[part], classes=np.arange(3))
        with pretended_device():
            streams[1].partial_fit(torch.from_numpy(X[part]).to(DEVICE), y[part], classes=np.arange(3))
    np.testing.assert_allclose(streams[1].coef_, streams[0].coef_, rtol=1e-9)


@pytest.mark.parametrize("covariance", ["observed", "sandwich"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_summaries(n_classes, covariance):
    X, y = load_wine(return_X_y=True)
    X, y = X[y < n_classes, 1:3], y[y < n_classes]
    model = TorchSoftmaxClassifier(C=np.inf, tol=1e-12).fit(X, y)
    with pretended_device():
        found = model.summary(torch.from_numpy(X).to(DEVICE), y, covariance=covariance)
    np.testing.assert_allclose(found, model.summary(X, y, covariance=covariance), rtol=1e-5)


@pytest.mark.parametrize("cv", [3, "alo"])
def test_sweeps(cv):
    X, y = load_wine(return_X_y=True)
    here, there = both(lambda: TorchSoftmaxClassifierCV(Cs=[0.1, 1.0], cv=cv, tol=1e-12), X, y)
    np.testing.assert_allclose(there.scores_, here.scores_, rtol=1e-4)
    np.testing.assert_allclose(there.coef_, here.coef_, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    "settings", [{}, {"solver": "newton"}, {"l1_ratio": 0.5, "C": 0.1}, {"solver": "adam", "max_iter": 50}]
)
def test_a_device_without_float64(settings, monkeypatch):
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {DEVICE.type})
    X, y = load_digits(return_X_y=True)
    here, there = both(lambda: TorchSoftmaxClassifier(tol=1e-5, **settings), X.astype(np.float32), y, float64=False)
    assert there.converged_ == here.converged_
    assert abs(there.loss_curve_[-1] - here.loss_curve_[-1]) <= 1e-4 * here.loss_curve_[-1]


def test_arrays_are_moved_to_a_device_without_float64(monkeypatch):
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {DEVICE.type})
    X, y = load_wine(return_X_y=True)
    with pretended_device(float64=False):
        clf = TorchSoftmaxClassifier(device=DEVICE, tol=1e-4).fit(X, y)
    assert clf.converged_
    assert clf.coef_.dtype == np.float32
    assert (clf.predict(X) == TorchSoftmaxClassifier().fit(X, y).predict(X)).mean() > 0.98


@pytest.mark.parametrize("covariance", ["observed", "sandwich"])
def test_labels_and_errors_on_a_device_without_float64(covariance, monkeypatch):
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {DEVICE.type})
    X, y = load_wine(return_X_y=True)
    X, y = torch.from_numpy(X[:, :2]).float(), y.astype(np.float64)
    here = TorchSoftmaxClassifier(C=np.inf, tol=1e-4).fit(X, y)
    with pretended_device(float64=False):
        there = TorchSoftmaxClassifier(C=np.inf, tol=1e-4).fit(X.to(DEVICE), y)
        labels = there.predict(X.to(DEVICE)).to("cpu")
        assert there.score(X.to(DEVICE), y) == pytest.approx(here.score(X, y), abs=0.02)
        errors = there.summary(X.to(DEVICE), y, covariance=covariance)["std err"]
    assert labels.dtype == torch.float32
    assert (labels == here.predict(X)).double().mean() > 0.97
    np.testing.assert_allclose(errors, here.summary(X, y, covariance=covariance)["std err"], rtol=0.01)


def test_sweeps_with_any_scorer():
    X, y = load_wine(return_X_y=True)
    here, there = both(lambda: TorchSoftmaxClassifierCV(Cs=[0.1, 1.0], cv=3, scoring="f1_macro"), X, y)
    np.testing.assert_allclose(there.scores_, here.scores_)
    weights = torch.arange(1.0, len(y) + 1).bfloat16()
    for scoring in ("f1_macro", "roc_auc_ovr"):
        there.set_params(scoring=scoring), here.set_params(scoring=scoring)
        with pretended_device():
            found = there.score(torch.from_numpy(X).to(DEVICE), y, weights)
        assert found == pytest.approx(here.score(X, y, weights.double().numpy()))


def test_an_array_is_moved_where_device_says():
    X, y = load_wine(return_X_y=True)
    with pretended_device() as device:
        TorchSoftmaxClassifier(device="meta").fit(X, y)
    assert device.n_copied > 0
    assert TorchSoftmaxClassifier(device="cpu").fit(X, y).converged_
    assert TorchSoftmaxClassifier(device="auto").fit(X, y).converged_


HAS_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=HAS_CUDA), "cuda:99", "nonsense", "meta"])
def test_a_device_that_is_not_there(device):
    X, y = load_wine(return_X_y=True)
    clf = TorchSoftmaxClassifier(device=device)
    with pytest.raises(ValueError, match=rf"device='{device}' is not there.*Set device=None"):
        clf.fit(X, y)
    assert not hasattr(clf, "coef_")


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator here")
@pytest.mark.parametrize("name", FITS)
def test_a_real_accelerator(name):
    X, y = load_digits(return_X_y=True)
    here = TorchSoftmaxClassifier(**FITS[name]).fit(X, y)
    there = TorchSoftmaxClassifier(device="auto", **FITS[name]).fit(X, y)
    tolerance = 1e-6 if here.converged_ else 1e-4
    assert abs(there.loss_curve_[-1] - here.loss_curve_[-1]) <= tolerance * here.loss_curve_[-1]
