"""Models that leave the package, and come back, predict the same."""

import warnings

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import skops.io
import torch
from scipy.special import softmax
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Perceptron, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.onnx import register_onnx_converter


@pytest.fixture(params=["two", "three", "strings"])
def fitted(request):
    X, y = load_iris(return_X_y=True)
    if request.param == "two":
        X, y = X[:100] + np.random.default_rng(0).normal(size=(100, 4)), y[:100]
    if request.param == "strings":
        y = np.array(["setosa", "versicolor", "virginica"])[y]
    return TorchSoftmaxClassifier().fit(X, y), X


def probabilities(module, X):
    proba = module(X).detach()
    return torch.cat([1 - proba, proba], dim=1) if proba.shape[1] == 1 else proba


def test_module_gives_the_probabilities(fitted):
    model, X = fitted
    found = probabilities(model.to_torch(), torch.from_numpy(X))
    np.testing.assert_allclose(found.numpy(), model.predict_proba(X), rtol=1e-10)


def test_module_shares_or_copies(fitted):
    model, _ = fitted
    before = model.coef_.copy()
    with torch.no_grad():
        model.to_torch(share=False)[0].weight += 1
        np.testing.assert_array_equal(model.coef_, before)
        model.to_torch()[0].weight += 1
    np.testing.assert_array_equal(model.coef_, before + 1)


def test_module_exports(fitted):
    model, X = fitted
    rows = torch.from_numpy(X)
    program = torch.export.export(model.to_torch(), (rows,), strict=False)
    torch.testing.assert_close(program.module()(rows), model.to_torch()(rows))
    compiled = torch.compile(model.to_torch(), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(rows), model.to_torch()(rows))


def test_from_torch_and_back(fitted):
    model, X = fitted
    again = TorchSoftmaxClassifier.from_torch(model.module_, model.classes_)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.coef_ is not model.coef_
    assert not np.shares_memory(again.coef_, model.coef_)


def test_an_estimator_with_cross_validation_is_made_and_goes_on():
    X, y = load_iris(return_X_y=True)
    theirs = LogisticRegression(max_iter=1000).fit(X, y)
    ours = TorchSoftmaxClassifierCV.from_sklearn(theirs)
    np.testing.assert_allclose(ours.to_sklearn().predict_proba(X), theirs.predict_proba(X), rtol=1e-12)


@pytest.mark.parametrize("kind", [LogisticRegression, TorchSoftmaxClassifier])
def test_parameters_and_names_go_along(kind):
    """Those that mean the same in both, there and back."""
    X, y = load_iris(return_X_y=True, as_frame=True)
    shared = {
        "C": 0.3, "l1_ratio": 0.0, "fit_intercept": False, "class_weight": {0: 2.0, 1: 1.0, 2: 1.0}, "warm_start": True,
        "random_state": 7,
    }  # fmt: skip
    model = kind(**shared).fit(X, y)
    there = model.to_sklearn() if kind is TorchSoftmaxClassifier else TorchSoftmaxClassifier.from_sklearn(model)
    back = TorchSoftmaxClassifier.from_sklearn(there) if kind is TorchSoftmaxClassifier else there.to_sklearn()
    for other in (there, back):
        assert shared.items() <= other.get_params().items()
        assert other.feature_names_in_.tolist() == X.columns.tolist()
        np.testing.assert_allclose(other.predict_proba(X), model.predict_proba(X), rtol=1e-9)


def test_from_torch_sorts_classes():
    torch.manual_seed(0)
    linear, rows = torch.nn.Linear(4, 3), torch.randn(10, 4)
    model = TorchSoftmaxClassifier.from_torch(linear, ["c", "a", "b"])
    assert model.classes_.tolist() == ["a", "b", "c"]
    wanted = np.array(["c", "a", "b"])[linear(rows).argmax(dim=1)]
    np.testing.assert_array_equal(model.predict(rows), wanted)
    single = torch.nn.Linear(4, 1, bias=False).to(torch.bfloat16)
    model = TorchSoftmaxClassifier.from_torch(single, [1, 0])
    np.testing.assert_array_equal(model.predict(rows).numpy(), (single.float()(rows)[:, 0] <= 0).long().numpy())
    assert not model.fit_intercept


def test_a_module_comes_back(fitted):
    model, X = fitted
    again = TorchSoftmaxClassifier.from_torch(model.to_torch(), model.classes_)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("classes", [["a", "b"], ["b", "a"]])
