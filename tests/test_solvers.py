"""Every solver on functions whose minimum is known; their parts against slow, obvious versions."""

import io
import warnings
import weakref
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib import import_module
from math import inf

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.datasets import load_breast_cancer, load_iris, load_wine, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import KBinsDiscretizer

from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.objective import curvature
from skl_softmax.objective.curvature import Inverse
from skl_softmax.objective.tiny import TinyObjective
from skl_softmax.solvers import (
    SOLVERS,
    DescentOptions,
    SolverOptions,
    Status,
    lbfgs,
    newton,
    newton_steps,
    quasi_newton,
)
from skl_softmax.solvers.base import SolveResult
from skl_softmax.solvers.conjugate_gradients import DELAY, Care, conjugate_gradients
from skl_softmax.solvers.line_search import MAX_TRIALS, REACH, SUFFICIENT_DECREASE, backtrack, lengthen
from skl_softmax.solvers.quasi_newton import MIN_SCALE, QuasiNewton
from skl_softmax.solvers.run import Run
from skl_softmax.solvers.samples import through_samples

pytestmark = pytest.mark.usefixtures("sparse_as_it_is")

OPTIONS = SolverOptions(tol=1e-10, max_iter=5000)
DESCENT_OPTIONS = DescentOptions(tol=0.0, max_iter=5000)
DESCENT = ["newton", "lbfgs"]


@dataclass
class Point:
    value: torch.Tensor
    gradient: torch.Tensor


@dataclass
class Metric:
    solve: object
    price: float = inf
    kind: str = "given"
    exact: bool = False
    follows: bool = True
    apart_price: float | None = None
    near_price: float | None = None
    dense_price: float | None = None
    is_local: bool = False
    is_kept: bool = False
    select: object = None

    def __post_init__(self):
        self.solve = Inverse(self.solve, ())


@dataclass
class Quadratic:
    """½ (θ - m)ᵀ A (θ - m) + 1 for a stack of matrices A and minima m, as (M, 1, p)."""

    A: torch.Tensor
    minimum: torch.Tensor
    direct: bool = True
    n_rows: int = 1
    is_family: bool = False
    dtype: torch.dtype = torch.float64

    @property
    def n_models(self):
        return len(self.A)

    @property
    def n_parameters(self):
        return self.A.shape[-1] if self.direct else 10**6

    @property
    def separable_below(self):
        return torch.full((self.n_models,), -inf)

    def at(self, theta):
        gradient = (theta - self.minimum) @ self.A
        return Point(0.5 * ((theta - self.minimum) * gradient).sum(dim=(1, 2)) + 1, gradient)

    def apart(self):
        return self

    def hessian_product(self, theta):
        return lambda direction: direction @ self.A

    def products_pay(self, passes):
        return False

    def inverse_hessian(self, theta, dtype=None):
        return Inverse(lambda vector: torch.linalg.solve(self.A, vector.mT).mT, ())

    def inverse_diagonal(self, theta):
        return Inverse(torch.mul, (1 / self.A.diagonal(dim1=1, dim2=2)[:, None],))

    def centred(self, theta):
        return theta

    def among_present(self, direction):
        return direction

    def feasible(self, direction):
        return direction

    def balanced(self, gradient):
        return gradient

    def slope_rounding(self, direction):
        return torch.zeros(len(direction))

    def outlying_step(self, theta, gradient):
        return None

    def change_at_most(self, direction):
        return torch.full((self.n_models,), inf)

    def moves_apart(self, theta, direction, limit):
        return torch.zeros(self.n_models, dtype=torch.bool)

    def without_far(self, theta, direction, limit):
        return None

    def first_order_gap(self, theta, point):
        return torch.full((self.n_models,), inf)

    def convex_gap(self, point):
        return torch.full((self.n_models,), inf)

    def metric(self, theta, growth=1, is_near=False, dtype=None, passes=0.0, to_come=inf):
        return Metric(
            self.inverse_diagonal(theta),
            select=lambda models: self.select(models).metric(theta[models]),
        )

    def narrow(self):
        return self

    def anchor(self, theta, point):
        return None

    def resolves(self, theta):
        return True

    def samples(self):
        return []

    def select(self, models):
        return replace(self, A=self.A[models], minimum=self.minimum[models])

    largest_l2 = torch.zeros(1)

    def smoothness(self, batch_size):
        return torch.linalg.eigvalsh(self.A)[:, -1]

    def batches(self, size, generator, shuffle):
        yield 1.0, self


@dataclass
class LogCosh(Quadratic):
    """Σ log cosh(θ - m) + 1: convex, and Newton's full steps from afar overshoot without bound."""

    def at(self, theta):
        z = theta - self.minimum
        # log cosh z without overflow
        value = z.abs() + torch.log1p(torch.exp(-2 * z.abs())) - torch.log(torch.tensor(2.0))
        return Point(value.sum(dim=(1, 2)) + 1, torch.tanh(z))

    def hessian_product(self, theta):
        return lambda direction: direction / torch.cosh(theta - self.minimum).square()

    def inverse_hessian(self, theta, dtype=None):
        return Inverse(torch.mul, (torch.cosh(theta - self.minimum).square(),))

    def inverse_diagonal(self, theta):
        return self.inverse_hessian(theta)

    def change_at_most(self, direction):
        return torch.full((self.n_models,), inf)

    def moves_apart(self, theta, direction, limit):
        return 2 * direction.abs().amax(dim=(1, 2)) >= limit

    def metric(self, theta, growth=1, is_near=False, dtype=None, passes=0.0, to_come=inf):
        return Metric(
            Inverse(lambda vector: vector, ()), select=lambda models: self.select(models).metric(theta[models])
        )

    def smoothness(self, batch_size):
        return torch.ones(self.n_models)


