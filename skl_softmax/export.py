"""A fitted model as a torch module or as scikit-learn's `LogisticRegression`, and back."""

from copy import copy
from reprlib import repr as shortened

import numpy as np
import torch
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skl_softmax.data import widened
from skl_softmax.inputs import as_arrays, dense_array
from skl_softmax.targets import as_classes

# Parameters that mean the same in `LogisticRegression`.
SHARED = ("C", "l1_ratio", "fit_intercept", "class_weight", "warm_start", "random_state")
# What other estimators, and `LogisticRegression` of old, name the penalty that l1_ratio and C stand for.
PENALTIES = {"l2": {"l1_ratio": 0.0}, "l1": {"l1_ratio": 1.0}, None: {"l1_ratio": 0.0, "C": np.inf}}
# How far probabilities of two models that are the same may be apart: float32 loses 1e-3 where an intercept is 1e4.
SAME_PROBA = 0.01


class ExportMixin:
    """What an estimator with ``classes_``, ``coef_`` and ``intercept_`` can be turned into, and made from."""

    @property
    def module_(self):
        """A `torch.nn.Linear` that shares the memory of ``coef_`` and ``intercept_``: change one, change both.

        After `sparsify`, a copy. Each time another module: keep the one in whose ``.grad`` gradients are to be found.
        """
        check_is_fitted(self)
        n_outputs, n_features = self.coef_.shape
        # skip_init, because Linear's own initialisation would draw from torch's global generator.
        has_bias = self.fit_intercept or bool(self.intercept_.any())  # it may have been fitted with one
        module = nn.utils.skip_init(nn.Linear, n_features, n_outputs, bias=has_bias)
        module.weight = nn.Parameter(torch.from_numpy(np.require(dense_array(self.coef_), requirements="W")))
        if has_bias:
            module.bias = nn.Parameter(torch.from_numpy(np.require(dense_array(self.intercept_), requirements="W")))
        return module

    def to_torch(self, share=True):
        """The model as a module that gives probabilities.

        Parameters
        ----------
        share : bool, default=True
            Whether its parameters share the memory of ``coef_`` and ``intercept_``; else they are copies, which
            training does not write back.

        Returns
        -------
        module : torch.nn.Sequential
            A linear layer and softmax over its outputs, or the sigmoid of its one output: then the probability
            (n, 1) of ``classes_[1]``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.

        Examples
        --------
        >>> import torch
        >>> from sklearn.datasets import load_iris
        >>> from skl_softmax import TorchSoftmaxClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> module = TorchSoftmaxClassifier().fit(X, y).to_torch()
        >>> module(torch.from_numpy(X[:1])).argmax().item()
        0
        """
        linear = self.module_
        if not share:
            linear.load_state_dict({name: tensor.clone() for name, tensor in linear.state_dict().items()}, assign=True)
        return nn.Sequential(linear, nn.Sigmoid() if linear.out_features == 1 else nn.Softmax(dim=1))

    @classmethod
    def from_torch(cls, linear, classes):
        """A fitted estimator with the parameters of a linear layer, copied.

        Parameters
        ----------
        linear : torch.nn.Linear or torch.nn.Sequential
            An output for each class, or one for two classes; or what `to_torch` gives, such a layer with a softmax or a
            sigmoid behind it. Of two outputs the difference counts.
        classes : array-like of shape (n_classes,)
            Their labels, in the order of the outputs; for one output, that for which it is positive comes last.

        Returns
        -------
        estimator : object of this class
            The estimator.

        Raises
        ------
        TypeError
            If ``linear`` is no linear layer, or has other things behind it than what makes probabilities of the classes
            of its outputs.
        ValueError
            If ``classes`` names a label twice or lacks one, mixes numbers and strings, has fractions, or is not as many
            as the layer has outputs for; if weights are complex, NaN or infinite.
        """
        linear, classes = _only_layer(linear), as_classes(classes)
        if classes.dtype.kind == "f" and (classes != np.floor(classes)).any():
            raise ValueError(f"classes must be labels, without fractions, got {shortened(classes.tolist())}.")
        if len(classes) < 2 or len(np.unique(classes)) != len(classes):
            raise ValueError(f"classes must be two or more different labels, got {shortened(classes.tolist())}.")
        if linear.out_features != len(classes) and (linear.out_features, len(classes)) != (1, 2):
            raise ValueError(
                f"classes names {len(classes)} labels, for which the layer would have as many outputs (or one for two "
                f"classes), but it has {linear.out_features}."
            )
        if not all(part.isreal().all() and part.isfinite().all() for part in linear.parameters()):
            raise ValueError("The layer's weights must be real numbers, none of them NaN or infinite.")
        weight = linear.weight.detach().cpu()
        bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach().cpu()
        wide = [tensor.to(widened(tensor.dtype)) for tensor in (weight, bias)]
        arrays = [(tensor.diff(dim=0) if len(weight) == 2 else tensor).numpy().copy() for tensor in wide]
        return cls._fitted(classes, *arrays, fit_intercept=linear.bias is not None)

    def to_sklearn(self):
        """A fitted `sklearn.linear_model.LogisticRegression` with equal predictions.

        Returns
        -------
        model : LogisticRegression
            With copies of the coefficients, and ``C``, ``l1_ratio``, ``fit_intercept``, ``class_weight``,
            ``warm_start`` and ``random_state``, or what was chosen of these.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        """
        check_is_fitted(self)
        shared = {name: value for name, value in self.get_params().items() if name in SHARED} | _chosen(self)
        model = LogisticRegression(solver="saga" if shared.get("l1_ratio", 0.0) > 0 else "lbfgs", **shared)
        model.classes_, model.coef_ = self.classes_.copy(), dense_array(self.coef_).copy()
        model.intercept_ = dense_array(self.intercept_).copy()
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                setattr(model, name, getattr(self, name))
        return model

    @classmethod
    def from_sklearn(cls, model):
        """A fitted estimator with the coefficients of a `LogisticRegression`, copied, and equal predictions.

        Parameters
        ----------
        model : LogisticRegression
            A fitted one, or any linear classifier whose probabilities are the softmax, or for two classes the sigmoid,
            of its logits, such as `LinearDiscriminantAnalysis`.

        Returns
        -------
        estimator : object of this class
            The estimator, with those of the model's ``C``, ``l1_ratio``, ``fit_intercept``, ``class_weight``,
            ``warm_start`` and ``random_state`` that it has.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        TypeError
            If it has no ``coef_`` or no probabilities, or if these are not the softmax, for two classes the sigmoid, of
            its logits.
        """
        check_is_fitted(model)
        _refuse_other_models(model)
        found = model.get_params() | _chosen(model)
        found |= PENALTIES.get(found.get("penalty", "elasticnet"), {})
        found["l1_ratio"] = found.get("l1_ratio") or 0.0  # old versions called none None
        parameters = {name: found[name] for name in SHARED if name in found and name in cls._get_param_names()}
        classes, coef, intercept = as_arrays(model.classes_), dense_array(model.coef_), as_arrays(model.intercept_)
        estimator = cls._fitted(classes.copy(), coef.copy(), np.array(intercept, ndmin=1), **parameters)
        _refuse_other_probabilities(model, estimator)
        if hasattr(model, "feature_names_in_"):
            estimator.feature_names_in_ = model.feature_names_in_.copy()
        return estimator

    @classmethod
    def _fitted(cls, classes: np.ndarray, coef: np.ndarray, intercept: np.ndarray, **parameters):
        order = np.argsort(classes)
        if len(classes) > 2:
            coef, intercept = coef[order], intercept[order]
        elif order[0] == 1:  # the one output is the last class's
            coef, intercept = -coef, -intercept
        estimator = cls(**parameters)
        estimator.classes_, estimator.coef_, estimator.intercept_ = classes[order], coef, intercept.astype(coef.dtype)
        estimator.n_features_in_ = coef.shape[1]
        return estimator


