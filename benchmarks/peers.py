"""The contestants: each a list of settings, from quick and rough to slow and exact."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch
import torch._dynamo  # which the first optimiser takes a second to import, and a fit that is stopped leaves in halves
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.preprocessing import LabelEncoder
from skorch import NeuralNetClassifier

from skl_softmax import TorchSoftmaxClassifier

OURS = "TorchSoftmaxClassifier"
# Not a contestant: another of our solvers at a tight tolerance, for the lowest F.
REFERENCE = "reference"
TOLERANCES = tuple(float(f"1e-{digits}") for digits in range(2, 13))  # tried until one leads to the target


def anything(*_):
    """Suits every problem."""
    return True


def dense(X, _):
    """Where X is an array."""
    return not sp.issparse(X)


def few_parameters(X, n_classes):
    """Where a Hessian of all parameters can be formed."""
    return dense(X, n_classes) and X.shape[1] * (n_classes if n_classes > 2 else 1) <= 2000


def few_entries(X, _):
    """Where thousands of epochs, which cannot be interrupted, take seconds."""
    return X.shape[0] * X.shape[1] < 2e5


def two_classes(_, n_classes):
    """Where there are two classes."""
    return n_classes == 2


@dataclass(frozen=True)
class Setting:
    """One way to call a contestant. ``make(C, n)`` gives an unfitted estimator with ``coef_`` and ``intercept_``."""

    peer: str
    accuracy: str
    make: Callable
    n_threads: int | None = None  # of BLAS and OpenMP; None leaves them alone
    suits: Callable = anything

    @property
    def label(self):
        """What distinguishes it from the peer's other settings."""
        threads = "" if self.n_threads is None else f", {self.n_threads} thread{'s' * (self.n_threads > 1)}"
        return self.accuracy + threads


class TorchLBFGS:
    """What a torch user would write: `torch.nn.Linear`, cross-entropy, `torch.optim.LBFGS` with strong Wolfe steps."""

    def __init__(self, C, _, tolerance, max_iter=20_000):
        self.C, self.tolerance, self.max_iter = C, tolerance, max_iter

    def fit(self, X, y):
        """Fit in float64, whatever X is, as such code usually has to."""
        self.classes_, y = np.unique(y, return_inverse=True)
        X, y = torch.from_numpy(X).double(), torch.from_numpy(y)
        n_outputs = 1 if len(self.classes_) == 2 else len(self.classes_)
        layer = torch.nn.utils.skip_init(torch.nn.Linear, X.shape[1], n_outputs, dtype=torch.float64)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.LBFGS(
            layer.parameters(), max_iter=self.max_iter, line_search_fn="strong_wolfe",
            tolerance_grad=self.tolerance, tolerance_change=1e-14, history_size=10,
        )  # fmt: skip

        def closure():
            optimizer.zero_grad()
            logits = layer(X)
            if n_outputs == 1:
                loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y.double())
            else:
                loss = torch.nn.functional.cross_entropy(logits, y)
            loss = loss + layer.weight.square().sum() / (2 * self.C * len(X))
            loss.backward()
            return loss

        optimizer.step(closure)
        self.coef_, self.intercept_ = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        return self


class SkorchLinear:
    """skorch with a linear module, weight decay for the penalty, Adam on batches, as in its documentation."""

    def __init__(self, C, _, max_epochs):
        self.C, self.max_epochs = C, max_epochs

    def fit(self, X, y):
        """Fit in float32."""
        encoder = LabelEncoder().fit(y)
        self.classes_ = encoder.classes_
        net = NeuralNetClassifier(
            torch.nn.Linear, module__in_features=X.shape[1], module__out_features=len(encoder.classes_),
            criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=1e-2, max_epochs=self.max_epochs,
            batch_size=256, train_split=None, verbose=0, optimizer__weight_decay=1 / (self.C * len(X)),
        )  # fmt: skip
        net.fit(np.ascontiguousarray(X, dtype=np.float32), encoder.transform(y))
        weight, bias = (p.detach().numpy().astype(np.float64) for p in net.module_.parameters())
        if len(self.classes_) == 2:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        self.coef_, self.intercept_ = weight, bias
        return self


# By solver: where it suits, most iterations, numbers of threads worth trying (the last three do not use BLAS).
LOGISTIC = {
    "newton-cholesky": (few_parameters, 500, (1, 2)),
    "lbfgs": (anything, 20_000, (1, 2)),
    "newton-cg": (anything, 500, (1, 2)),
    "sag": (few_entries, 2_000, (1,)),
    "saga": (few_entries, 2_000, (1,)),
    "liblinear": (two_classes, 2_000, (1,)),
}


def logistic(solver, tol, max_iter):
    """`LogisticRegression` at a tolerance.

    liblinear penalises the intercept as one more coefficient, which its scaling makes cheap; else it fits another F.
    """
    scaling = {"intercept_scaling": 1e3} if solver == "liblinear" else {}
    return lambda C, _: LogisticRegression(C=C, solver=solver, tol=tol, max_iter=max_iter, **scaling)


def one_versus_rest(tol):
    """`SGDClassifier` with the same penalty; with three or more classes another model."""
    return lambda C, n: SGDClassifier(loss="log_loss", alpha=1 / (C * n), tol=tol, random_state=0)


def settings():
    """All of them. Ours has one: the constructor without arguments but C."""
    yield Setting(REFERENCE, "newton", lambda C, _: TorchSoftmaxClassifier(C=C, solver="newton", tol=1e-11))
    yield Setting(OURS, "default", lambda C, _: TorchSoftmaxClassifier(C=C))
    for solver, (suits, max_iter, threads) in LOGISTIC.items():
        for n_threads in threads:
            for tol in TOLERANCES:
                make = logistic(solver, tol, max_iter)
                yield Setting(f"LogisticRegression({solver})", f"tol={tol:g}", make, n_threads, suits)
    for tol in TOLERANCES:
        make = partial(TorchLBFGS, tolerance=tol)
        yield Setting("torch.optim.LBFGS", f"tolerance_grad={tol:g}", make, suits=dense)
    for tol in (1e-3, 1e-5):
        yield Setting("SGDClassifier(log_loss)", f"tol={tol:g}", one_versus_rest(tol), 1, two_classes)
    for epochs in (10, 100):
        make = partial(SkorchLinear, max_epochs=epochs)
        yield Setting("skorch", f"{epochs} epochs", make, suits=dense)