@dataclass
class Rough(Quadratic):
    """A quadratic in a rough metric, whose narrow version has values as of float32 and noise in its gradients."""

    noise: float = 0.0
    is_narrow: bool = False
    wide_values: list = field(default_factory=list)

    def at(self, theta):
        point = super().at(theta)
        if self.is_narrow:
            return Point(point.value.float().double(), point.gradient + self.noise * torch.cos(1e9 * theta))
        self.wide_values.append(point.value.item())
        return point

    def metric(self, theta, growth=1, is_near=False, dtype=None, passes=0.0, to_come=inf):
        return replace(super().metric(theta), follows=False)

    def narrow(self):
        return replace(self, is_narrow=True)

    def rounding(self, theta):
        exact, rounded = super().at(theta), self.narrow().at(theta)
        return Point(rounded.value - exact.value, rounded.gradient - exact.gradient), 0.1


@dataclass
class Family(Quadratic):
    """A quadratic whose models may share a metric."""

    is_family: bool = True

    def apart(self):
        return replace(self, is_family=False)


def make(kind=Quadratic, n_models=1, size=6, condition=1e4, direct=True):
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(n_models, size, size, dtype=torch.float64, generator=generator))[0]
    A = basis @ torch.diag(torch.logspace(0, -torch.tensor(condition).log10(), size, dtype=torch.float64)) @ basis.mT
    minimum = torch.randn(n_models, 1, size, dtype=torch.float64, generator=generator)
    return kind(A, minimum, direct)


def start(objective):
    return torch.zeros_like(objective.minimum)


@pytest.mark.parametrize("name", [name for name, solver in SOLVERS.items() if not solver.takes_l1])
@pytest.mark.parametrize("kind", [Quadratic, LogCosh])
def test_every_solver_finds_the_minimum(name, kind):
    objective = make(kind, condition=50)
    options = OPTIONS if name in DESCENT else replace(DESCENT_OPTIONS, optimizer=SOLVERS[name].optimizer)
    if name == "adam":  # which does not come to rest at a constant rate
        options = replace(options, learning_rate=0.1, schedule="cosine", patience=5000)
    result = SOLVERS[name].minimise(objective, start(objective), options)
    value = objective.at(result.theta).value
    assert value.item() - 1 <= 1e-9
    assert result.loss_curve[0][0] == objective.at(start(objective)).value.item()
    assert result.n_iter[0] <= 5000
    if name in DESCENT:
        assert result.status == [Status.CONVERGED]
        assert result.loss_curve[0][-1] == value.item()
        assert len(result.loss_curve[0]) == result.n_iter[0] + 1


@pytest.mark.parametrize("name", DESCENT)
@pytest.mark.parametrize("kind", [Quadratic, LogCosh])
def test_a_stack_takes_each_model_where_it_goes_alone(name, kind):
    stack = make(kind, n_models=3)
    stack.minimum = stack.minimum * torch.tensor([0.0, 1.0, 20.0])[:, None, None]  # the first one starts finished
    together = SOLVERS[name].minimise(stack, start(stack), OPTIONS)
    assert together.status == [Status.CONVERGED] * 3
    assert together.n_iter[0] == 0
    for i in range(3):
        single = stack.select(torch.tensor([i]))
        alone = SOLVERS[name].minimise(single, start(single), OPTIONS)
        assert alone.n_iter[0] == together.n_iter[i]
        torch.testing.assert_close(alone.theta[0], together.theta[i])
        torch.testing.assert_close(alone.gap[0], together.gap[i], rtol=1e-6, atol=1e-14)
        assert alone.loss_curve[0] == pytest.approx(together.loss_curve[i])


@pytest.mark.parametrize("name", DESCENT)
def test_only_a_model_whose_start_is_too_high_falls_back(name):
    stack = make(n_models=2)
    begin = torch.stack([stack.minimum[0], 100 * stack.minimum[1] + 1e3])
    fallback = start(stack), stack.at(start(stack)).value.tolist()
    result = SOLVERS[name].minimise(stack, begin, replace(OPTIONS, fallback=fallback))
    assert result.status == [Status.CONVERGED] * 2
    assert result.n_iter[0] == 0
    assert result.loss_curve[1][0] == pytest.approx(fallback[1][1])


def test_a_finished_model_leaves_the_metric_of_the_others_as_it_is(monkeypatch):
    made, make_metric = [], Run.make_metric
    monkeypatch.setattr(
        Run, "make_metric", lambda run, *to_come: made.append(run.iteration) or make_metric(run, *to_come)
    )
    stack = make(LogCosh, n_models=3)
    stack.minimum = stack.minimum * torch.tensor([0.01, 1.0, 30.0])[:, None, None]
    result = lbfgs(stack, start(stack), OPTIONS)
    assert result.status == [Status.CONVERGED] * 3
    assert len(set(result.n_iter)) == 3
    assert made == [0]


def test_changes_that_lead_nowhere_are_left(monkeypatch):
    class Misleading:
        def at(self, theta):
            return Point(torch.full((1,), inf, dtype=torch.float64), torch.zeros_like(theta))

    objective = make(size=40, condition=100)
    monkeypatch.setattr(Quadratic, "anchor", lambda *_: Misleading())
    result = lbfgs(objective, start(objective), replace(OPTIONS, skips_float32=True))
    assert result.status == [Status.CONVERGED]
    assert objective.at(result.theta).value.item() - 1 <= 10 * OPTIONS.tol


def test_changes_that_allow_short_steps_only_are_left(monkeypatch):
    """As long as a step was found, however short, they were gone by."""

    class Confined:
        def __init__(self, theta):
            self._theta = theta

        def at(self, theta):
            point = objective.at(theta)
            return replace(point, value=torch.where((theta - self._theta).abs().max() > 0.01, inf, point.value))

    objective = make(size=40, condition=100)
    plain = lbfgs(objective, start(objective), OPTIONS)
    monkeypatch.setattr(Quadratic, "anchor", lambda _, theta, __: Confined(theta))
    result = lbfgs(objective, start(objective), replace(OPTIONS, skips_float32=True))
    assert result.status == [Status.CONVERGED]
    assert result.n_passes <= plain.n_passes + 10


