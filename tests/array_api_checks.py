"""scikit-learn's array API dispatch with tensors. It needs SCIPY_ARRAY_API=1, so `test_tensors` runs it on its own."""

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._array_api import NamespaceAndDevice
from sklearn.utils.estimator_checks import check_array_api_input, check_array_api_mixed_inputs

from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.displays import CoefficientDisplay, ConvergenceDisplay, RegularizationPathDisplay

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
ESTIMATORS = [
    LogisticRegression(),  # what passes there has to pass here
    TorchSoftmaxClassifier(),
    TorchSoftmaxClassifier(l1_ratio=0.5),
    TorchSoftmaxClassifier(solver="sgd", max_iter=500),
    TorchSoftmaxClassifierCV(Cs=2, cv=2),
]


@pytest.fixture(autouse=True)
def _dispatch():
    with config_context(array_api_dispatch=True):
        yield


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("check_sample_weight", [False, True])
def test_scikit_learns_check(estimator, dtype, check_sample_weight):
    check_array_api_input(
        "", estimator, "torch", "cpu", dtype, check_values=True, check_sample_weight=check_sample_weight
    )


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_scikit_learns_check_of_mixed_inputs(estimator):
    torch_cpu, numpy = NamespaceAndDevice("torch", "cpu"), NamespaceAndDevice("numpy", None)
    check_array_api_mixed_inputs("", estimator, torch_cpu, numpy, check_values=True)


def test_pipelines_and_searches():
    X, y = load_wine(return_X_y=True)
    Xt, yt = torch.from_numpy(X), torch.from_numpy(y)
    grid = {"torchsoftmaxclassifier__C": [0.1, 1.0]}
    for scoring in (None, "neg_log_loss"):
        search = GridSearchCV(make_pipeline(StandardScaler(), TorchSoftmaxClassifier(tol=1e-12)), grid, scoring=scoring)
        there = search.fit(Xt, yt)
        assert isinstance(there.predict_proba(Xt), torch.Tensor)
        assert isinstance(there.best_estimator_[-1].coef_, torch.Tensor)
        with config_context(array_api_dispatch=False):
            here = GridSearchCV(search.estimator, grid, scoring=scoring).fit(X, y)
        assert there.best_params_ == here.best_params_
        np.testing.assert_allclose(there.best_score_, here.best_score_, rtol=1e-6)


@pytest.mark.parametrize("estimator", [TorchSoftmaxClassifier(), TorchSoftmaxClassifierCV(Cs=2, cv=2)], ids=str)
def test_weights_beside_half_precision(estimator):
    X, y = load_wine(return_X_y=True)
    weights = np.arange(1.0, 1.0 + len(y))
    there = clone(estimator).fit(torch.from_numpy(X).half(), y, sample_weight=weights)
    here = clone(estimator).fit(X.astype(np.float16).astype(np.float32), y, sample_weight=weights)
    np.testing.assert_allclose(there.coef_.numpy(), here.coef_, rtol=1e-2, atol=1e-4)


def test_displays_of_tensors():
    pytest.importorskip("matplotlib").use("agg")
    X, y = load_wine(return_X_y=True)
    sweep = TorchSoftmaxClassifierCV(Cs=3, cv=3).fit(torch.from_numpy(X), y)
    assert isinstance(sweep.scores_, torch.Tensor)
    display = RegularizationPathDisplay.from_estimator(sweep)
    low, high = display.axes_[0].collections[0].get_datalim(display.axes_[0].transData).intervaly
    mean, spread = sweep.cv_results_["mean_test_score"], sweep.cv_results_["std_test_score"]
    np.testing.assert_allclose((low, high), ((mean - spread).min(), (mean + spread).max()), rtol=1e-9)
    fit = TorchSoftmaxClassifier().fit(torch.from_numpy(X), y)
    assert isinstance(CoefficientDisplay.from_estimator(fit).coefficients, np.ndarray)
    assert isinstance(ConvergenceDisplay.from_estimator(fit).objective[0], np.ndarray)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_models_of_scikit_learn_that_were_fitted_on_tensors(n_classes):
    X, y = load_wine(return_X_y=True)
    X, y = torch.from_numpy(X[y < n_classes]), torch.from_numpy(y[y < n_classes])
    theirs = LogisticRegression(max_iter=5000).fit(X, y)
    for dispatch in (True, False):
        with config_context(array_api_dispatch=dispatch):
            ours = TorchSoftmaxClassifier.from_sklearn(theirs)
    expected = np.asarray(theirs.predict_proba(X))
    np.testing.assert_allclose(ours.predict_proba(X.numpy()), expected, rtol=1e-6, atol=1e-12)
    assert ours.classes_.tolist() == list(range(n_classes))


@pytest.mark.parametrize("settings", [{"solver": "sgd"}, {"solver": "lbfgs", "warm_start": True}])
def test_what_goes_on_from_tensors(settings):
    X, y = load_wine(return_X_y=True)
    X = torch.from_numpy(X)
    clf = TorchSoftmaxClassifier(**settings)
    go_on = clf.partial_fit if settings["solver"] == "sgd" else clf.fit
    classes = {"classes": [0, 1, 2]}
    go_on(X, y, **classes)
    go_on(X, y, **classes)
    assert isinstance(clf.coef_, torch.Tensor)
    np.testing.assert_allclose(clf.to_torch()(X).detach().numpy(), clf.predict_proba(X.numpy()), rtol=1e-9)
    np.testing.assert_allclose(clf.to_sklearn().predict_proba(X.numpy()), clf.predict_proba(X.numpy()), rtol=1e-9)
    assert isinstance(clf.sparsify().predict_proba(X), torch.Tensor)
