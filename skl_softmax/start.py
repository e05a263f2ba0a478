"""Where a fit begins: weights and biases in float64, as float32 may hold too few of their digits."""

from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn

from skl_softmax.inputs import TrainingRows, as_arrays, check_start, dense_array
from skl_softmax.solver_parameters import takes_any_units, uses_optimizer


def begin(estimator, rows: TrainingRows, given_init: tuple, generator, known: dict) -> tuple[Tensor, Tensor] | None:
    """The weight (K, d) and bias (K,) that the parameters of ``fit`` and of the estimator ask for; None for zeros."""
    begin = None
    if any(init is not None for init in given_init):
        begin = given(rows, *given_init)
    elif estimator.warm_start and "coef_" in known:
        begin = continued(rows, estimator, known)
    if uses_optimizer(estimator) and estimator.random_state is not None and not takes_any_units(estimator):
        if begin is None:
            return drawn(rows, estimator.fit_intercept, generator)
        if estimator.early_stopping:  # so that the rows that are held out next are those of a fit that begins anew
            drawn(rows, estimator.fit_intercept, generator)
    return begin


def zeros(rows: TrainingRows) -> tuple[Tensor, Tensor]:
    """Equal probabilities for all classes."""
    weight = torch.zeros(rows.n_outputs, rows.X.shape[1], dtype=torch.float64)  # (K, d)
    return weight, weight.new_zeros(rows.n_outputs)  # (K, d), (K,)


def drawn(rows: TrainingRows, fit_intercept: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The initial weights of ``torch.nn.Linear(d, K)`` right after ``torch.manual_seed``, in float32 as there."""
    n_features = rows.X.shape[1]
    weight = torch.empty(rows.n_outputs, n_features, dtype=torch.float32)  # (K, d)
    bias = torch.zeros(rows.n_outputs, dtype=torch.float32)  # (K,)
    nn.init.kaiming_uniform_(weight, a=sqrt(5), generator=generator)
    if fit_intercept:
        bound = 1 / sqrt(n_features)
        nn.init.uniform_(bias, -bound, bound, generator=generator)
    return weight.double(), bias.double()


def continued(rows: TrainingRows, estimator, known: dict) -> tuple[Tensor, Tensor]:
    """What an earlier fit has found for the same classes and features, by label and name; zeros for what is new.

    ``known`` are the attributes of the earlier fit; those of the new rows' features are the estimator's.
    """
    weight, bias = dense_array(known["coef_"]).astype(np.float64), as_arrays(known["intercept_"]).astype(np.float64)
    if len(known["classes_"]) == 2:  # one output z is two outputs ∓z/2
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    old, new = _places(known["classes_"].tolist(), rows.classes.tolist())
    columns, places = _columns(estimator, known)
    found, offsets = np.zeros((len(rows.classes), rows.X.shape[1])), np.zeros(len(rows.classes))
    found[np.ix_(new, places)], offsets[new] = weight[np.ix_(old, columns)], bias[old]
    if rows.n_outputs == 1:
        found, offsets = found[1:] - found[:1], offsets[1:] - offsets[:1]
    return torch.from_numpy(found), torch.from_numpy(offsets)


def _columns(estimator, known: dict) -> tuple[list[int], list[int]]:
    names, old_names = getattr(estimator, "feature_names_in_", None), known.get("feature_names_in_")
    if names is not None and old_names is not None:
        return _places(old_names.tolist(), names.tolist())
    n_features = known["coef_"].shape[1]
    if n_features != estimator.n_features_in_:
        raise ValueError(
            f"warm_start=True continues a fit of {n_features} features, but X has "
            f"{estimator.n_features_in_}, and without feature names they cannot be matched. Pass data frames, the same "
            "number of features, or set warm_start=False."
        )
    return [list(range(estimator.n_features_in_))] * 2


def _places(old: list, new: list) -> tuple[list[int], list[int]]:
    """Where those that both lists hold are in each of them."""
    place = {value: i for i, value in enumerate(new)}
    both = [(i, place[value]) for i, value in enumerate(old) if value in place]
    return [i for i, _ in both], [j for _, j in both]


def given(rows: TrainingRows, coef_init, intercept_init) -> tuple[Tensor, Tensor]:
    """What the user passed; zeros for what was not passed."""
    weight, bias = zeros(rows)
    if coef_init is not None:
        weight = check_start("coef_init", coef_init, tuple(weight.shape))
    if intercept_init is not None:
        bias = check_start("intercept_init", intercept_init, tuple(bias.shape))
    return weight, bias