def test_changes_are_not_prepared_where_a_run_ends(monkeypatch):
    objective, made = make(), []
    monkeypatch.setattr(Quadratic, "anchor", lambda *_: made.append(True))
    lbfgs(objective, objective.minimum.clone(), replace(OPTIONS, skips_float32=True))
    assert not made
    lbfgs(objective, start(objective), replace(OPTIONS, skips_float32=True))
    assert made == [True]


@pytest.mark.parametrize("noise", [1e-4, 1e-3])
@pytest.mark.parametrize("condition", [1e2, 1e4])
def test_gradients_that_are_noise_are_left_for_better_ones(condition, noise):
    rough, plain = make(Rough, size=40, condition=condition), make(size=40, condition=condition)
    rough.noise = noise
    result, alone = (lbfgs(objective, start(objective), OPTIONS) for objective in (rough, plain))
    assert result.status == [Status.CONVERGED]
    assert plain.at(result.theta).value.item() - 1 <= 10 * OPTIONS.tol
    assert result.n_passes <= 2 * alone.n_passes


@pytest.mark.parametrize("condition", [1e2, 1e4])
def test_gradients_in_float32_are_followed_as_long_as_they_lead_on(condition):
    objective = make(Rough, size=40, condition=condition)
    lbfgs(objective, start(objective), OPTIONS)
    assert objective.wide_values[0] - 1 <= 1e-5


@pytest.mark.parametrize(("price", "n_calls"), [(3.0, 1), (inf, 0)])
def test_models_go_apart_when_that_pays(price, n_calls):
    family, calls = make(n_models=3), []
    shared = Metric(lambda vector: vector, price=inf, apart_price=price)
    shared.select = lambda models: shared
    family.metric = lambda *_: shared

    def apart():
        calls.append(0)
        return replace(family)  # with metrics of its own

    family.apart = apart
    assert lbfgs(family, start(family), OPTIONS).status == [Status.CONVERGED] * 3
    assert len(calls) == n_calls


def test_newton_on_a_quadratic_takes_one_step_and_two_evaluations():
    objective = make()
    result = newton(objective, start(objective), OPTIONS)
    assert (result.n_iter[0], result.n_passes) == (1, 2.5)  # half a pass tells that curvature described the step


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_the_last_step_of_newton_may_be_a_chord(load, monkeypatch, calls_of):
    made = calls_of(TinyObjective, "inverse_hessian")
    X, y = load(return_X_y=True)
    model = TorchSoftmaxClassifier().fit(X, y)
    n_hessians = len(made)
    minimum = TorchSoftmaxClassifier(tol=1e-14).fit(X, y).loss_curve_[-1]
    assert model.optimality_gap_ == pytest.approx(model.loss_curve_[-1] - minimum, rel=0.5)
    monkeypatch.setattr(newton_steps, "CHORD", inf)
    made.clear()
    assert TorchSoftmaxClassifier().fit(X, y).n_iter_ == model.n_iter_
    assert len(made) == n_hessians + 1


def table(power=1, agreeing=False):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 100)) ** power
    if agreeing:
        X[:, 1] = X[:, 0] + 1e-4 * X[:, 1]
    return X, (X @ rng.normal(size=(100, 3)) / 5 + rng.gumbel(size=(1500, 3))).argmax(axis=1)


def hessians_tried(monkeypatch):
    """The types in which Hessians are made from here on, in turn."""
    made, make = [], curvature.hessian
    monkeypatch.setattr(
        curvature, "hessian", lambda o, theta, dtype=torch.float64: made.append(dtype) or make(o, theta, dtype)
    )
    return made


def test_newton_makes_hessians_in_float32_and_tells_the_gap_as_well(monkeypatch):
    made, (X, y) = hessians_tried(monkeypatch), table()
    model = TorchSoftmaxClassifier(solver="newton").fit(X, y)
    assert set(made) == {torch.float32}
    made.clear()
    exact = TorchSoftmaxClassifier(solver="newton", tol=1e-14).fit(X, y)
    assert set(made) == {torch.float64}
    assert model.optimality_gap_ >= 0.5 * (model.loss_curve_[-1] - exact.loss_curve_[-1])
    assert model.n_iter_ <= exact.n_iter_


def kahan_table(cosine, size, seed):
    """Columns each of which much of the others explains, but little of it those before: Kahan (1966)."""
    rng, sine = np.random.default_rng(seed), np.sqrt(1 - cosine**2)
    mixed = np.eye(110)
    mixed[:size, :size] = sine ** np.arange(size)[:, None] * (np.eye(size) - cosine * np.triu(np.ones((size, size)), 1))
    X = rng.standard_normal((3000, 110)) @ mixed
    X /= X.std(axis=0)
    logits = X @ np.linalg.eigh(np.cov(X.T))[1][:, 0]  # along what nearly cancels
    return X, (rng.random(3000) < 1 / (1 + np.exp(-2 * logits / logits.std()))).astype(int)


@pytest.mark.parametrize("table", [(0.5, 30, 1), (0.2, 90, 1)])
@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_no_fit_ends_where_a_hessian_in_float32_knows_nothing(table, solver):
    X, y = kahan_table(*table)
    with warnings.catch_warnings():  # its Hessians are in float64, and rounding may be what is left of the gap
        warnings.simplefilter("ignore", ConvergenceWarning)
        exact = TorchSoftmaxClassifier(C=inf, tol=1e-12, solver="newton").fit(X, y)
    assert exact.n_iter_[0] < 100
    assert exact.optimality_gap_ < 1e-9
    for tol in (1e-4, 1e-7):
        found = TorchSoftmaxClassifier(C=inf, tol=tol, solver=solver).fit(X, y)
        assert found.converged_
        assert found.loss_curve_[-1] <= (1 + 2 * tol) * exact.loss_curve_[-1]


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("C", [1e17, 1e20])
def test_rows_that_are_all_told_apart_have_curvature(solver, C):
    # With p (1 - p) of p = 1 - eps the Hessian was that of the penalty: 1,000 iterations were not enough.
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 120))
    y = (X @ rng.standard_normal(120) > 0).astype(int)
    clf = TorchSoftmaxClassifier(C=C, solver=solver).fit(X, y)
    assert clf.converged_
    assert clf.n_iter_[0] < 150


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_where_float32_will_not_do_for_a_hessian_it_is_not_tried_again(solver, monkeypatch):
    made, (X, y) = hessians_tried(monkeypatch), table(power=3, agreeing=True)
    TorchSoftmaxClassifier(solver=solver, C=1e6).fit(X, y)
    assert made[0] == torch.float32
    assert len(made) > 2
    assert set(made[1:]) == {torch.float64}