@pytest.mark.parametrize("has_bias", [True, False])
def test_from_torch_takes_two_outputs_for_two_classes(classes, has_bias):
    torch.manual_seed(0)
    layer, rows = torch.nn.Sequential(torch.nn.Linear(4, 2, bias=has_bias), torch.nn.Softmax(dim=1)), torch.randn(10, 4)
    model = TorchSoftmaxClassifier.from_torch(layer, classes)
    assert model.coef_.shape == (1, 4)
    expected = layer(rows).detach()[:, np.argsort(classes)]
    torch.testing.assert_close(model.predict_proba(rows), expected)


def test_two_outputs_in_half_precision_are_subtracted_in_float32():
    layer = torch.nn.Linear(1, 2).half()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-6e4], [6e4]]))
        layer.bias.copy_(torch.tensor([1.0, 256.0]))
    model = TorchSoftmaxClassifier.from_torch(layer, [0, 1])
    assert model.coef_[0, 0] == 2 * layer.weight[1, 0].item()
    assert model.intercept_[0] == 255


@pytest.mark.parametrize(
    ("outputs", "classes", "message"),
    [
        (1, ["a", "b", "c"], "names 3 labels, for which the layer would have as many outputs .* but it has 1"),
        (3, ["a", "b"], "names 2 labels, for which the layer would have as many outputs .* but it has 3"),
        (3, ["a", "a", "b"], "two or more different labels"),
    ],
)
def test_from_torch_wants_an_output_for_each_class(outputs, classes, message):
    with pytest.raises(ValueError, match=message):
        TorchSoftmaxClassifier.from_torch(torch.nn.Linear(4, outputs), classes)


def test_from_torch_wants_labels_without_fractions_and_real_weights():
    with pytest.raises(ValueError, match="labels, without fractions"):
        TorchSoftmaxClassifier.from_torch(torch.nn.Linear(4, 3), [0.5, 1.5, 2.5])
    layer, other = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    torch.nn.init.constant_(layer.weight, torch.nan), torch.nn.init.constant_(other.bias, torch.inf)
    assert len(TorchSoftmaxClassifier.from_torch(torch.nn.Linear(4, 40), np.arange(40.0)).classes_) == 40
    for wrong in (layer, other, torch.nn.Linear(4, 3, dtype=torch.complex64)):
        with pytest.raises(ValueError, match="must be real numbers, none of them NaN"):
            TorchSoftmaxClassifier.from_torch(wrong, [0, 1, 2])


@pytest.mark.parametrize("classes", [[0, "a", 2], [0, 1, np.nan], np.array([0, "a", None], object)], ids=str)
def test_from_torch_wants_labels_that_fit_takes(classes):
    with pytest.raises(ValueError, match="all numbers or all strings, none missing"):
        TorchSoftmaxClassifier.from_torch(torch.nn.Linear(4, 3), classes)


@pytest.mark.parametrize(
    "module",
    [
        torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 3)),
        torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(dim=1), torch.nn.Linear(3, 3)),
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)),
        torch.nn.Sequential(),
        torch.nn.Conv1d(4, 3, 1),
    ],
    ids=["network", "longer", "flatten", "empty", "convolution"],
)
def test_from_torch_takes_no_other_module(module):
    with pytest.raises(TypeError, match=r"from_torch takes a torch\.nn\.Linear.*Softmax"):
        TorchSoftmaxClassifier.from_torch(module, [0, 1, 2])


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [("l2", (0.0, 1.0)), ("l1", (1.0, 1.0)), ("elasticnet", (0.3, 1.0)), (None, (0.0, np.inf))],
)
def test_the_penalty_of_other_estimators_comes_along(penalty, expected):
    X, y = load_iris(return_X_y=True)
    theirs = SGDClassifier(loss="log_loss", penalty=penalty, l1_ratio=0.3, random_state=0).fit(X[:100], y[:100])
    ours = TorchSoftmaxClassifier.from_sklearn(theirs)
    assert (ours.l1_ratio, ours.C) == expected
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-12)


