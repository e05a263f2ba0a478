"""Optimisers of torch: streams of batches, schedules, warm starts."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from reference import converged, objective, relative_error
from scipy.sparse import csr_array
from scipy.special import softmax
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from skl_softmax import TorchSoftmaxClassifier
from skl_softmax.objective.batches import SmallBatch
from skl_softmax.solver_parameters import UNFIT
from skl_softmax.solvers import SCHEDULES
from skl_softmax.watch import hold_out

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def table():
    """Rows enough for a stream, with columns of very different units."""
    X, y = make_classification(20_000, 12, n_informative=8, n_classes=4, n_clusters_per_class=1, random_state=0)
    return X * np.geomspace(1e-2, 1e3, 12) + np.linspace(-50, 50, 12), np.array(list("abcd"))[y]


def state(clf):
    """Everything that a call may change, for comparison."""
    return pickle.dumps({k: v for k, v in vars(clf).items() if k != "_stream"}), vars(clf).get("_stream")


class TestChanges:
    """Of what a stream is made of, and of where it is."""

    RATES = (
        {},
        {"learning_rate": 0.1},
        {"learning_rate": "invscaling", "learning_rate_init": 0.1},
        {"momentum": 0.9},
        {"solver": torch.optim.RMSprop, "learning_rate": 1e-3},
    )

    def gone_over(self, batches, y, **options):
        clf = TorchSoftmaxClassifier(**{"solver": "sgd", "C": 1e-3} | options)
        for i in range(100):
            clf.partial_fit(batches[i % len(batches)], y, classes=[0, 1, 2])
        return clf

    @pytest.mark.parametrize("average", [False, True])
    @pytest.mark.parametrize("options", RATES)
    def test_types_of_batches_change_nothing(self, options, average):
        X, y = load_iris(return_X_y=True)
        X = X.astype(np.float32)
        alike = self.gone_over([X.astype(np.float64)], y, average=average, **options)
        mixed = self.gone_over([X, X.astype(np.float64), X], y, average=average, **options)
        if "solver" in options:  # where gradients are next to nothing steps are as long, and rounding says which way
            assert np.abs(mixed.coef_ - alike.coef_).max() < 3 * options["learning_rate"]
        else:
            assert relative_error(mixed.coef_, alike.coef_) < 1e-4

    @pytest.mark.parametrize("average", [False, True])
    @pytest.mark.parametrize("options", RATES[1:])
    def test_storages_of_batches_change_nothing_where_rates_are_given(self, options, average):
        X, y = load_iris(return_X_y=True)
        if "learning_rate" not in options:
            options = options | {"learning_rate": 0.01}
        alike = self.gone_over([X], y, average=average, **options)
        mixed = self.gone_over([X, csr_array(X)], y, average=average, **options)
        assert relative_error(mixed.coef_, alike.coef_) < 1e-9

    def test_the_penalty_is_that_of_all_rows_whatever_their_storage(self):
        X, y = load_iris(return_X_y=True)
        X = StandardScaler().fit_transform(X)
        parameters = {"C": 1e-3, "tol": 1e-12}
        mixed = self.gone_over([X, csr_array(X)], y)
        repeated = TorchSoftmaxClassifier(**parameters).fit(np.tile(X, (100, 1)), np.tile(y, 100))
        assert relative_error(mixed.coef_, repeated.coef_) < 0.2  # 0.8 with the penalty of one batch

    def test_dense_rows_and_sparse_ones(self):
        X, y = load_iris(return_X_y=True)
        X = X * [1, 10, 1000, 0.01] + [5, 100, 1e4, 3]
        clf = TorchSoftmaxClassifier(solver="sgd", average=True)
        for _ in range(100):
            clf.partial_fit(X, y, classes=[0, 1, 2])
        before = objective(clf, X, y)
        clf.partial_fit(csr_array(X), y)
        assert objective(clf, X, y) < 2 * before

    def test_a_given_start_is_where_a_mean_begins(self):
        X, y = load_iris(return_X_y=True)
        clf = TorchSoftmaxClassifier(solver="sgd", average=True, warm_start=True, max_iter=300).fit(X, y)
        clf.set_params(max_iter=1)
        going_on = clf.fit(X, y).loss_curve_[0]
        assert going_on < 0.5
        clf.fit(X, y, coef_init=np.zeros((3, 4)), intercept_init=np.zeros(3))
        assert clf.loss_curve_[0] == pytest.approx(np.log(3))


class TestOptimisers:
    @pytest.mark.parametrize("solver", ["sgd", "adam", torch.optim.RMSprop, torch.optim.LBFGS])
    def test_a_long_run_comes_to_the_same_coefficients(self, solver):
        X, y = load_iris(return_X_y=True)
        X = StandardScaler().fit_transform(X)
        rates = {"adam": "cosine", torch.optim.RMSprop: "cosine"}
        settings = {"learning_rate": rates.get(solver, "auto"), "n_iter_no_change": 1000, "max_iter": 4000}
        clf = TorchSoftmaxClassifier(solver=solver, C=0.1, **settings).fit(X, y)
        assert relative_error(clf.coef_, converged(X, y, C=0.1).coef_) < 2e-3

    @pytest.mark.parametrize("schedule", SCHEDULES)
    def test_every_schedule_comes_near_the_optimum_of_raw_data(self, schedule, table):
        X, y = table
        settings = {"solver": "sgd", "batch_size": "auto", "max_iter": 10, "random_state": 0}
        clf = TorchSoftmaxClassifier(learning_rate=schedule, **settings).fit(X, y)
        best = TorchSoftmaxClassifier().fit(X, y).loss_curve_[-1]
        assert clf.loss_curve_[-1] < 1.02 * best

    def test_momentum_is_that_of_torch(self):
        X, y = load_iris(return_X_y=True)
        clf = TorchSoftmaxClassifier(solver="sgd", learning_rate=0.01, momentum=0.9, max_iter=20, C=np.inf).fit(X, y)
        layer = torch.nn.utils.skip_init(torch.nn.Linear, 4, 3, dtype=torch.float64)
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.01, momentum=0.9)
        for _ in range(20):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(torch.from_numpy(X)), torch.from_numpy(y)).backward()
            optimizer.step()
        np.testing.assert_allclose(clf.coef_, layer.weight.detach().numpy(), rtol=1e-9)

    @pytest.mark.parametrize("early_stopping", [False, True])
    def test_a_fit_begins_with_the_weights_of_a_layer(self, early_stopping):
        X, y = load_iris(return_X_y=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layer = torch.nn.Linear(4, 3)
        settings = {"learning_rate": 1e-9, "max_iter": 1, "random_state": 0, "early_stopping": early_stopping}
        clf = TorchSoftmaxClassifier(solver="sgd", **settings).fit(X, y)
        np.testing.assert_allclose(clf.coef_, layer.weight.detach().numpy(), rtol=1e-5)

    def test_average_is_the_mean_of_the_updates(self):
        X, y = load_iris(return_X_y=True)
        settings = {"solver": "sgd", "learning_rate": 0.01}
        each = [TorchSoftmaxClassifier(max_iter=k, **settings).fit(X, y).coef_ for k in (1, 2, 3)]
        mean = TorchSoftmaxClassifier(max_iter=3, average=True, **settings).fit(X, y).coef_
        np.testing.assert_allclose(mean, np.mean(each, axis=0), rtol=1e-9)

    def test_adaptive_rates_come_to_rest_lower_than_constant_ones(self):
        X, y = load_iris(return_X_y=True)
        settings = {"solver": "sgd", "batch_size": 10, "random_state": 0, "max_iter": 2000, "tol": 1e-4}
        constant = TorchSoftmaxClassifier(learning_rate="constant", **settings).fit(X, y)
        adaptive = TorchSoftmaxClassifier(learning_rate="adaptive", **settings).fit(X, y)
        assert adaptive.loss_curve_[-1] < constant.loss_curve_[-1]

    def test_without_shuffling_fits_are_equal(self, table):
        settings = {"solver": "sgd", "batch_size": 128, "shuffle": False, "max_iter": 2}
        a, b = (TorchSoftmaxClassifier(**settings).fit(*table) for _ in range(2))
        np.testing.assert_array_equal(a.coef_, b.coef_)

    def test_a_warm_start_goes_on_with_the_state_of_the_optimiser(self, table):
        X, y = table[0][:500], table[1][:500]
        settings = {"solver": "adam", "shuffle": False, "batch_size": 100}
        whole = TorchSoftmaxClassifier(max_iter=6, **settings).fit(X, y)
        halves = TorchSoftmaxClassifier(max_iter=3, warm_start=True, **settings).fit(X, y).fit(X, y)
        np.testing.assert_allclose(halves.coef_, whole.coef_, rtol=1e-9)
        fresh = TorchSoftmaxClassifier(max_iter=3, **settings).fit(
            X, y, coef_init=whole.coef_, intercept_init=whole.intercept_
        )
        assert not np.allclose(fresh.coef_, halves.coef_, rtol=1e-6)


class TestPartialFit:
    @pytest.mark.parametrize(
        ("settings", "within"),
        [({"solver": "sgd", "momentum": 0.9, "average": True}, 0.01), ({"solver": "adam", "average": True}, 0.02)],
    )
    def test_a_stream_of_a_thousand_batches_comes_near_the_fit(self, settings, within, table):
        X, y = table
        order = np.random.RandomState(0).permutation(np.tile(np.arange(len(X)), 5))
        clf = TorchSoftmaxClassifier(**settings)
        for rows in order.reshape(1000, -1):
            clf.partial_fit(X[rows], y[rows], classes=np.unique(y))
        assert clf.n_iter_[0] == len(clf.loss_curve_) == 1000
        best = objective(TorchSoftmaxClassifier(tol=1e-9).fit(X, y), X, y)
        assert objective(clf, X, y) < (1 + within) * best

    @pytest.mark.parametrize("first", ["partial_fit", "another optimiser", "fit"])
    def test_the_penalty_is_that_of_all_rows_so_far(self, first):
        X, y = load_iris(return_X_y=True)
        X = StandardScaler().fit_transform(X)
        clf = TorchSoftmaxClassifier(solver="sgd", C=0.01, learning_rate=0.1)
        if first == "fit":  # of as many rows
            clf.set_params(solver="lbfgs").fit(X[::3], y[::3]).set_params(solver="sgd")
        else:
            clf.partial_fit(X[:50], y[:50], classes=[0, 1, 2])
        if first == "another optimiser":
            clf.set_params(momentum=0.9)  # whose first step is the gradient's
        before = clf.coef_.copy(), clf.intercept_.copy()
        clf.partial_fit(X[50:], y[50:])
        weight, bias = (torch.tensor(part, requires_grad=True) for part in before)
        logits = torch.from_numpy(X[50:]) @ weight.T + bias
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y[50:]))
        (loss + weight.square().sum() / (2 * 0.01 * 150)).backward()
        np.testing.assert_allclose(clf.coef_, before[0] - 0.1 * weight.grad.numpy(), rtol=1e-9)

    @pytest.mark.parametrize("average", [False, True])
    @pytest.mark.parametrize("solver", ["sgd", "adam"])
    def test_batches_one_by_one_are_an_epoch(self, solver, average, table):
        X, y = table[0][:600], table[1][:600]
        settings = {"solver": solver, "learning_rate": 1e-3, "average": average, "momentum": 0.5, "C": np.inf}
        whole = TorchSoftmaxClassifier(shuffle=False, batch_size=100, max_iter=2, **settings).fit(X, y)
        stream = TorchSoftmaxClassifier(**settings)
        for i in [*range(0, 600, 100)] * 2:
            stream.partial_fit(X[i : i + 100], y[i : i + 100], classes=list("abcd"))
            stream = pickle.loads(pickle.dumps(stream))  # the state of the optimiser goes with it
        np.testing.assert_allclose(stream.coef_, whole.coef_, rtol=1e-9)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_batch_of_which_nothing_is_to_be_learnt(self, dtype):
        clf = TorchSoftmaxClassifier(solver="sgd", fit_intercept=False, C=np.inf)
        clf.partial_fit(np.zeros((3, 2), dtype), [0, 1, 2], classes=[0, 1, 2])
        assert not clf.coef_.any()

    def test_weights_are_repeats(self, table):
        X, y = table[0][:90], table[1][:90]
        weight = np.arange(90) % 3
        settings = {"solver": "sgd", "class_weight": {"a": 2.0}}
        a = TorchSoftmaxClassifier(**settings).partial_fit(X, y, classes=list("abcd"), sample_weight=weight)
        b = TorchSoftmaxClassifier(**settings).partial_fit(
            X.repeat(weight, axis=0), y.repeat(weight), classes=list("abcd")
        )
        np.testing.assert_allclose(a.coef_, b.coef_, rtol=1e-7)

    def test_soft_targets(self, table):
        X, y = table[0][:90], table[1][:90]
        hard = TorchSoftmaxClassifier(solver="sgd").partial_fit(X, y, classes=list("abcd"))
        soft = TorchSoftmaxClassifier(solver="sgd").partial_fit(
            X, np.eye(4)[np.unique(y, return_inverse=True)[1]], list("abcd")
        )
        np.testing.assert_allclose(soft.coef_, hard.coef_, rtol=1e-9)

    def test_it_goes_on_after_a_fit(self, table):
        X, y = table
        clf = TorchSoftmaxClassifier(solver="sgd", max_iter=3).fit(X, y)
        before = clf.loss_curve_[-1]
        for _ in range(5):
            clf.partial_fit(X, y)
        assert objective(clf, X, y) < before

    @pytest.mark.parametrize("is_first", [True, False])
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda X, y: (np.where(X[3, 2] == X, np.nan, X), y), "NaN"),
            (lambda X, y: (X[:0], y[:0]), "0 sample"),
            (lambda X, y: (X, np.where(y == "a", "z", y)), r"\['z'\], which are not among the classes"),
            (lambda X, y: (X, y[:-1]), "inconsistent numbers of samples"),
        ],
    )
    def test_a_bad_batch_changes_nothing(self, change, message, is_first, table):
        X, y = table[0][:60], table[1][:60]
        clf = TorchSoftmaxClassifier(solver="adam")
        if not is_first:
            clf.partial_fit(X, y, classes=list("abcd"))
        before = state(clf)
        with pytest.raises(ValueError, match=message):
            clf.partial_fit(*change(X, y), classes=list("abcd"))
        assert state(clf) == before

    def test_what_does_not_go_together(self, table):
        X, y = table[0][:60], table[1][:60]
        with pytest.raises(AttributeError, match="has no attribute 'partial_fit'"):
            TorchSoftmaxClassifier().partial_fit(X, y)
        with pytest.raises(ValueError, match="classes must be passed in the first call"):
            TorchSoftmaxClassifier(solver="sgd").partial_fit(X, y)
        with pytest.raises(ValueError, match=r"compute_class_weight\('balanced'"):
            TorchSoftmaxClassifier(solver="sgd", class_weight="balanced").partial_fit(X, y, list("abcd"))
        with pytest.raises(ValueError, match="needs to know where the end is"):
            TorchSoftmaxClassifier(solver="sgd", learning_rate="cosine").partial_fit(X, y, list("abcd"))
        clf = TorchSoftmaxClassifier(solver="sgd").partial_fit(X, y, list("abcd"))
        with pytest.raises(ValueError, match="partial_fit began with"):
            clf.partial_fit(X, y, list("abc"))
        with pytest.raises(ValueError, match=r"classes must be .*all numbers or all strings"):
            clf.partial_fit(X, y, np.array(["a", 1, None], object))
        with pytest.raises(ValueError, match="X has 3 features, but TorchSoftmaxClassifier is expecting 12"):
            clf.partial_fit(X[:, :3], y)


def test_rows_of_one_class_are_a_batch_like_any_other(table):
    X, y = table
    clf = TorchSoftmaxClassifier(solver="sgd").partial_fit(X[y == "a"], y[y == "a"], classes=list("abcd"))
    assert (clf.predict(X[y == "a"]) == "a").all()


def test_the_end_of_descent_says_why(table):
    with pytest.warns(ConvergenceWarning, match="n_iter_no_change=3 epochs"):
        TorchSoftmaxClassifier(solver="sgd", tol=0.1, n_iter_no_change=3).fit(*table)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("n_first", [1, 2])
def test_units_do_not_matter_where_the_first_rows_tell_no_scale(solver, n_first):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 3))
    y = (X @ [1, 2, -2] + rng.logistic(size=2000) > 0).astype(int)
    X[:n_first] = X[0]
    streams = []
    for scale in ([1, 1, 1], [1e-3, 1, 1e4]):
        clf = TorchSoftmaxClassifier(C=np.inf, solver=solver)
        for part in np.split(X, [n_first, *range(10, 2000, 10)]):
            clf.partial_fit(part * scale, y[: len(part)], classes=[0, 1])
            y = np.roll(y, -len(part))
        streams.append(clf.predict_proba(X * scale))
    np.testing.assert_allclose(streams[1], streams[0], atol=1e-6)
    assert (streams[0].argmax(axis=1) == y).mean() > 0.75


def test_a_first_batch_with_labels_in_a_column_needs_classes():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="classes must be passed in the first call"):
        TorchSoftmaxClassifier(solver="sgd").partial_fit(X, y[:, None])


@pytest.mark.parametrize("optimizer", UNFIT)
def test_optimisers_for_other_models_are_refused(optimizer):
    with pytest.raises(ValueError, match=f"{optimizer.__name__}.*Set solver='adam'"):
        TorchSoftmaxClassifier(solver=optimizer).fit(*load_iris(return_X_y=True))


def test_lbfgs_of_torch_takes_sparse_rows():
    X, y = load_iris(return_X_y=True)
    dense, sparse = (
        TorchSoftmaxClassifier(solver=torch.optim.LBFGS, learning_rate=1.0).fit(x, y) for x in (X, csr_array(X))
    )
    np.testing.assert_allclose(sparse.loss_curve_[-1], dense.loss_curve_[-1], rtol=1e-5)


def test_a_model_in_a_file_that_is_mapped_goes_on(tmp_path):
    X, y = load_iris(return_X_y=True)
    clf = TorchSoftmaxClassifier(solver="sgd").partial_fit(X, y, classes=[0, 1, 2])
    joblib.dump(clf, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r")
    np.testing.assert_array_equal(mapped.partial_fit(X, y).coef_, clf.partial_fit(X, y).coef_)


@pytest.mark.parametrize(("name", "value"), [("C", -1e-3), ("momentum", 5), ("batch_size", 0), ("class_weight", "all")])
def test_parameters_are_checked_in_each_call(name, value):
    X, y = load_iris(return_X_y=True)
    clf = TorchSoftmaxClassifier(solver="sgd").partial_fit(X, y, classes=[0, 1, 2])
    coef = clf.coef_.copy()
    with pytest.raises(ValueError, match=f"The '{name}' parameter of TorchSoftmaxClassifier must be"):
        clf.set_params(**{name: value}).partial_fit(X, y)
    np.testing.assert_array_equal(clf.coef_, coef)


def test_early_stopping_is_no_matter_of_a_batch():
    clf = TorchSoftmaxClassifier(solver="sgd", early_stopping=True)
    with pytest.raises(ValueError, match=r"early_stopping=True holds out rows.*Set early_stopping=False"):
        clf.partial_fit(*load_iris(return_X_y=True), classes=[0, 1, 2])


def test_a_class_that_is_no_optimiser():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(TypeError, match=r"no optimiser: pass a class of torch\.optim\.Optimizer"):
        TorchSoftmaxClassifier(solver=int).fit(X, y)


class WithoutReturn(torch.optim.SGD):
    """An optimiser as somebody may have written it."""

    def __init__(self, params, *, lr=0.1):
        super().__init__(params, lr)

    def step(self, closure=None):
        super().step(closure)


class OtherName(torch.optim.SGD):
    """One that calls its rate by another name."""

    def __init__(self, params, learning_rate=0.1):
        super().__init__(params, learning_rate)


class Forwards(torch.optim.SGD):
    """One that passes on what it does not know."""

    def __init__(self, params, momentum=0.0, **settings):
        super().__init__(params, momentum=momentum, **settings)


class Renames(torch.optim.SGD):
    """One that has another name for its rate and passes on the rest."""

    def __init__(self, params, eta=0.1, **settings):
        super().__init__(params, eta, **settings)


class Rebinds(torch.optim.SGD):
    """One that puts parameters elsewhere in memory."""

    def step(self, closure):
        loss = closure()
        for parameter in self.param_groups[0]["params"]:
            parameter.data = parameter.data - self.param_groups[0]["lr"] * parameter.grad
        return loss


class WithoutRate(torch.optim.Optimizer):
    """One that has none."""

    def __init__(self, params):
        super().__init__(params, {})


class Deaf(torch.optim.SGD):
    """One that takes gradients to be there."""

    def step(self, closure=None):
        super().step()


def test_an_optimiser_whose_step_gives_nothing_back():
    X, y = load_iris(return_X_y=True)
    found = TorchSoftmaxClassifier(solver=WithoutReturn, learning_rate=0.1, max_iter=9).fit(X, y)
    expected = TorchSoftmaxClassifier(solver="sgd", learning_rate=0.1, max_iter=9).fit(X, y)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-12)
    with pytest.raises(TypeError, match="is no optimiser"):
        TorchSoftmaxClassifier(solver=torch.optim.Optimizer).fit(X, y)
    found = TorchSoftmaxClassifier(solver=OtherName, learning_rate=0.1, max_iter=9).fit(X, y)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-12)
    for solver in (Forwards, Renames):
        found = TorchSoftmaxClassifier(solver=solver, learning_rate=0.1, max_iter=9).fit(X, y)
        np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-12)
    with pytest.raises(TypeError, match=r"Deaf\.step has to call the closure"):
        TorchSoftmaxClassifier(solver=Deaf).fit(X, y)
    with pytest.raises(TypeError, match="solver=WithoutRate does not keep its learning rate as 'lr'"):
        TorchSoftmaxClassifier(solver=WithoutRate).fit(X, y)


@pytest.mark.parametrize("average", [False, True])
def test_an_optimiser_that_puts_parameters_elsewhere(average):
    X, y = load_iris(return_X_y=True)
    settings = {"learning_rate": 0.1, "max_iter": 9, "batch_size": 10, "shuffle": False, "average": average}
    found, expected = (TorchSoftmaxClassifier(solver=solver, **settings).fit(X, y) for solver in (Rebinds, "sgd"))
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-12)


class TestAutomaticRates:
    """One over the smoothness of the loss and the penalty."""

    @pytest.mark.parametrize("later", [{"C": 1.0}, {"batch_size": None}])
    def test_a_fit_that_goes_on_takes_that_of_its_own(self, later):
        X, y = load_iris(return_X_y=True)
        settings = {"solver": "sgd", "C": 1e-4, "batch_size": 1, "shuffle": False, "tol": 0.0} | {"max_iter": 2}
        if "batch_size" not in later:
            settings["batch_size"] = None
        clf = TorchSoftmaxClassifier(**settings, warm_start=True).fit(X, y)
        fresh = TorchSoftmaxClassifier(**(settings | later))
        fresh.fit(X, y, coef_init=clf.coef_, intercept_init=clf.intercept_)
        clf.set_params(**later).fit(X, y)
        np.testing.assert_allclose(clf.coef_, fresh.coef_, rtol=1e-9)

    def test_the_penalty_of_a_stream_falls_and_its_rate_rises(self):
        X, y = load_iris(return_X_y=True)
        X = StandardScaler().fit_transform(X)
        clf = TorchSoftmaxClassifier(solver="sgd", C=1e-3).partial_fit(X, y, classes=[0, 1, 2])
        weight, bias = clf.coef_, clf.intercept_
        design, penalty = np.column_stack([X, np.ones(150)]), 1 / (1e-3 * 300)
        smoothness = 0.5 * np.linalg.eigvalsh(design.T @ design / 150)[-1] + penalty
        residual = softmax(X @ weight.T + bias, axis=1) - np.eye(3)[y]
        clf.partial_fit(X, y)
        np.testing.assert_allclose(clf.coef_, weight - (residual.T @ X / 150 + penalty * weight) / smoothness)


@pytest.mark.parametrize(("solver", "was_constant"), [("sgd", False), ("sgd", True), ("adam", True)])
def test_a_fit_that_goes_on_takes_the_units_of_its_rows(solver, was_constant):
    X, y = load_iris(return_X_y=True)
    before = X * [1, 1, 0, 0] if was_constant else 1000 * X
    settings = {"solver": solver, "C": 0.1, "max_iter": 1000}
    clf = TorchSoftmaxClassifier(**settings, warm_start=True).fit(before, y).fit(X, y)
    cold = TorchSoftmaxClassifier(**settings).fit(X, y)
    assert clf.loss_curve_[-1] < 1.01 * cold.loss_curve_[-1]


def test_a_column_that_is_constant_for_once_takes_nothing_from_the_others():
    X, y = load_iris(return_X_y=True)
    rare = np.column_stack([X, np.arange(150) % 30 == 0])
    clf = TorchSoftmaxClassifier(solver="adam", max_iter=5, warm_start=True).fit(rare, y)
    n_steps = [clf._stream.recall().state[0]["step"].item()]
    for rows in (rare * [1, 1, 1, 1, 0], rare):
        n_steps.append(clf.fit(rows, y)._stream.recall().state[0]["step"].item())
    assert n_steps == [5, 10, 15]


@pytest.mark.parametrize("given", ["warm_start", "coef_init"])
def test_rows_that_are_held_out_are_those_of_the_seed(given, monkeypatch):
    X, y = load_iris(return_X_y=True)
    held_out = []

    def noted(*arguments):
        rows, others = hold_out(*arguments)
        held_out.append(others.X)
        return rows, others

    monkeypatch.setattr("skl_softmax.classifier.hold_out", noted)
    settings = {"solver": "sgd", "learning_rate": 0.1, "random_state": 0, "early_stopping": True, "max_iter": 2}
    clf = TorchSoftmaxClassifier(**settings, warm_start=given == "warm_start").fit(X, y)
    clf.fit(X, y, coef_init=clf.coef_ if given == "coef_init" else None)
    torch.testing.assert_close(*held_out)


def test_inverse_scaling_goes_by_epochs():
    X, y = load_iris(return_X_y=True)
    rows, labels, n_epochs = torch.from_numpy(X), torch.from_numpy(y), 0
    linear = torch.nn.Linear(4, 3, dtype=torch.float64)
    torch.nn.init.zeros_(linear.weight), torch.nn.init.zeros_(linear.bias)
    settings = {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1, "C": np.inf}
    clf = TorchSoftmaxClassifier(**settings, shuffle=False, warm_start=True, max_iter=3, tol=0.0)
    for size in (40, 150):
        parts = torch.arange(150).split(size)
        for epoch in range(3):
            for i, part in enumerate(parts):
                linear.zero_grad()
                torch.nn.functional.cross_entropy(linear(rows[part]), labels[part]).backward()
                rate = 0.1 / np.sqrt(1 + n_epochs + epoch + i / len(parts))
                torch.optim.SGD(linear.parameters(), rate).step()
        n_epochs += 3
        clf.set_params(batch_size=size).fit(X, y)
        np.testing.assert_allclose(clf.coef_, linear.weight.detach().numpy(), rtol=1e-9)


def test_the_loss_of_an_epoch_is_the_mean_over_its_rows():
    """Each batch before its update; the last one is smaller."""
    X, y = load_iris(return_X_y=True)
    rows, labels, weights = torch.from_numpy(X), torch.from_numpy(y), torch.arange(1.0, 151.0, dtype=torch.float64)
    linear = torch.nn.Linear(4, 3, dtype=torch.float64)
    torch.nn.init.zeros_(linear.weight), torch.nn.init.zeros_(linear.bias)
    mean = 0.0
    for part in torch.arange(150).split(40):
        linear.zero_grad()
        losses = torch.nn.functional.cross_entropy(linear(rows[part]), labels[part], reduction="none")
        loss = (losses @ weights[part]) / (weights.sum() * len(part) / 150)
        mean += loss.item() * len(part) / 150
        loss.backward()
        torch.optim.SGD(linear.parameters(), 0.01).step()
    settings = {"solver": "sgd", "learning_rate": 0.01, "C": np.inf, "batch_size": 40, "shuffle": False}
    clf = TorchSoftmaxClassifier(**settings, max_iter=1).fit(X, y, weights.numpy())
    assert clf.loss_curve_[0] == pytest.approx(mean, rel=1e-12)


def test_a_misspelt_solver_is_named():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=r"'solver' parameter of TorchSoftmaxClassifier must be .* or a callable"):
        TorchSoftmaxClassifier(solver="SGD").partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(TypeError, match=r"is no optimiser: pass a class of torch\.optim\.Optimizer, or one of 'auto'"):
        TorchSoftmaxClassifier(solver=lambda parameters: torch.optim.SGD(parameters, lr=0.1)).fit(X, y)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_units_of_columns_whose_squares_overflow(solver):
    X, y = load_iris(return_X_y=True)
    near = TorchSoftmaxClassifier(solver=solver, C=np.inf, max_iter=20, random_state=0)
    far = clone(near).fit(1e200 * X, y)
    np.testing.assert_allclose(far.loss_curve_, near.fit(X, y).loss_curve_, rtol=1e-9)


def test_columns_whose_squares_vanish_are_constant_to_a_stream():
    X, y = load_iris(return_X_y=True)
    model = TorchSoftmaxClassifier(solver="sgd", max_iter=5).fit(1e-200 * X, y)
    np.testing.assert_allclose(model.loss_curve_, np.log(3))


def test_passes_are_those_that_the_optimiser_asks_for(calls_of):
    X, y = load_iris(return_X_y=True)
    asked = calls_of(SmallBatch, "at")
    settings = {"solver": torch.optim.LBFGS, "learning_rate": 0.1, "max_iter": 3, "batch_size": 75, "shuffle": False}
    clf = TorchSoftmaxClassifier(**settings).fit(X, y)
    assert clf.n_passes_ == len(asked) / 2 > 2 * clf.n_iter_[0]
    clf = TorchSoftmaxClassifier(solver="sgd", batch_size=50)
    for n_calls in range(1, 4):
        clf.partial_fit(X, y, classes=[0, 1, 2])
        assert clf.n_passes_ == clf.n_iter_[0] == n_calls


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_one_cycle_leaves_momentum_as_it_is(momentum):
    X, y = load_iris(return_X_y=True)
    rows, y_ = torch.from_numpy(X), torch.from_numpy(y)
    linear = torch.nn.Linear(4, 3, dtype=torch.float64)
    torch.nn.init.zeros_(linear.weight), torch.nn.init.zeros_(linear.bias)
    optimizer = torch.optim.SGD(linear.parameters(), 0.1, momentum=momentum)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20, cycle_momentum=False)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(linear(rows), y_).backward()
        optimizer.step()
        schedule.step()
    settings = {"learning_rate": "one-cycle", "learning_rate_init": 0.1, "momentum": momentum, "max_iter": 20}
    clf = TorchSoftmaxClassifier(solver="sgd", C=np.inf, **settings).fit(X, y)
    np.testing.assert_allclose(clf.coef_, linear.weight.detach().numpy(), rtol=1e-9)
    once = TorchSoftmaxClassifier(solver="sgd", C=np.inf, **settings | {"max_iter": 1}).fit(X, y)
    assert once.coef_.max() > 1e-3  # torch's schedule of a single step has but the smallest rate
    for other in (torch.optim.Adagrad, torch.optim.LBFGS):
        settings = {"learning_rate": "one-cycle", "learning_rate_init": 0.1, "max_iter": 20}
        assert TorchSoftmaxClassifier(solver=other, **settings).fit(X, y).score(X, y) > 0.6


def go_on(clf, X, y, known):
    """Many calls of which each one's end is noted."""
    for _ in range(400):
        clf.partial_fit(X, y, classes=[0, 1, 2])
        known.append(state(clf))