def test_newton_without_a_matrix_takes_conjugate_gradients():
    objective = make(size=8, direct=False)
    result = newton(objective, start(objective), OPTIONS)
    assert result.status == [Status.CONVERGED]
    assert result.n_passes > 2 * result.n_iter[0] + 1
    assert objective.at(result.theta).value.item() - 1 <= 1e-9


# Half a pass tells how far a step moves logits, where what these move at most does not.
@pytest.mark.parametrize(("at_most", "passes"), [(inf, 2.5), (0.26, 2.5), (0.24, 2.0)])
def test_lbfgs_in_the_exact_metric_takes_one_step(at_most, passes):
    objective = make()
    objective.metric = lambda theta, *_: Metric(objective.inverse_hessian(theta))
    objective.change_at_most = lambda _: torch.full((1,), at_most)
    result = lbfgs(objective, start(objective), OPTIONS)
    assert (result.n_iter[0], result.n_passes) == (1, passes)


@pytest.mark.parametrize("name", DESCENT)
def test_iterates_do_not_depend_on_units(name):
    objective = make()
    units = torch.logspace(-3, 3, 6, dtype=torch.float64)
    scaled = Quadratic(units[:, None] * objective.A * units, objective.minimum / units)
    a = SOLVERS[name].minimise(objective, start(objective), OPTIONS)
    b = SOLVERS[name].minimise(scaled, start(scaled), OPTIONS)
    assert a.n_iter == b.n_iter
    torch.testing.assert_close(a.theta, b.theta * units, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", DESCENT)
def test_max_iter_is_a_status(name):
    objective = make(LogCosh)
    objective.minimum = 3 * objective.minimum
    result = SOLVERS[name].minimise(objective, start(objective), replace(OPTIONS, max_iter=1))
    assert result.status == [Status.MAX_ITER]
    assert result.n_iter == [1]
    assert result.gap.item() > 0


@pytest.mark.parametrize("name", DESCENT)
def test_the_floor_of_precision_is_a_status(name):
    objective = make(LogCosh)
    result = SOLVERS[name].minimise(objective, start(objective), replace(OPTIONS, tol=0.0))
    # log cosh may be hit exactly, where the gap is zero and so within any tolerance.
    assert result.status == [Status.PRECISION_FLOOR if result.gap > 0 else Status.CONVERGED]
    assert result.gap <= 1e-15


@pytest.mark.parametrize("name", DESCENT)
def test_a_failed_line_search_is_a_status_and_stays_where_it_was(name):
    rising = make()
    first = rising.at(start(rising))
    # A gradient that promises descent where there is none.
    rising.at = lambda theta: Point(first.value + float((theta != 0).any()), first.gradient)
    result = SOLVERS[name].minimise(rising, start(rising), OPTIONS)
    assert result.status == [Status.LINE_SEARCH_FAILED]
    assert result.n_passes == 1 + MAX_TRIALS
    torch.testing.assert_close(result.theta, start(rising))


@pytest.mark.parametrize("name", DESCENT)
def test_separable_is_a_status(name):
    class Exponential(LogCosh):
        """exp(θ): goes to zero and has no minimum."""

        separable_below = torch.tensor([1e-3])

        def at(self, theta):
            return Point(theta.exp().sum(dim=(1, 2)), theta.exp())

        def hessian_product(self, theta):
            return lambda direction: theta.exp() * direction

        def inverse_hessian(self, theta, dtype=None):
            return Inverse(torch.mul, (1 / theta.exp(),))

    objective = make(Exponential, size=1)
    result = SOLVERS[name].minimise(objective, start(objective), OPTIONS)
    assert result.status == [Status.SEPARABLE]
    assert result.loss_curve[0][-1] < 1e-3


@pytest.mark.parametrize("learning_rate", [1e3, 1e200, 1e308])
def test_sgd_that_diverges_returns_its_best_point(learning_rate):
    objective = make()
    result = SOLVERS["sgd"].minimise(objective, start(objective), replace(DESCENT_OPTIONS, learning_rate=learning_rate))
    assert result.status == [Status.DIVERGED]
    torch.testing.assert_close(result.theta, start(objective))


def test_sgd_that_makes_no_progress_ends():
    objective = make()
    result = SOLVERS["sgd"].minimise(objective, start(objective), replace(DESCENT_OPTIONS, tol=0.5))
    assert result.status == [Status.STALLED]
    assert result.n_iter[0] < 50


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e30])
def test_line_search_gives_sufficient_decrease(scale):
    objective = make(LogCosh)
    theta = start(objective)
    point = objective.at(theta)
    direction = -scale * point.gradient
    new_theta, new_point, stuck = backtrack(
        objective.at, theta, point, direction, (point.gradient * direction).sum(dim=(1, 2)).tolist()
    )
    assert not any(stuck)
    slope = (point.gradient * (new_theta - theta)).sum()
    assert new_point.value.item() <= point.value.item() + SUFFICIENT_DECREASE * slope.item()
    torch.testing.assert_close(new_point.value, objective.at(new_theta).value)


def test_shorter_steps_are_tried_for_the_models_alone_whose_steps_were_too_long():
    objective, asked = make(n_models=3), []
    theta = start(objective)
    point = objective.at(theta)

    def evaluate(trial, some=None):
        asked.append([0, 1, 2] if some is None else some.tolist())
        return (objective if some is None else objective.select(some)).at(trial)

    lengths = torch.tensor([1.0, 8.0, 64.0], dtype=torch.float64)[:, None, None]
    direction = -lengths * objective.inverse_hessian(theta)(point.gradient)
    slope = (point.gradient * direction).sum(dim=(1, 2)).tolist()
    found, new, stuck = backtrack(evaluate, theta, point, direction, slope)
    assert not any(stuck)
    assert asked[:2] == [[0, 1, 2], [1, 2]]
    assert asked[-1] == [2]
    exact = objective.at(found)
    torch.testing.assert_close((new.value, new.gradient), (exact.value, exact.gradient))