def test_to_and_from_logistic_regression(fitted):
    model, X = fitted
    theirs = model.to_sklearn()
    assert type(theirs) is LogisticRegression
    np.testing.assert_allclose(theirs.predict_proba(X), model.predict_proba(X), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(theirs.predict(X), model.predict(X))
    again = TorchSoftmaxClassifier.from_sklearn(theirs)
    np.testing.assert_array_equal(again.coef_, model.coef_)
    assert again.get_params()["C"] == model.C
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_the_chosen_penalty_goes_along_to_scikit_learn():
    X, y = load_iris(return_X_y=True)
    chosen = TorchSoftmaxClassifierCV(Cs=[0.01, 100.0], cv=3).fit(X, y)
    assert chosen.to_sklearn().C == chosen.C_ == 100
    assert TorchSoftmaxClassifier.from_sklearn(chosen.to_sklearn()).C == 100


def test_the_penalty_that_scikit_learn_chose_comes_along():
    X, y = load_iris(return_X_y=True)
    settings = {"solver": "saga", "l1_ratios": (1.0,), "Cs": [0.01, 0.1], "tol": 0.1, "scoring": "neg_log_loss"}
    theirs = LogisticRegressionCV(use_legacy_attributes=False, **settings).fit(X, y)
    ours = TorchSoftmaxClassifier.from_sklearn(theirs)
    assert (ours.C, ours.l1_ratio) == (theirs.C_, 1.0)


def test_a_fit_with_an_l1_penalty_can_be_made_again_by_scikit_learn():
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    ours = TorchSoftmaxClassifier(l1_ratio=0.5).fit(X, y)
    again = ours.to_sklearn().set_params(tol=1e-6, max_iter=10_000).fit(X, y)
    np.testing.assert_allclose(again.coef_, ours.coef_, atol=1e-3)


@pytest.mark.parametrize("by_class", [True, False])
@pytest.mark.parametrize("kind", ["two", "three"])
def test_onnx_options_are_kept(kind, by_class):
    register_onnx_converter()
    X, y = load_iris(return_X_y=True)
    X, y = (X[50:], y[50:]) if kind == "two" else (X, y)
    rows, model = X.astype(np.float32), TorchSoftmaxClassifier().fit(X, y)
    options = {TorchSoftmaxClassifier if by_class else id(model): {"zipmap": False, "raw_scores": True}}
    graph = to_onnx(model, rows[:1], options=options)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    scores = session.run(None, {"X": rows})[1]
    expected = model.decision_function(rows)
    np.testing.assert_allclose(scores if kind == "three" else scores[:, 1], expected, atol=1e-4)


@pytest.mark.parametrize(
    "estimator", [TorchSoftmaxClassifier(), TorchSoftmaxClassifierCV(Cs=3, cv=3), TorchSoftmaxClassifier(l1_ratio=1.0)]
)
@pytest.mark.parametrize("kind", ["two", "three", "strings"])
def test_pipelines_convert_to_onnx(estimator, kind):
    register_onnx_converter()
    X, y = load_iris(return_X_y=True)
    if kind == "two":
        X, y = X[50:], y[50:]
    if kind == "strings":
        y = np.array(["setosa", "versicolor", "virginica"])[y]
    pipeline = make_pipeline(StandardScaler(), estimator).fit(X, y)
    rows = X.astype(np.float32)
    graph = to_onnx(pipeline, rows[:1], options={id(pipeline): {"zipmap": False}})
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    labels, proba = session.run(None, {"X": rows})
    np.testing.assert_allclose(proba, pipeline.predict_proba(rows), atol=1e-5)
    assert np.mean(labels == pipeline.predict(rows)) == 1


@pytest.mark.parametrize("by_id", [True, False])
@pytest.mark.parametrize("kind", ["integers", "strings"])
def test_onnx_gives_numbers_for_labels_where_asked(kind, by_id):
    register_onnx_converter()
    X, y = load_iris(return_X_y=True)
    labels = np.array(["setosa", "versicolor", "virginica"] if kind == "strings" else [5, 7, 9])[y]
    pipeline = make_pipeline(StandardScaler(), TorchSoftmaxClassifier()).fit(X, labels)
    rows, options = X.astype(np.float32), {"zipmap": False, "nocl": True}
    given = {id(pipeline) if by_id else TorchSoftmaxClassifier: options}
    before = {key: dict(value) for key, value in given.items()}
    graph = to_onnx(pipeline, rows[:1], options=given)
    assert given == before
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = np.searchsorted(pipeline.classes_, pipeline.predict(X))
    np.testing.assert_array_equal(session.run(None, {"X": rows})[0], expected)


@pytest.mark.parametrize("solver", ["auto", "adam"])
def test_skops_files_need_no_trust_beyond_the_package(solver, tmp_path):
    X, y = load_iris(return_X_y=True)
    model = TorchSoftmaxClassifier(solver=solver, tol=0.3).fit(X, y)
    skops.io.dump(model, tmp_path / "model.skops")
    unknown = skops.io.get_untrusted_types(file=tmp_path / "model.skops")
    assert all(name.startswith("skl_softmax.") for name in unknown)
    again = skops.io.load(tmp_path / "model.skops", trusted=unknown)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_safetensors(tmp_path, fitted):
    model, X = fitted
    safetensors.torch.save_file(model.to_torch(share=False).state_dict(), tmp_path / "model.safetensors")
    module = TorchSoftmaxClassifier.from_torch(model.module_, model.classes_).to_torch()
    module.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    np.testing.assert_allclose(probabilities(module, torch.from_numpy(X)).numpy(), model.predict_proba(X), rtol=1e-10)


def test_other_linear_classifiers():
    X, y = load_iris(return_X_y=True)
    for theirs in (LinearDiscriminantAnalysis(), LogisticRegressionCV(Cs=2, cv=2), LogisticRegression(max_iter=1000)):
        with warnings.catch_warnings(action="ignore"):  # of what the next version will do
            theirs.fit(X, y)
        ours = TorchSoftmaxClassifier.from_sklearn(theirs)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-9, atol=1e-15)
        ours.fit(X, y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SGDClassifier(loss="log_loss"), "are not the softmax, or for two classes the sigmoid, of its logits"),
        (SGDClassifier(), "has no probabilities"),
        (SGDClassifier(loss="modified_huber"), "loss='modified_huber'.* are not the softmax"),
        (Perceptron(), "has no probabilities"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "not Pipeline. Of a pipeline"),
        (GaussianNB(), "not GaussianNB"),
    ],
    ids=str,
)
def test_models_with_other_probabilities_are_refused(model, message):
    with pytest.raises(TypeError, match=message):
        TorchSoftmaxClassifier.from_sklearn(model.fit(*load_iris(return_X_y=True)))


