"""Where metadata goes, and what scorers are told, as in scikit-learn's own searches."""

from inspect import signature

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.metrics import get_scorer, make_scorer
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.metadata_routing import _raise_for_params, _routing_enabled, process_routing
from sklearn.utils.validation import _check_method_params
from torch import Tensor

from skl_softmax.inputs import as_rows


def routed_parameters(estimator: BaseEstimator, sample_weight, parameters: dict) -> tuple[dict, dict]:
    """What of ``fit``'s metadata goes to the splitter and what to the scorer.

    Without scikit-learn's metadata routing, weights go to the scorer, as in `LogisticRegressionCV`.
    """
    _raise_for_params(parameters, estimator, "fit")
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    if _routing_enabled():
        routed = process_routing(estimator, "fit", **weights, **parameters)
        return routed["splitter"]["split"], routed["scorer"]["score"]
    return {}, weights


def routed_score_parameters(estimator: BaseEstimator, sample_weight, parameters: dict) -> dict:
    """What of ``score``'s metadata goes to the scorer."""
    _raise_for_params(parameters, estimator, "score")
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    if _routing_enabled():
        return process_routing(estimator, "score", **weights, **parameters)["scorer"]["score"]
    return weights


def scorer_parts(scorer) -> tuple | None:
    """Function, sign, response method and parameters of a scorer by `sklearn.metrics.make_scorer`; None of others."""
    if type(scorer) is not type(get_scorer("accuracy")):
        return None
    return scorer._score_func, scorer._sign, scorer._response_method, scorer._kwargs


def with_classes(scorer, classes: np.ndarray):
    """A scorer that knows all classes, of which rows that are held out may lack some, and which is the positive one.

    As in `LogisticRegressionCV`; scores of predicted labels, though, are of the labels that are there, as in searches.
    """
    if (parts := scorer_parts(scorer)) is None:
        return scorer
    function, sign, response_method, known = parts
    takes, told = signature(function).parameters, {}
    if "labels" in takes and response_method != "predict":
        told["labels"] = classes
    # Not a mean over classes, which a score of labels alone can be.
    is_of_one = response_method != "predict" or known.get("average", "binary") == "binary"
    if "pos_label" in takes and len(classes) == 2 and takes["pos_label"].default not in classes.tolist():
        told["pos_label"] = classes[-1] if is_of_one else None
    return make_scorer(function, response_method=response_method, greater_is_better=sign == 1, **(told | known))


def part_of(X, y, parameters: dict, index: np.ndarray) -> tuple:
    """Some rows of what the user passed."""
    X = indexable(as_rows(X) if isinstance(X, Tensor) else X)[0]
    rows = as_rows(X[torch.from_numpy(index).to(X.device)].cpu()) if isinstance(X, Tensor) else _safe_indexing(X, index)
    return rows, _safe_indexing(y, index), _check_method_params(X, parameters, index)