# Of the way to a quadratic's minimum; 8 times the rest as far is near it, beyond, and no longer step.
@pytest.mark.parametrize(("made", "lengthened"), [(0.15, REACH * 0.85), (0.5, 1.0), (1.0, 1.0)])
def test_a_step_that_leaves_much_of_its_slope_is_lengthened_where_that_leads_lower(made, lengthened):
    objective = make()
    theta = start(objective)
    gradient = objective.at(theta).gradient
    direction = -made * objective.inverse_hessian(theta)(gradient)
    full = theta + direction
    slope = (gradient * direction).sum().item()
    found, point = lengthen(objective.at, full, objective.at(full), direction, slope)
    torch.testing.assert_close(found, theta + lengthened * direction)
    torch.testing.assert_close(point.value, objective.at(found).value)
    torch.testing.assert_close(point.gradient, objective.at(found).gradient)


def test_conjugate_gradients_solve_the_system():
    objective = make(n_models=2, size=DELAY + 12, condition=100)
    gradient = objective.at(start(objective)).gradient
    direction, decrement, _ = conjugate_gradients(
        objective.hessian_product(None), objective.metric(None).solve, gradient
    )
    exact = -torch.linalg.solve(objective.A, gradient.mT).mT
    expected = -0.5 * (gradient * exact).sum(dim=(1, 2))
    assert ((decrement <= expected) & (decrement >= 0.9 * expected)).all()
    error = direction - exact
    # In the norm of A, in which the error and the missing part of the decrement are the same.
    missing = 0.5 * (error * (error @ objective.A)).sum(dim=(1, 2))
    torch.testing.assert_close(missing, expected - decrement, rtol=1e-6, atol=1e-9)


def test_conjugate_gradients_step_by_the_metric_where_rounding_leaves_no_curvature():
    gradient = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]])
    direction, decrement, _ = conjugate_gradients(torch.zeros_like, lambda residual: 2 * residual, gradient)
    torch.testing.assert_close(direction, -2 * gradient)
    assert decrement.tolist() == [25.0, 0.0]


def test_any_decrease_that_is_flat_is_not_enough():
    def fall(theta):  # from 1 steeply to a long ascent of next to no slope
        x = theta[0, 0, 0]
        value = torch.where(x < 0.1, 1 - 9 * x, 0.1 + 0.01 * (x - 0.1))
        return Point(value[None].double(), torch.where(x < 0.1, -9.0, 0.01).double().view(1, 1, 1))

    theta = torch.zeros(1, 1, 1, dtype=torch.float64)
    found, _, stuck = backtrack(fall, theta, fall(theta), theta + 20, [-180.0])
    assert not any(stuck)
    assert found.item() < 1  # where a tenth of what the slope promises is 0.9


def test_conjugate_gradients_look_on_where_gains_may_grow_again():
    # Half of the decrement lies in six directions of a thousandth of the curvature, found after those of the others.
    curvature = torch.cat([torch.linspace(1, 3, 30), torch.linspace(0.001, 0.003, 6)]).double()
    share = torch.cat([torch.full((30,), 1 / 60), torch.full((6,), 1 / 12)]).double()
    gradient = (2 * share * curvature).sqrt()[None, None]
    _, decrement, _ = conjugate_gradients(curvature.mul, torch.clone, gradient)
    assert decrement.item() < 0.6
    _, decrement, _ = conjugate_gradients(curvature.mul, torch.clone, gradient, Care(low=torch.ones(1)))
    assert 0.9 < decrement.item() < 1