class TestDivergence:
    def test_it_leaves_nothing_to_go_on_with(self):
        X, y = load_wine(return_X_y=True)
        settings = {"solver": "sgd", "momentum": 0.9, "C": 1e-4}
        clf = TorchSoftmaxClassifier(**settings, learning_rate=100.0, max_iter=300, warm_start=True).fit(X, y)
        found = clf.set_params(learning_rate=1e-6, max_iter=50).fit(X, y)
        expected = TorchSoftmaxClassifier(**settings, learning_rate=1e-6, max_iter=50).fit(X, y)
        np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_)

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_of_the_first_step(self, dtype):
        X, y = load_wine(return_X_y=True)
        rate = {np.float64: 1e308, np.float32: 1e38}[dtype]
        with pytest.warns(ConvergenceWarning, match="grew beyond all bounds"):
            clf = TorchSoftmaxClassifier(solver="sgd", learning_rate=rate).fit(X.astype(dtype), y)
        assert not clf.coef_.any()

    def test_a_batch_of_a_stream_that_diverges_is_refused(self):
        X, y = load_wine(return_X_y=True)
        clf = TorchSoftmaxClassifier(solver="sgd", learning_rate=1e3, momentum=0.9, C=1e-4)
        known = [{}]
        with pytest.raises(ValueError, match="smaller learning_rate"):
            go_on(clf, X, y, known)
        before = known[-1]
        assert np.isfinite(clf.coef_).all()
        assert state(clf) == before


