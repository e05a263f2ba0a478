"""What a call leaves of an estimator."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn import get_config
from sklearn.base import BaseEstimator
from torch import Tensor

from skl_softmax.data import on_device
from skl_softmax.memory import explained

# What a fit finds, but for the features that it has seen.
FOUND = {
    "classes_", "coef_", "intercept_", "n_iter_", "n_passes_", "loss_curve_", "optimality_gap_", "converged_",
    "seconds_curve_", "validation_scores_", "best_iteration_", "_stream",
}  # fmt: skip


@contextmanager
def unchanged_on_error(estimator: BaseEstimator) -> Iterator[Callable[[], None]]:
    """Leave the estimator as it was if the block raises, or as it was when the block called what it is given.

    A ``random_state`` that is a RandomState, the caller's own, is left as it was, too. What is raised where memory ran
    out says how much was wanted and what to change.
    """
    before = dict(vars(estimator))
    drawn_from = before.get("random_state")
    drawn_from = drawn_from if isinstance(drawn_from, np.random.RandomState) else None
    undrawn = drawn_from and drawn_from.get_state()

    def keep() -> None:
        nonlocal undrawn
        undrawn = drawn_from and drawn_from.get_state()
        before.clear()
        before.update(vars(estimator))

    try:
        yield keep
    except BaseException as error:
        vars(estimator).clear()
        vars(estimator).update(before)
        if drawn_from is not None:
            drawn_from.set_state(undrawn)
        raise explained(error, estimator)  # noqa: B904, its cause is set


def forget_fit(estimator: BaseEstimator) -> dict:
    """All that the estimator knows, of which it forgets what a fit has found: callbacks see copies of it."""
    known = dict(vars(estimator))
    for name in known.keys() & FOUND:
        delattr(estimator, name)
    return known


def follow(estimator: BaseEstimator, X) -> None:
    """With scikit-learn's array API dispatch, fitted arrays are tensors where X is one, as those of its own models."""
    if isinstance(X, Tensor) and get_config()["array_api_dispatch"]:
        for name, value in vars(estimator).items():
            if (
                name.endswith("_")
                and isinstance(value, np.ndarray)
                and name != "classes_"
                and value.dtype.kind in "biuf"
            ):
                setattr(estimator, name, on_device(torch.from_numpy(value), X.device))