@pytest.mark.parametrize("share", [1.0, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_what_conjugate_gradients_miss_is_bounded_by_the_least_eigenvalue(seed, share):
    """Also where most of the decrement lies in directions that are found last."""
    generator = torch.Generator().manual_seed(seed)
    few, many = torch.rand(6, generator=generator) * 1e-3 + 1e-4, 1 + torch.rand(30, generator=generator)
    curvature = torch.cat([many, few]).double()
    shares = torch.cat([torch.ones(30), torch.full((6,), 10.0**seed)]).double()
    gradient = (curvature * shares).sqrt()[None, None]
    exact = (0.5 * gradient.square() / curvature).sum().item()
    care, before = Care(low=torch.full((1,), inf), least=share * curvature.amin().view(1)), inf
    for n_steps in range(1, 45):
        _, decrement, missing = conjugate_gradients(
            curvature.mul, torch.clone, gradient, care._replace(max_iter=n_steps)
        )
        assert exact - decrement.item() <= missing.item() * (1 + 1e-6) + 1e-9 * exact
        assert missing.item() <= before * (1 + 1e-6)  # it only falls
        before = missing.item()
    assert missing <= 0.1 * decrement
    assert decrement.item() >= 0.9 * exact


def test_conjugate_gradients_end_early_where_what_is_left_is_little_enough():
    objective = make(n_models=2, size=DELAY + 12, condition=100)
    gradient, calls = objective.at(start(objective)).gradient, []
    product = objective.hessian_product(None)

    def counted(direction):
        calls.append(direction)
        return product(direction)

    care = Care(enough=torch.full((2,), 1e7, dtype=torch.float64))
    _, decrement, missing = conjugate_gradients(counted, objective.metric(None).solve, gradient, care)
    assert len(calls) == DELAY
    assert (missing > 0.1 * decrement).all()


def test_a_gap_that_is_little_enough_is_told_as_what_ends_a_run():
    objective = make(size=60, condition=1e4, direct=False)
    options = replace(OPTIONS, tol=0.1)
    run = Run(objective, objective.minimum + 1e-3, options)
    step = newton_steps.newton_by_products(run)
    assert run.n_passes == 1 + DELAY
    assert step.gap == [0.1 * run.point.value.item()]
    assert step.unexplained > 0.1


def test_a_run_that_stands_still_ends():
    objective = make(size=6)
    run = Run(objective, objective.minimum + 1e-3, replace(OPTIONS, tol=1e-15, max_iter=1000))
    gap = [1e-9 * run.point.value.item()]  # near the minimum, but no rounding
    for _ in range(100):
        run.settle(gap)
        if not run.active:
            break
        run.iteration += 1
    assert run.result().status == [Status.PRECISION_FLOOR]
    assert 20 < run.result().n_iter[0] < 40


def test_a_metric_for_conjugate_gradients_is_kept_near_the_minimum():
    made, say = [], []
    objective = make(size=12, condition=100, direct=False)
    metric = objective.metric
    objective.metric = lambda *args, **known: (made.append(args), metric(*args, **known))[1]
    options = SolverOptions(tol=1e-14, max_iter=100, note=say.append)
    result = newton(objective, start(objective), options)
    assert result.status == [Status.CONVERGED]
    assert result.n_iter[0] >= 3
    assert len(made) < result.n_iter[0]
    assert len(say) == len(made)


@pytest.mark.parametrize("few", [0, 4096])
@pytest.mark.parametrize("n_pairs", [4, 15])
def test_lbfgs_memory_is_the_dense_bfgs_matrix(n_pairs, few, monkeypatch):
    """Of the last twelve pairs, as one array or one by one."""
    monkeypatch.setattr(quasi_newton, "FEW", few)
    generator = torch.Generator().manual_seed(0)
    objective = make(n_models=2, size=20)
    matrix = QuasiNewton(objective.metric(None))
    pairs = []
    for _ in range(n_pairs):
        step = torch.randn(2, 1, 20, dtype=torch.float64, generator=generator)
        pairs.append((step, step @ objective.A))
        matrix.add(*pairs[-1])
    gradient = torch.randn(2, 1, 20, dtype=torch.float64, generator=generator)
    product = matrix.product(gradient)
    for model in range(2):
        H = torch.diag(1 / objective.A[model].diagonal())
        for s, y in ((step[model, 0], change[model, 0]) for step, change in pairs[-12:]):
            V = torch.eye(20) - torch.outer(y, s) / (s @ y)  # Nocedal & Wright (2006), eq. 6.17
            H = V.T @ H @ V + torch.outer(s, s) / (s @ y)
        torch.testing.assert_close(product[model, 0], H @ gradient[model, 0])


def test_lbfgs_scales_a_rough_metric_to_the_last_pair():
    objective = make(size=5)
    matrix, step = QuasiNewton(objective.metric(None)), torch.arange(1.0, 6.0, dtype=torch.float64).view(1, 1, 5)
    matrix.add(step, step @ objective.A)

    def product(vector, metric):
        matrix.renew(metric)
        return matrix.product(vector)

    rough = {f: Metric(lambda vector, f=f: f * vector, follows=False) for f in (1e-9, 1e-6, 1e-3, 1e6, 1e9)}
    products = {factor: product(step, metric) for factor, metric in rough.items()}
    for factor in (1e-6, 1e-3):  # so its size is of no account
        torch.testing.assert_close(products[factor], products[1e-9])
    # But a step along what it hardly sees does not make all others as small.
    across = torch.linalg.qr(torch.cat([step, step @ objective.A], dim=1)[0].T, mode="complete").Q[:, 2].view(1, 1, 5)
    for factor in (1e6, 1e9):
        torch.testing.assert_close(product(across, rough[factor]), MIN_SCALE * factor * across)


def test_lbfgs_memory_ignores_pairs_without_curvature():
    objective = make(size=5)
    matrix, step = QuasiNewton(objective.metric(None)), torch.ones(1, 1, 5, dtype=torch.float64)
    matrix.add(step, torch.zeros_like(step))
    torch.testing.assert_close(matrix.product(step), objective.metric(None).solve(step))


def test_lbfgs_ends_by_a_hessian_from_where_it_ends(monkeypatch):
    """One from a step before told a gap that was 25 times too small."""
    made, make = [], Run.make_metric
    monkeypatch.setattr(Run, "make_metric", lambda run, *to_come: made.append(run.iteration) or make(run, *to_come))
    model = TorchSoftmaxClassifier(solver="lbfgs").fit(*load_wine(return_X_y=True))
    assert model.converged_
    assert made[-1] == model.n_iter_[0]


def fit_noise(n_columns, storage, tol, seed):
    """A fit of rows of four of so many words to random classes, what it has left of F, and the minimum."""
    rng = np.random.default_rng(seed)
    words, y = (n_columns * rng.random((1500, 4)) ** 3).astype(int), rng.integers(20, size=1500)
    X = storage(csr_array((np.ones(words.size), words.ravel(), np.arange(0, words.size + 1, 4)), (1500, n_columns)))
    model = TorchSoftmaxClassifier(C=1e3, solver="lbfgs", tol=tol).fit(X, y)
    least = TorchSoftmaxClassifier(C=1e3, solver="newton", tol=1e-12).fit(X, y).loss_curve_[-1]
    return model, model.loss_curve_[-1] - least, least


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("seed", range(4))
def test_gaps_of_columns_whose_correlations_no_metric_knows_are_checked(seed, tol):
    """From the diagonal alone they were 4 to 200 times too small."""
    model, gap, least = fit_noise(60, csr_array, tol, seed)
    assert model.converged_
    assert gap <= tol * least
    assert gap <= 3 * model.optimality_gap_


@pytest.mark.parametrize("seed", [0, 1])
def test_what_single_parameters_promise_is_the_gap_and_no_reason_for_a_check(seed, calls_of):
    """A check by products took seven passes of 37."""
    checks = calls_of(import_module("skl_softmax.solvers.lbfgs"), "newton_by_products")
    rng = np.random.default_rng(seed)
    y = rng.integers(20, size=3000)
    X = 0.7 * rng.normal(size=(20, 80))[y] + rng.normal(size=(3000, 80))
    model, exact = (TorchSoftmaxClassifier(C=10, tol=tol).fit(X, y) for tol in (1e-7, 1e-11))
    assert not checks
    assert model.loss_curve_[-1] <= exact.loss_curve_[-1] * (1 + 1e-7)


@pytest.mark.parametrize(("tol", "is_local"), [(1e-4, False), (1e-2, True)])
def test_gaps_are_no_smaller_than_what_single_parameters_promise(tol, is_local):
    objective = make(size=40, condition=100, n_models=3)
    low = Metric(lambda vector: 1e-3 * vector, kind="kronecker", follows=False, is_local=is_local)
    run = Run(objective, objective.minimum + 1, replace(OPTIONS, tol=tol))
    gradient = run.point.gradient
    promised = (0.5 * (gradient * objective.inverse_diagonal(None)(gradient)).sum(dim=(1, 2))).tolist()
    told = [0.0, 2 * promised[1], inf]
    with_promises = import_module("skl_softmax.solvers.gaps").with_promises
    assert with_promises(run, low, told) == pytest.approx([promised[0], 2 * promised[1], inf])
    for other in (
        replace(low, kind="diagonal"),
        replace(low, exact=True),
        replace(low, is_kept=True),
        replace(low, follows=True),
    ):
        assert with_promises(run, other, told) == told


def test_a_check_tells_what_its_step_leaves(calls_of):
    """By a metric that told a thousandth of the gap another check had to follow."""
    objective = make(size=40, condition=100)
    checks = calls_of(import_module("skl_softmax.solvers.lbfgs"), "newton_by_products")
    solve = lambda vector: 1e-3 * objective.inverse_diagonal(None)(vector)  # noqa: E731
    objective.metric = lambda *_, **__: Metric(solve, follows=False)
    begin = 0.9 * objective.minimum
    gap = objective.at(begin).value.item() - 1
    result = lbfgs(objective, begin, replace(OPTIONS, tol=0.3 * gap))
    assert (result.status, result.n_iter, len(checks)) == ([Status.CONVERGED], [1], 1)
    assert objective.at(result.theta).value.item() - 1 <= result.gap.item() <= 0.3 * gap


@pytest.mark.parametrize("condition", [1e5, 1e6])
def test_gaps_of_long_runs_are_checked(condition):
    """Gains that came to a pause told gaps 18 and 23 times too small."""
    objective = make(size=200, condition=condition)
    result = lbfgs(objective, objective.minimum + 1, replace(OPTIONS, tol=1e-6))
    assert result.status == [Status.CONVERGED]
    assert objective.at(result.theta).value.item() - 1 <= 3 * result.gap.item()


def test_gaps_are_checked_by_products_where_the_new_hessian_is_of_a_sample(calls_of):
    """Once some models have left a stack, a sample may be what pays for the others."""
    objective = make(size=40, condition=100)
    checks = calls_of(import_module("skl_softmax.solvers.lbfgs"), "newton_by_products")
    inverse, made = objective.inverse_hessian(None), []

    def metric(theta, growth=1, is_near=False, dtype=None, passes=0.0, to_come=inf):
        made.append(0)
        poor = lambda vector: 1e-6 * vector  # noqa: E731
        return Metric(inverse if len(made) == 1 else poor, price=1.0, exact=len(made) == 1)

    objective.metric = metric
    result = lbfgs(objective, objective.minimum + 1, replace(OPTIONS, tol=1e-6))
    assert len(checks) == 1
    assert objective.at(result.theta).value.item() - 1 <= max(result.gap.item(), 1e-12)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("n_columns", "storage", "tol"),
    [(800, csr_array, 1e-2), (800, csr_array, 1e-6), (60, csr_array.toarray, 1e-2), (60, csr_array.toarray, 1e-4)],
)
def test_gaps_of_collinear_columns_are_checked(n_columns, storage, tol, seed):
    """From Kronecker factors, with dense rows at the larger tol, they were more than 3 times too small."""
    model, gap, _ = fit_noise(n_columns, storage, tol, seed)
    assert model.converged_
    assert gap <= 3 * model.optimality_gap_


@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-7])
def test_columns_that_are_nearly_equal_without_a_penalty(tol):
    # What tells them apart is 1e-15 of the Hessian, and was lost in its ridge: gaps of 20 to 50 tol were not told.
    for seed in range(12):
        rng = np.random.default_rng(seed)
        one, apart = rng.normal(size=(2, 1000))
        y = apart + 0.7 * rng.logistic(size=1000) > 0
        X = np.column_stack([one, one + 3e-8 * apart])
        exact = np.column_stack([one, (X[:, 1] - one) / 3e-8])  # what X spans, in columns that can be told apart
        best = TorchSoftmaxClassifier(C=np.inf, tol=1e-13).fit(exact, y).loss_curve_[-1]
        clf = TorchSoftmaxClassifier(C=np.inf, tol=tol).fit(X, y)
        assert clf.loss_curve_[-1] - best <= 3 * tol * best


