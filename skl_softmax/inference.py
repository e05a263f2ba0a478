"""Standard errors of the coefficients."""

import warnings
from math import prod
from numbers import Real
from reprlib import repr as shortened

import numpy as np
import torch
from scipy.stats import norm
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skl_softmax.data import as_tensor, making_on, plain_torch, standardised
from skl_softmax.inputs import check_training_rows, dense_array
from skl_softmax.objective.curvature import hessian, row_slices
from skl_softmax.solver_parameters import penalty_of
from skl_softmax.training import make_objective

# Parameters up to which the Hessian is decomposed: 200 MB.
MOST_PARAMETERS = 5000
# Eigenvalues of the Hessian at unit diagonal below this many rounding errors for each parameter are zero.
ROUNDING_ERRORS = 10
# Entries of the directions in which the likelihood is flat that are no rounding.
FLAT = 1e-6
# A relative gap beyond this says that rows are not those of the fit, whatever its tol.
FOREIGN = 1e-6


class InferenceMixin:
    """What can be said of the coefficients of a maximum-likelihood fit."""

    def summary(self, X, y, sample_weight=None, *, covariance="observed", confidence=0.95, reference=None):
        r"""Standard errors, z, p-values and confidence intervals of the coefficients.

        As in ``MNLogit`` of statsmodels, of how each class differs from a ``reference``: softmax does not change if one
        vector is added to the coefficients of all classes.

        Parameters
        ----------
        X : array-like, sparse matrix or tensor of shape (n_samples, n_features)
            The rows of the fit, which the model does not keep.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Their labels. Columns of probabilities are those of ``classes_``.
        sample_weight : array-like of shape (n_samples,), default=None
            Their weights, which count as repeats of rows.
        covariance : {"observed", "sandwich"}, default="observed"
            :math:`I^{-1}`, or :math:`I^{-1} (\sum_i s_i g_i g_i^\top) I^{-1}` (HC0), which stays right if the model is
            not: White (1982), "Maximum likelihood estimation of misspecified models". :math:`I` is the Hessian of
            :math:`S F`, with the penalty if there is one, and :math:`g_i` the gradient of the loss of row i.
        confidence : float, default=0.95
            Level of the confidence intervals, between 0 and 1.
        reference : label, default=None
            The class that others differ from; the first of ``classes_`` if None.

        Returns
        -------
        table : pandas.DataFrame
            A row for each of the other classes and each of "intercept" (if there is one) and the features; the columns
            are "coef", "std err", "z", "P>|z|" and the ends of the interval, such as "[0.025" and "0.975]".

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        ImportError
            Without pandas.
        TypeError
            For `RowBlocks`.
        ValueError
            If data are separable or do not identify coefficients, which it names, for an L1 penalty, and beyond 5,000
            coefficients. Where only a part is separable, such as a category with rows of one class, coefficients and
            errors end large. Also if ``covariance``, ``confidence`` or ``reference`` is none of those that it may be.

        Warns
        -----
        UserWarning
            If there is a penalty, ``class_weight="balanced"`` or ``label_smoothing``, or if the coefficients are not
            the optimum for these rows.

        Examples
        --------
        >>> from sklearn.datasets import load_breast_cancer
        >>> from skl_softmax import TorchSoftmaxClassifier
        >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
        >>> X = X[["mean radius", "mean texture"]]
        >>> table = TorchSoftmaxClassifier(C=float("inf")).fit(X, y).summary(X, y)
        >>> table[["coef", "std err", "z"]].round(2)
                             coef  std err      z
        class feature
        1     intercept     19.85     1.77  11.19
              mean radius   -1.06     0.10 -10.42
              mean texture  -0.22     0.04  -5.89
        """
        pd = _pandas(f"{type(self).__name__}.summary")
        check_is_fitted(self)
        place = self._check_summary(covariance, confidence, reference)
        with plain_torch():
            rows = check_training_rows(self, X, y, sample_weight, self.classes_, reset=False)
            data = standardised(rows.X, self.fit_intercept)
            objective = make_objective(rows, data, self)
            coefficients = (as_tensor(dense_array(part)) for part in (self.coef_, self.intercept_))
            theta = data.to_theta(*coefficients)[None]  # (1, K, p)
            names = list(getattr(self, "feature_names_in_", [f"x{j}" for j in range(self.n_features_in_)]))
            with making_on(data.home):
                inverse = _inverse_information(objective, theta, names)  # (P, P)
                self._warn_of_summary(objective, theta, inverse)
                if covariance == "sandwich":
                    inverse = inverse @ _scatter(objective, theta) @ inverse
                unit = rows.weights.sum().item() / objective.total.item()  # of the weights in the objective
                coef, errors = _differences(data, theta[0], inverse / unit, place)
        others = np.delete(self.classes_, place)
        labels = [*["intercept"] * data.fit_intercept, *names]
        index = pd.MultiIndex.from_product([others, labels], names=["class", "feature"])
        return pd.DataFrame(_columns(coef, errors, confidence), index=index)

    def _check_summary(self, covariance: str, confidence: float, reference) -> int:
        """The place of the reference among the classes."""
        if covariance not in ("observed", "sandwich"):
            raise ValueError(f"covariance must be 'observed' or 'sandwich', got {covariance!r}.")
        if not (isinstance(confidence, Real) and 0 < confidence < 1):
            raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}.")
        if penalty_of(self).has_l1:
            raise ValueError(
                f"l1_ratio={self.l1_ratio:g}: where an L1 penalty has a say, coefficients have no standard errors. Fit "
                "with C=inf, or with l1_ratio=0."
            )
        n_coefficients = prod(self.coef_.shape)
        if n_coefficients > MOST_PARAMETERS:
            raise ValueError(f"{n_coefficients} coefficients are too many: the Hessian of {MOST_PARAMETERS} is formed.")
        if reference is None:
            return 0
        found = np.flatnonzero(self.classes_ == reference) if np.ndim(reference) == 0 else []
        if not len(found):
            known = shortened(self.classes_.tolist())
            raise ValueError(f"reference={reference!r} is not among the classes {known}.")
        return int(found[0])

    def _warn_of_summary(self, objective, theta: Tensor, inverse: Tensor) -> None:
        if np.isfinite(self.C):
            warnings.warn(
                f"C={self.C:g}: the penalty has drawn the coefficients towards zero, and no error tells how far. "
                "The intervals need not hold the true values as often as they say, and p-values are no tests. Fit with "
                "C=inf for those.",
                UserWarning,
                stacklevel=3,
            )
        changes = {"class_weight": self.class_weight, "label_smoothing": self.label_smoothing}
        for name, given in changes.items():
            if isinstance(given, str) or (name == "label_smoothing" and given):
                warnings.warn(
                    f"{name}={given!r}: what the rows say has been changed, and the errors are not those of the rows. "
                    "Fit without it for intervals and p-values.",
                    UserWarning,
                    stacklevel=3,
                )
        point = objective.at(theta)
        gradient, value = point.gradient.double().flatten(1), point.value.item()  # (1, P)
        gap = 0.5 * (gradient @ inverse @ gradient.T).item() * objective.total.item()
        if gap > max(10 * self.tol, FOREIGN) * value:
            warnings.warn(
                f"The coefficients are not the optimum of these rows: their objective is {gap:.1e} above its minimum "
                f"({gap / value:.1e} of it). Pass the rows and weights of the fit, and fit until it has converged.",
                UserWarning,
                stacklevel=3,
            )


