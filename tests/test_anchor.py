"""F by its changes from a point, in float32, against F in float64."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from skl_softmax import TorchSoftmaxClassifier
from skl_softmax.data import DenseData
from skl_softmax.objective import Evaluation, Objective, anchor, costs, sampling
from skl_softmax.objective.anchor import make_anchor
from skl_softmax.objective.losses import loss_for
from tests import reference
from tests.formulas import take_general_formulas

N, D, MODELS = 300, 20, 3


@pytest.fixture(params=["sigmoid", "sigmoid-soft", "softmax", "softmax-soft"])
def objective(request, monkeypatch):
    """Three folds of different penalties over rows of which one class is often certain."""
    monkeypatch.setattr(costs, "NARROW_SECONDS", 0.0)
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.normal(size=(N, D)) * rng.uniform(0.1, 10, D) + rng.normal(size=D)).float()
    n_outputs = 1 if "sigmoid" in request.param else 4
    targets = torch.from_numpy(rng.integers(max(2, n_outputs), size=N))
    if n_outputs == 1:
        targets = targets.double() if request.param == "sigmoid" else torch.from_numpy(rng.uniform(size=N))
    elif request.param == "softmax-soft":
        targets = torch.from_numpy(rng.dirichlet(np.ones(n_outputs), N))
    weights = torch.from_numpy(rng.uniform(0.5, 2, (MODELS, N)) * (rng.uniform(size=(MODELS, N)) > 0.2))
    total, penalty = weights.sum(dim=1), torch.tensor([0.0, 1e-4, 1e-1], dtype=torch.float64)
    data = replace(DenseData.standardised(X, True), may_keep=False)
    return Objective(data, targets, weights, penalty, n_outputs, total)


def draw(objective, seed):
    shape = MODELS, objective.n_outputs, D + 1
    theta = 10 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return objective.centred(theta)  # logits far apart: most probabilities are 0 or 1 to many digits


@pytest.mark.parametrize("length", [1e-5, 1e-2, 0.1])
def test_changes_are_those_in_float64(objective, length):
    theta, step = draw(objective, 0), length * draw(objective, 1)
    before, after = objective.at(theta), objective.at(theta + step)
    found = objective.anchor(theta, before).at(theta + step)
    change = (after.value - before.value).abs()
    assert ((found.value - after.value).abs() <= 1e-5 * change).all()
    scale = (after.gradient - before.gradient).abs().amax(dim=(1, 2))
    assert ((found.gradient - after.gradient).abs().amax(dim=(1, 2)) <= 1e-5 * scale).all()


def test_float32_alone_does_not_know_them(objective):
    theta, step = draw(objective, 0), 1e-5 * draw(objective, 1)
    before, after, narrow = objective.at(theta), objective.at(theta + step), objective.narrow().at(theta + step)
    change = (after.value - before.value).abs()
    assert ((narrow.value - after.value).abs() > 1e-4 * change).any()


def test_a_step_too_long_for_float32_is_no_lower(objective):
    theta = draw(objective, 0)
    point = objective.at(theta)
    assert not (objective.anchor(theta, point).at(-1e3 * theta).value <= point.value).any()


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("wrong_by", [10.0, 17.0, 25.0, 60.0, 90.0, 120.0])
def test_rows_that_come_out_on_the_right_side(n_outputs, wrong_by):
    """A step that puts rows right that were confidently wrong: their sum of powers falls to next to nothing."""
    loss = loss_for(n_outputs)
    dtype = torch.float64
    targets = torch.zeros(1, 1, 5, dtype=dtype if n_outputs == 1 else torch.int64)
    logits = torch.zeros(1, n_outputs, 5, dtype=dtype)
    logits[:, -1] = wrong_by
    along = torch.zeros_like(logits)
    along[:, -1] = -torch.tensor([0.5, 1.0, 2.0, 3.0, 0.0], dtype=dtype) * wrong_by
    value, residual = loss.change(
        loss.class_proba(logits).float(), along.float(), targets.float() if n_outputs == 1 else targets
    )
    before, after = (loss.value_and_residual(z.clone(), targets) for z in (logits, logits + along))
    is_known = value.isfinite()  # what float32 does not hold is no step to be taken
    assert is_known.all() or wrong_by > 60
    assert (value[~is_known] == inf).all()
    torch.testing.assert_close(value[is_known].double(), (after[0] - before[0])[is_known], rtol=1e-5, atol=1e-6)
    is_known = is_known.expand_as(residual)
    torch.testing.assert_close(residual[is_known].double(), (after[1] - before[1])[is_known], rtol=1e-5, atol=1e-6)


def test_some_of_the_models(objective):
    theta, models = draw(objective, 0), torch.tensor([2, 0])
    found = objective.anchor(theta, objective.at(theta))
    all_of_them, some = found.at(1.01 * theta), found.select(models).at(1.01 * theta[models])
    torch.testing.assert_close(some.value, all_of_them.value[models], rtol=1e-9, atol=0)
    torch.testing.assert_close(some.gradient, all_of_them.gradient[models], rtol=1e-5, atol=1e-8)


def test_what_is_known_of_the_point_is_gone_on_from(objective):
    theta = draw(objective, 0)
    point = Evaluation(torch.arange(3.0, dtype=torch.float64), torch.ones_like(theta))
    found = make_anchor(objective, theta, point).at(theta)
    torch.testing.assert_close(found.value, point.value)
    torch.testing.assert_close(found.gradient, point.gradient)


def test_there_is_none_where_it_does_not_pay(objective, monkeypatch):
    theta = draw(objective, 0)
    point = objective.at(theta)
    narrow = objective.narrow()
    assert narrow.anchor(theta, point) is not None
    with monkeypatch.context() as patch:
        patch.setattr(DenseData, "wide", torch.float32)  # the widest there is, as on "mps"
        assert narrow.anchor(theta, point) is None
    assert objective.anchor(1e6 * theta, point) is None  # logits beyond what float32 resolves
    with monkeypatch.context() as patch:
        patch.setattr(anchor, "PROBA_BYTES", 4 * MODELS * max(2, objective.n_outputs) * N - 1)
        assert objective.anchor(theta, point) is None
    monkeypatch.setattr(costs, "NARROW_SECONDS", inf)
    assert objective.anchor(theta, point) is None


def as_if_it_were_large(monkeypatch):
    """Take the general formulas, and float32, for small tables."""
    take_general_formulas(monkeypatch)
    monkeypatch.setattr(costs, "NARROW_SECONDS", 0.0)


def test_a_fit_that_ends_by_changes(capsys, monkeypatch):
    as_if_it_were_large(monkeypatch)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 100))
    y = (X @ rng.normal(size=(100, 13)) + 30 * rng.normal(size=(2000, 13))).argmax(axis=1)
    clf = TorchSoftmaxClassifier(C=1, tol=1e-10, solver="lbfgs", verbose=1).fit(X, y)
    assert "changes from here in float32" in capsys.readouterr().out
    exact = LogisticRegression(C=1, solver="newton-cholesky", tol=1e-10).fit(X, y)
    size = np.abs(exact.coef_).max()
    assert clf.converged_
    np.testing.assert_allclose(clf.coef_, exact.coef_, rtol=0, atol=1e-4 * size)
    TorchSoftmaxClassifier(C=1, tol=1e-11, solver="lbfgs", verbose=1).fit(X, y)
    assert "changes from here" not in capsys.readouterr().out  # they do not tell gaps that small


def test_what_float32_loses_is_told_by_some_rows(objective, monkeypatch):
    theta = 0.01 * draw(objective, 0)
    exact, rounded = objective.at(theta), objective.narrow().at(theta)
    lost, passes = objective.rounding(theta)
    assert passes == 2.0  # these rows are all
    torch.testing.assert_close(lost.value, rounded.value - exact.value)
    torch.testing.assert_close(lost.gradient, rounded.gradient - exact.gradient)
    monkeypatch.setattr(sampling, "ROUNDING_ROWS", N // 4)
    lost, passes = objective.rounding(theta)
    assert passes == 0.5
    of_all, of_some = ((a**2).sum() for a in (rounded.gradient - exact.gradient, lost.gradient))
    assert of_all < 2 * of_some < 200 * of_all  # errors of fewer rows cancel less, but for those of one sign


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("n_classes", [2, 13])
def test_a_fit_ends_in_float32_where_that_will_do(n_classes, C, capsys, monkeypatch):
    as_if_it_were_large(monkeypatch)
    monkeypatch.setattr(costs, "NARROW_GAIN", -inf)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 100))
    y = (X @ rng.normal(size=(100, n_classes)) + 10 * rng.gumbel(size=(2000, n_classes))).argmax(axis=1)
    exact = TorchSoftmaxClassifier(C=C, solver="newton", tol=1e-12).fit(X, y).loss_curve_[-1]
    for tol, will_do in ((1e-6, True), (1e-13, False)):
        clf = TorchSoftmaxClassifier(C=C, tol=tol, solver="lbfgs", verbose=1).fit(X, y)
        said = capsys.readouterr().out
        assert "products in torch.float32" in said
        assert ("products in torch.float64" not in said.split("products in torch.float32")[-1]) == will_do
        value = reference.objective(clf, X, y, C=C)
        assert clf.converged_
        assert value - exact <= 3 * clf.optimality_gap_ + 1e-12 * value
        assert clf.loss_curve_[-1] == pytest.approx(value, rel=tol if will_do else 1e-11)