@pytest.mark.parametrize("has_ridge", [False, True])
def test_no_chord_by_a_hessian_whose_ridge_hides_what_is_left(has_ridge, monkeypatch):
    monkeypatch.setattr(Quadratic, "holds_collinear", False, raising=False)
    objective = make()
    run = Run(objective, objective.minimum + 1, OPTIONS)
    value = run.point.value.item()
    run.options = replace(OPTIONS, tol=0.1 * (value - 1) / value)  # less than the chord's gap, more than what it leaves
    run.inverse = replace(objective.inverse_hessian(None), has_ridge=has_ridge)
    run.was_full, run.slope, run.slope_before = True, [-2e3 * (value - 1)], [-2e6 * (value - 1)]
    step = newton_steps.newton_step(run)
    assert step.is_chord is not has_ridge
    assert step.gap == pytest.approx([value - 1])


@pytest.mark.parametrize("n_copies", [1, 2])
def test_equal_columns_without_a_penalty_are_no_more_than_one(n_copies):
    # Rounding of numbers far from zero is all that tells them apart, and nothing is to be gained from that.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 1)) + 1e5
    y = x[:, 0] - 1e5 + rng.logistic(size=2000) > 0
    best = TorchSoftmaxClassifier(C=np.inf, tol=1e-12).fit(x, y).loss_curve_[-1]
    clf = TorchSoftmaxClassifier(C=np.inf, tol=1e-7).fit(np.hstack([x, *n_copies * [2.54 * x + 1]]), y)
    assert clf.loss_curve_[-1] == pytest.approx(best, rel=1e-7)
    assert np.abs(clf.coef_).max() < 1000