@pytest.mark.parametrize(("scale", "shift"), [(2.0, 0.0), (1.07, -0.08), (1.07, 0.08)])
def test_probabilities_of_a_scale_of_their_own_are_refused(scale, shift):
    # As those that Platt's method gives to a linear SVC.
    class Scaled(LogisticRegression):
        def predict_proba(self, X):
            return softmax(np.c_[np.zeros(len(X)), scale * self.decision_function(X) + shift], axis=1)

    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    fitted = Scaled(solver="newton-cholesky").fit(X, y)
    with pytest.raises(TypeError, match="are not the softmax, or for two classes the sigmoid, of its logits"):
        TorchSoftmaxClassifier.from_sklearn(fitted)
    assert list(fitted.feature_names_in_) == list(X.columns)


@pytest.mark.parametrize(
    ("outputs", "end"),
    [(3, torch.nn.Sigmoid()), (1, torch.nn.Softmax(dim=1)), (3, torch.nn.Softmax(dim=0)), (3, torch.nn.LogSoftmax(2))],
    ids=str,
)
def test_modules_with_other_probabilities_are_refused(outputs, end):
    module = torch.nn.Sequential(torch.nn.Linear(4, outputs), end)
    with pytest.raises(TypeError, match="Sigmoid behind its one output"):
        TorchSoftmaxClassifier.from_torch(module, range(max(2, outputs)))


@pytest.mark.parametrize("classes", [["a"], None, [["a", "b"]]])
def test_classes_that_are_none(classes):
    with pytest.raises(ValueError, match=r"two or more different labels|a one-dimensional array-like of labels"):
        TorchSoftmaxClassifier.from_torch(torch.nn.Linear(4, 1), classes)


def test_a_parameter_that_is_set_later_does_not_take_the_intercept_away(fitted):
    model, X = fitted
    found = probabilities(model.set_params(fit_intercept=False).to_torch(), torch.from_numpy(X))
    np.testing.assert_allclose(found.numpy(), model.predict_proba(X), rtol=1e-10)


def test_onnx_of_features_far_from_zero_warns_in_float32_and_is_right_in_float64():
    register_onnx_converter()
    X, y = load_iris(return_X_y=True)
    X = (10 * X + 1e6).astype(np.float32)
    model = TorchSoftmaxClassifier().fit(X, y)
    with pytest.warns(UserWarning, match=r"far from zero make intercepts of 1\.0e\+06, .*astype\('float64'\)"):
        to_onnx(model, X[:1])
    wide = X.astype(np.float64)
    graph = to_onnx(model, wide[:1], options={"zipmap": False})
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"X": wide})[1], model.predict_proba(X), atol=1e-12)