def _pandas(caller: str):
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(f"{caller} requires pandas. You can install pandas with `pip install pandas`") from error
    return pd


def _columns(coef: np.ndarray, errors: np.ndarray, confidence: float) -> dict:
    z, width = coef / errors, norm.ppf((1 + confidence) / 2) * errors
    low, high = (1 - confidence) / 2, (1 + confidence) / 2
    return {
        "coef": coef,
        "std err": errors,
        "z": z,
        "P>|z|": 2 * norm.sf(np.abs(z)),
        f"[{low:.6g}": coef - width,
        f"{high:.6g}]": coef + width,
    }


def _inverse_information(objective, theta: Tensor, names: list[str]) -> Tensor:
    """(S H)⁻¹, (P, P), in the objective's coordinates, where along 1 ⊗ v H is made up (`curvature.hessian`)."""
    if (objective.at(theta).value < objective.separable_below).any():
        raise ValueError(
            "The data are separable: without a penalty the coefficients grow without end and have no errors. "
            "Look for features that give the class away."
        )
    values, vectors, sizes, flat = _decomposed(objective, theta)
    if flat.any():
        _refuse_other_rows(objective, theta)
        directions = (vectors[:, flat] / sizes[:, None]).T.reshape(-1, *theta.shape[1:])  # (flat, K, p)
        named, is_held = _named(directions, objective.data, names), bool((objective.l2 > 0).all())  # by next to nothing
        to_rounding, better = ("to rounding, ", "lower C") if is_held else ("", "set a finite C")
        if not is_held and not _decomposed(objective, torch.zeros_like(theta))[-1].any():
            raise ValueError(
                f"Some rows can be told apart for certain, or a class has none: the coefficients of {named} grow "
                f"without end, and have no errors. Look for features that give classes away, or {better}."
            )
        raise ValueError(
            f"The data do not identify the coefficients of {named}: {to_rounding}other values fit as well. Leave out "
            f"features that are constant or follow from others, or {better}."
        )
    root = vectors / values.sqrt() / sizes[:, None]  # (P, P)
    return root @ root.T / objective.total