@pytest.mark.parametrize("C", [1e6, 1e9])
@pytest.mark.parametrize("name", DESCENT)
def test_columns_three_times_over_are_those_of_root_three_times_the_size(name, C):
    # The Hessian is singular to rounding. What that left along 1 ⊗ v added up, to 1e-3 of the coefficients.
    X, y = load_wine(return_X_y=True)
    y = np.random.default_rng(0).permutation(y)
    settings = {"solver": name, "C": C, "tol": 1e-13}
    scaled, copied = (TorchSoftmaxClassifier(**settings).fit(Z, y) for Z in (3**0.5 * X, np.hstack([X, X, X])))
    assert copied.loss_curve_[-1] == pytest.approx(scaled.loss_curve_[-1], rel=1e-14)
    sums = copied.coef_.reshape(3, 3, X.shape[1]).sum(axis=1)
    np.testing.assert_allclose(sums, 3**0.5 * scaled.coef_, rtol=1e-8)


def test_models_that_have_gone_apart_stay_apart_in_float64():
    objective = make(Family)
    for narrow in (objective, objective.apart()):
        run = Run(narrow, torch.zeros_like(objective.minimum), OPTIONS)
        run.widen(objective)
        assert run.objective.is_family == narrow.is_family


@pytest.mark.parametrize(
    ("gap", "farthest"), [(-1e-20, 0.25), (1e-9, 0.25), (1e-4, 20 * 2e-4**0.5), (0.1, 1.0), (inf, 1.0)]
)
def test_rows_may_move_as_far_as_gaps_say(gap, farthest):
    gaps = import_module("skl_softmax.solvers.gaps")
    assert gaps._farthest(gap) == pytest.approx(farthest)


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "n_classes", "C", "tol"),
    [(1000, 128, 50, 1e4, 1e-2), (300, 100, 50, 1, 1e-2), (300, 100, 50, 1e4, 1e-2), (60, 20, 3, 1e4, 1e-2)],
)
@pytest.mark.parametrize("storage", [np.asarray, csr_array])
def test_where_a_step_moves_all_rows_far_none_is_left_to_tell_a_gap(n_rows, n_columns, n_classes, C, tol, storage):
    """Fits failed with a division by zero, of the rows that were left."""
    rng = np.random.default_rng(0)
    X, y = storage(rng.normal(size=(n_rows, n_columns))), np.arange(n_rows) % n_classes
    for solver in DESCENT:
        clf = TorchSoftmaxClassifier(C=C, tol=tol, solver=solver).fit(X, y)
        least = TorchSoftmaxClassifier(C=C, tol=1e-8).fit(X, y).loss_curve_[-1]
        assert clf.loss_curve_[-1] - least <= 10 * tol * least


def test_samples_are_let_go_of_before_all_rows_are_gone_over():
    class Rows:
        n_rows = 10

        def samples(self):
            return [(Rows(), 1.0), (Rows(), 1.0)]

    all_rows, taken = Rows(), []

    def minimise(objective, theta, options):
        if objective is all_rows:
            assert [sample() for sample in taken] == [None, None]
        else:
            taken.append(weakref.ref(objective))
        zero = torch.zeros(1, dtype=torch.float64)
        return SolveResult(theta, zero, [1], [Status.CONVERGED], [[1.0, 0.5]], n_passes=1.0)

    found = through_samples(minimise, all_rows, torch.zeros(1, 1, 2, dtype=torch.float64), OPTIONS)
    assert found.n_passes == 3.0


@pytest.mark.parametrize("patience", [0, 1, 4])
@pytest.mark.parametrize("storage", [np.asarray, csr_array])
def test_where_lbfgs_takes_long_newtons_method_goes_on(patience, storage, monkeypatch):
    X, y = make_classification(6000, 40, n_informative=20, n_classes=3, random_state=0)
    X = storage(np.round(X))
    expected = TorchSoftmaxClassifierCV(Cs=[0.01, 1], cv=2, solver="lbfgs", tol=1e-12).fit(X, y)
    monkeypatch.setattr(import_module("skl_softmax.solvers.lbfgs"), "PATIENCE", patience)
    found = TorchSoftmaxClassifierCV(Cs=[0.01, 1], cv=2, solver="lbfgs", tol=1e-12).fit(X, y)
    np.testing.assert_allclose(found.coefs_paths_, expected.coefs_paths_, atol=1e-6)
    said = io.StringIO()
    with redirect_stdout(said):
        clf = TorchSoftmaxClassifier(C=expected.C_, solver="lbfgs", tol=1e-12, verbose=1).fit(X, y)
    assert "on by Newton's method" in said.getvalue()
    assert clf.converged_
    np.testing.assert_allclose(clf.coef_, expected.coef_, atol=1e-6)


def test_bins_of_many_classes_converge():
    """After 1,000 iterations of L-BFGS F was 2 % above its minimum."""
    classes = {"n_informative": 6, "n_classes": 20, "n_clusters_per_class": 1, "class_sep": 0.7}
    X, y = make_classification(1500, 8, **classes, random_state=0)
    X = KBinsDiscretizer(20, quantile_method="averaged_inverted_cdf").fit_transform(X)
    clf = TorchSoftmaxClassifier(C=1e4).fit(X, y)
    least = TorchSoftmaxClassifier(C=1e4, solver="newton").fit(X, y)
    assert clf.converged_
    assert clf.n_iter_[0] < 400
    assert clf.loss_curve_[-1] - least.loss_curve_[-1] <= 1.1 * clf.optimality_gap_