def _only_layer(module) -> nn.Linear:
    """The linear layer that a module is, but for what makes probabilities of its outputs."""
    first, *rest = module if isinstance(module, nn.Sequential) and len(module) else [module]
    if not isinstance(first, nn.Linear) or len(rest) > 1 or not all(_ends(layer, first) for layer in rest):
        raise TypeError(
            "from_torch takes a torch.nn.Linear, alone or in a torch.nn.Sequential with Sigmoid behind its one output, "
            f"or Softmax or LogSoftmax over several (dim=1), not {module!r}."
        )
    return first


def _ends(layer: nn.Module, linear: nn.Linear) -> bool:
    """Whether a layer makes probabilities, or their logarithms, of each row's outputs, which say of which classes."""
    if linear.out_features == 1:
        return isinstance(layer, nn.Sigmoid)
    return isinstance(layer, (nn.Softmax, nn.LogSoftmax)) and layer.dim in (None, 1, -1)


def _refuse_other_models(model) -> None:
    """Refuse what is no linear classifier, or has no probabilities."""
    if not all(hasattr(model, name) for name in ("classes_", "coef_", "intercept_")):
        raise TypeError(
            f"from_sklearn takes a linear classifier, with classes_, coef_ and intercept_, not {type(model).__name__}. "
            "Of a pipeline or a search pass the fitted classifier in it."
        )
    if not hasattr(model, "predict_proba"):
        raise TypeError(f"{model!r} has no probabilities: from_sklearn takes models that are fitted for them.")


def _refuse_other_probabilities(model, estimator) -> None:
    """Refuse a model whose probabilities are not those of its logits, such as those of each class against the rest."""
    nameless = copy(model)
    vars(nameless).pop("feature_names_in_", None)  # else it warns that the rows have none
    weight, bias = dense_array(estimator.coef_), dense_array(estimator.intercept_)[:, None]
    sizes = np.linalg.norm(weight, axis=1, keepdims=True)
    sizes[sizes == 0] = np.inf
    units = weight / sizes  # (K, d), and in `rows` those of which the logit of one class is -2 or 1
    rows = np.vstack([units * ((logit - bias) / sizes) for logit in (-2, 1)] + [np.zeros_like(units[:1])])
    for name in ("classes_", "coef_", "intercept_"):  # with array API dispatch they may be tensors
        setattr(nameless, name, as_arrays(getattr(model, name)))
    with config_context(array_api_dispatch=False):
        theirs, ours = nameless.predict_proba(rows)[:, np.argsort(nameless.classes_)], estimator.predict_proba(rows)
    if not np.allclose(theirs, ours, atol=SAME_PROBA):
        raise TypeError(
            f"The probabilities of {model!r} are not the softmax, or for two classes the sigmoid, of its logits, and "
            f"{type(estimator).__name__} has no others."
        )


def _chosen(model) -> dict[str, float]:
    """The penalty that cross-validation has chosen, where it is one for all classes."""
    found = {name: set(np.ravel(getattr(model, f"{name}_", [])).tolist()) for name in ("C", "l1_ratio")}
    single = {name: values.pop() for name, values in found.items() if len(values) == 1}
    return {name: value for name, value in single.items() if isinstance(value, float)}