@pytest.mark.parametrize("later", [["b", "a", "c"], None])
def test_columns_of_probabilities_are_in_the_order_of_the_classes(later):
    X, y = load_iris(return_X_y=True)
    names, proba = ["b", "a", "c"], np.eye(3)[y]
    clf = TorchSoftmaxClassifier(solver="sgd").partial_fit(X, proba, classes=names)
    for _ in range(30):
        clf.partial_fit(X, proba if later else proba[:, [1, 0, 2]], classes=later)
    expected = TorchSoftmaxClassifier(solver="sgd")
    for _ in range(31):
        expected.partial_fit(X, np.array(names)[y], classes=names)
    np.testing.assert_allclose(clf.coef_, expected.coef_, rtol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_noise_of_batches_is_no_divergence(seed):
    """A fit that begins at the minimum ends as far above it as below, and keeps its mean and what it can go on with."""
    X, y = make_classification(300, 6, n_informative=4, flip_y=0.3, random_state=seed)
    settings = {
        "solver": "sgd",
        "batch_size": 10,
        "average": True,
        "warm_start": True,
        "random_state": seed,
        "tol": 1e-6,
    }
    clf = TorchSoftmaxClassifier(**settings).fit(X, y)
    value = clf.loss_curve_[-1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf.fit(X, y)
    assert not any("beyond all bounds" in str(warning.message) for warning in caught)
    assert clf.loss_curve_[-1] < value + 1e-3
    assert clf._stream is not None


def test_steps_that_are_too_long_are_told_from_noise():
    X, y = load_iris(return_X_y=True)
    labels = np.random.default_rng(0).permutation(y)
    with pytest.warns(ConvergenceWarning, match="is not below that of as many before"):
        TorchSoftmaxClassifier(solver="adam", batch_size=1, learning_rate=0.05, random_state=0).fit(X, labels)
    with pytest.warns(ConvergenceWarning, match="beyond all bounds"):
        TorchSoftmaxClassifier(solver="sgd", learning_rate=10.0, random_state=0).fit(X, y)


def test_batches_of_float32_keep_the_digits_of_logits():
    X, y = load_iris(return_X_y=True)
    far = (X + 1e6).astype(np.float32)
    clf = TorchSoftmaxClassifier(solver="sgd", batch_size=50, momentum=0.5)
    for _ in range(200):
        clf.partial_fit(far, y, classes=[0, 1, 2])
    assert clf.coef_.dtype == np.float64
    alike = TorchSoftmaxClassifier(solver="sgd", batch_size=50, momentum=0.5)
    for _ in range(200):
        alike.partial_fit(far.astype(np.float64), y, classes=[0, 1, 2])
    np.testing.assert_allclose(clf.predict_proba(far), alike.predict_proba(far.astype(np.float64)), atol=0.05)
    near = TorchSoftmaxClassifier(solver="sgd").partial_fit(X.astype(np.float32), y, classes=[0, 1, 2])
    assert near.coef_.dtype == np.float32


@pytest.mark.parametrize("average", [False, True])
def test_an_epoch_that_is_interrupted_is_none(average, monkeypatch):
    """What is gone on with is of the end of the last epoch, as the coefficients are."""
    X, y = load_wine(return_X_y=True)
    settings = {"solver": "sgd", "momentum": 0.9, "batch_size": 20, "shuffle": False, "average": average}
    settings |= {"warm_start": True, "max_iter": 3, "tol": 0.0}
    clf, whole = (TorchSoftmaxClassifier(**settings) for _ in range(2))
    step, count = torch.optim.SGD.step, 0

    def interrupted(self, *arguments):
        nonlocal count
        count += 1
        if count == 9 * 3 + 5:  # amid the fourth epoch
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clf.set_params(max_iter=10).fit(X, y)
    monkeypatch.undo()
    whole.fit(X, y)
    np.testing.assert_array_equal(clf.coef_, whole.coef_)
    clf.set_params(max_iter=3).fit(X, y)
    whole.fit(X, y)
    np.testing.assert_array_equal(clf.coef_, whole.coef_)


def test_a_callback_that_ends_a_stream_of_separable_rows_is_not_warned_of():
    class End:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context, **_): ...
        def on_fit_task_end(self, estimator, context, **_):
            return context.task_id == 5

    x, y = np.r_[-100.0:0.0:1.0, 1.0:101.0:1.0][:, None], np.repeat([0, 1], 100)
    clf = TorchSoftmaxClassifier(solver="sgd", C=np.inf, max_iter=1000, tol=0.0, learning_rate=1.0).set_callbacks(End())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.fit(x, y)
    assert clf.loss_curve_[-1] < np.log(2) / 200
    assert not clf.converged_


class CountsInState(torch.optim.SGD):
    """An optimiser that makes its state at once."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["steps"] = torch.zeros(())

    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["steps"] += 1
        return super().step(closure)


class CountsInGroup(torch.optim.SGD):
    """One that notes its steps beside its settings, and goes by them."""

    def step(self, closure=None):
        (group,) = self.param_groups
        group["steps"] = group.get("steps", 0) + 1
        group["lr"] = 0.1 / group["steps"]
        return super().step(closure)


def test_an_optimiser_that_makes_its_state_at_once():
    X, y = load_iris(return_X_y=True)
    clf = TorchSoftmaxClassifier(solver=CountsInState).partial_fit(X, y, classes=[0, 1, 2])
    clf.partial_fit(csr_array(X), y).partial_fit(csr_array(X), y)  # where dense rows were before, it begins anew
    assert np.isfinite(clf.coef_).all()


def test_what_an_optimiser_notes_beside_its_settings_goes_on():
    X, y = load_iris(return_X_y=True)
    settings = {"solver": CountsInGroup, "learning_rate": 0.1, "shuffle": False, "tol": 0.0}
    at_once = TorchSoftmaxClassifier(max_iter=6, **settings).fit(X, y)
    later = TorchSoftmaxClassifier(max_iter=3, warm_start=True, **settings).fit(X, y).fit(X, y)
    np.testing.assert_array_equal(later.coef_, at_once.coef_)
    batches = TorchSoftmaxClassifier(**settings)
    for _ in range(6):
        batches = pickle.loads(pickle.dumps(batches.partial_fit(X, y, classes=[0, 1, 2])))
    assert relative_error(batches.coef_, at_once.coef_) < 0.1  # but for the penalty, which falls as rows come


def test_a_setting_that_is_changed_between_calls_is_taken():
    X, y = load_iris(return_X_y=True)
    clf = TorchSoftmaxClassifier(solver="sgd", learning_rate=0.1, momentum=0.9, warm_start=True, max_iter=3, tol=0.0)
    clf.fit(X, y).set_params(momentum=0.5, learning_rate=0.01)
    other = pickle.loads(pickle.dumps(clf)).set_params(momentum=0.9)
    assert relative_error(clf.fit(X, y).coef_, other.fit(X, y).coef_) > 1e-3


def test_batches_after_a_fit_keep_the_digits_of_logits():
    """float64 coefficients of float32 rows are those where a batch of float32 begins."""
    X, y = load_iris(return_X_y=True)
    far = (X + 1e6).astype(np.float32)

    def after(batch):
        clf = TorchSoftmaxClassifier(C=100).fit(far, y)
        assert clf.coef_.dtype == np.float64
        return clf.set_params(solver="sgd").partial_fit(batch, y).predict_proba(far)

    np.testing.assert_allclose(after(far), after(far.astype(np.float64)), atol=1e-3)


@pytest.mark.parametrize("settings", [{"random_state": 0, "learning_rate": 0.5, "momentum": 0.9}, {"solver": "adam"}])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gaps_count_what_the_penalty_has_of_numbers_added_to_all_classes(settings, dtype):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 5))
    y = (X @ rng.normal(size=(5, 3)) + rng.gumbel(size=(20_000, 3))).argmax(axis=1)
    X = X.astype(dtype)
    known = {"coef_init": np.full((3, 5), 0.7)} if "solver" in settings else {}
    clf = TorchSoftmaxClassifier(**{"solver": "sgd", "max_iter": 300} | settings).fit(X, y, **known)
    best = TorchSoftmaxClassifier(tol=1e-14).fit(X.astype(np.float64), y)
    gap = objective(clf, X, y) - objective(best, X, y)
    assert abs(clf.coef_.sum(axis=0)).max() > 1e-2
    assert gap > 1e-7 * objective(best, X, y)
    assert 0.5 * gap <= clf.optimality_gap_ <= 2 * gap