def _decomposed(objective, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the Hessian at θ, scaled to unit diagonal, eigenvalues (P,), vectors (P, P), scales and which are 0 (P,)."""
    (matrix,) = hessian(objective, theta)  # (P, P)
    diagonal = matrix.diagonal()  # (P,)
    sizes = torch.where(diagonal > 0, diagonal, 1.0).sqrt()  # (P,)
    values, vectors = torch.linalg.eigh(matrix / sizes / sizes[:, None])  # (P,), (P, P)
    return values, vectors, sizes, values <= ROUNDING_ERRORS * len(values) * torch.finfo(values.dtype).eps


def _refuse_other_rows(objective, theta: Tensor) -> None:
    """Refuse coefficients that are worse than none: rows in other units may be told apart on the wrong side."""
    value, of_none = (objective.at(at).value.item() for at in (theta, torch.zeros_like(theta)))
    if value > of_none:
        raise ValueError(
            f"The coefficients are not those of these rows: the objective is {value:.2g}, and {of_none:.2g} with zeros "
            "in their place. Pass the rows of the fit, in the same units."
        )


def _named(directions: Tensor, data, names: list[str]) -> str:
    """What moves along these directions (m, K, p)."""
    directions = directions / directions.abs().amax(dim=(1, 2), keepdim=True)
    moves = (directions.abs().amax(dim=(0, 1)) > FLAT).tolist()  # (p,)
    found = [repr(str(name)) for name, moved in zip(names, moves, strict=False) if moved]
    bias = data.from_theta(directions)[1]  # (m, K)
    return ", ".join(found + ["the intercept"] * bool((bias.abs() > FLAT).any()))


def _scatter(objective, theta: Tensor) -> Tensor:
    """Σ s_i g_i g_iᵀ (P, P) over the rows, g_i the gradient of the loss of a row."""
    data, n_outputs, n_parameters = objective.data, theta.shape[1], theta[0].numel()
    affine, total = data.affine(theta[0]), theta.new_zeros(n_parameters, n_parameters)
    for block, targets, weights, _ in objective.portions(n_outputs):
        logits = block.logits(affine).view(-1, 1, n_outputs, block.parts[1])  # (parts, 1, K, part)
        residual = objective.loss.value_and_residual(logits, targets)[1][:, 0].mT.flatten(0, 1)  # (rows, K)
        roots = objective.gathered(weights[:, 0, 0].flatten()).sqrt()  # (rows,)
        residual = objective.gathered(residual) * roots[:, None]  # (rows, K)
        for part in row_slices(len(residual), n_parameters):
            design = data.design(
                slice(block.rows.start + part.start, min(block.rows.start + part.stop, block.rows.stop))
            )
            scores = (residual[part, :, None] * design[:, None]).flatten(1)  # (part, P)
            total += scores.T @ scores
    return total


def _differences(data, theta: Tensor, covariance: Tensor, place: int) -> tuple[np.ndarray, np.ndarray]:
    """How the classes differ from the one at ``place``, as (b, w) of X as the user gave it, with standard errors.

    From θ (K, p) and its covariance (P, P); both results are ((K - 1) p,).
    """
    contrast, to_user = _contrasts(len(theta), place), _to_user(data)  # (K - 1, K), (p, p)
    linear = torch.kron(contrast, to_user.T.contiguous())  # ((K - 1) p, P)
    errors = (linear @ covariance * linear).sum(dim=1).sqrt()  # ((K - 1) p,)
    return (contrast @ theta @ to_user).flatten().cpu().numpy(), errors.cpu().numpy()


def _contrasts(n_outputs: int, place: int) -> Tensor:
    """The matrix (K - 1, outputs) that takes what belongs to the outputs to differences from the class at ``place``."""
    if n_outputs == 1:
        return torch.tensor([[1.0 if place == 0 else -1.0]], dtype=torch.float64)
    identity = torch.eye(n_outputs, dtype=torch.float64)
    return torch.cat([identity[:place], identity[place + 1 :]]) - identity[place]


def _to_user(data) -> Tensor:
    """The matrix (p, p) by which a row θ_k becomes (b_k, w_k)."""
    weight, bias = data.from_theta(torch.eye(data.n_columns, dtype=torch.float64))  # (p, d), (p,)
    return torch.cat([bias[:, None], weight], dim=1) if data.fit_intercept else weight
