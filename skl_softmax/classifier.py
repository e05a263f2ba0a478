"""The estimator."""

import warnings
from dataclasses import replace
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skl_softmax import start
from skl_softmax.data import Data, as_tensor, linear, raw, standardised
from skl_softmax.inputs import (
    TrainingRows,
    check_prediction_rows,
    check_training_rows,
    torch_generator,
    unchanged_on_error,
)
from skl_softmax.losses import loss_for
from skl_softmax.objective import Objective
from skl_softmax.small import SmallObjective, is_small
from skl_softmax.solvers import PATIENCE, SOLVERS, SolveResult, SolverOptions, Status, choose_solver, optimality


class TorchSoftmaxClassifier(ClassifierMixin, BaseEstimator):
    r"""Softmax regression: multinomial logistic regression, trained by torch.

    With logits :math:`z_i = W x_i + b`, row weights :math:`s_i` (``sample_weight`` times class weight) and
    :math:`S = \sum_i s_i`, the fit minimises the objective of `sklearn.linear_model.LogisticRegression`,

    .. math::

        F(W, b) = \frac{1}{S} \sum_i s_i \, \ell(y_i, z_i) + \frac{1}{2 C S} \lVert W \rVert_F^2 ,

    where :math:`\ell` is softmax cross-entropy for three or more classes and, for two classes, binary cross-entropy of
    the sigmoid of a single output. The intercept is not penalised.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength of the penalty, > 0; the same number as in ``LogisticRegression``. ``np.inf`` means none.
    fit_intercept : bool, default=True
        Whether to add the intercept b.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, by label; labels that are not named weigh 1. "balanced" weighs each class by
        ``n / (n_classes * count)``. A row's weight is the product of its class's and its ``sample_weight``.
    label_smoothing : float, default=0.0
        Part of every target, 0 to 1, that is spread evenly over the K classes: ``(1 - label_smoothing) y +
        label_smoothing / K``, as in `torch.nn.CrossEntropyLoss`.
    solver : {"auto", "newton", "lbfgs", "sgd"}, default="auto"
        - "newton": Newton's method with a line search; the Hessian of all rows, from 2,000 parameters on conjugate
          gradients on products with it.
        - "lbfgs": limited-memory BFGS in a metric of subsampled curvature. A fit from zero goes over growing samples of
          the rows, so that all rows are needed a few times only, and takes the first steps in float32.
        - "sgd": gradient descent with a constant ``learning_rate``, on all rows at once or on batches.
        - "auto": "newton" for tiny problems and for sparse X, else "lbfgs".

        The first two do not depend on the scale of the features, so raw data converge; the third does.
    tol : float, default=1e-7
        The fit ends when the estimate of :math:`F - F^*`, F* the minimum, is at most ``tol`` times F. For "sgd": when F
        has not fallen by more than ``tol`` times itself in 100 epochs.
    max_iter : int, default=1000
        Upper limit of iterations, or of epochs for "sgd".
    learning_rate : float or "auto", default="auto"
        Step size of "sgd". "auto" is one over a bound of the curvature, with which full-batch descent goes down on data
        of any scale, if slowly.
    batch_size : int or None, default=None
        Rows in a batch of "sgd"; None means all rows.
    warm_start : bool, default=False
        Whether ``fit`` starts from the previous fit's coefficients.
    random_state : int, RandomState instance or None, default=None
        Only for "sgd". An int draws the initial weights that ``torch.nn.Linear`` has after ``torch.manual_seed`` of
        that int, and the order of the batches; None starts at zero and shuffles differently in each fit.
    verbose : int, default=0
        Print the objective at every ``verbose``-th iteration, and what the solver has chosen: samples of rows, float32
        or float64, the model of the curvature and its price.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        W, float32 if X was, else float64.
    intercept_ : ndarray of shape (n_classes,), or (1,) for two classes
        b; zeros without intercept.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had any.
    n_iter_ : ndarray of shape (1,)
        Iterations or epochs.
    n_passes_ : float
        Passes over X that the solver took: values with gradients, Hessian-vector products, and samples by their share.
    loss_curve_ : ndarray of shape (n_iter_ + 1,)
        F of all rows before each iteration on them and, last, F of the result. For "sgd" with batches, the mean over an
        epoch's batches.
    converged_ : bool
        Whether ``optimality_gap_`` is at most ``tol`` times F.
    optimality_gap_ : float
        The estimate of :math:`F - F^*` at the end, from the Newton decrement :math:`\frac12 g^\top H^{-1} g` (H the
        Hessian or the model of it that the solver has) and from what the last steps gained.
    module_ : torch.nn.Linear
        A linear layer that shares the memory of ``coef_`` and ``intercept_``.

    See Also
    --------
    sklearn.linear_model.LogisticRegression : The same model, fitted on the CPU by scipy.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skl_softmax import TorchSoftmaxClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = TorchSoftmaxClassifier().fit(X, y)
    >>> clf.score(X, y)
    0.973...
    >>> clf.converged_
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "C": [Interval(Real, 0, None, closed="right")],
        "fit_intercept": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "label_smoothing": [Interval(Real, 0, 1, closed="both")],
        "solver": [StrOptions({"auto", *SOLVERS})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        C=1.0,
        fit_intercept=True,
        class_weight=None,
        label_smoothing=0.0,
        solver="auto",
        tol=1e-7,
        max_iter=1000,
        learning_rate="auto",
        batch_size=None,
        warm_start=False,
        random_state=None,
        verbose=0,
    ):
        self.C = C
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, coef_init=None, intercept_init=None, classes=None):
        """Fit the model.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training rows. float32 stays float32; other types become float64. Sparse X (CSR; others are converted) is
            never made dense.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels of any kind: strings, numbers, bools. Or, with a column for each class, the probabilities of the
            classes for each row ("soft targets"), which sum to 1 (to 1e-4). A row then counts as one row of each class,
            weighted with its probability.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, >= 0. A row of weight 0 has no influence.
        coef_init : array-like of the shape of ``coef_``, default=None
            Where to start; zeros (or, for "sgd" with a ``random_state``, drawn) if None.
        intercept_init : array-like of the shape of ``intercept_``, default=None
            Where to start; as ``coef_init``.
        classes : array-like of shape (n_classes,), default=None
            All labels, if not only those in ``y``; the labels of the columns of ``y``, if not 0, 1, ...

        Returns
        -------
        self : TorchSoftmaxClassifier
            The fitted estimator.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the fit ended without reaching ``tol``, with the cause, the gap and what to do.
        """
        with unchanged_on_error(self), torch.no_grad():
            rows = check_training_rows(self, X, y, sample_weight, classes)
            generator = torch_generator(self.random_state)
            weight, bias = self._start(rows, coef_init, intercept_init, generator)
            objective = self._objective(rows, standardised(rows.X, self.fit_intercept))
            name = choose_solver(objective) if self.solver == "auto" else self.solver
            solver, options = SOLVERS[name], self._options(generator)
            options.say(f"{name}: {objective.n_rows:,} rows, {objective.n_parameters:,} parameters")
            if solver.affine_invariant:
                minimised, theta = objective, objective.centred(objective.data.to_theta(weight, bias)[None])
            else:
                minimised = self._objective(rows, raw(rows.X, self.fit_intercept))
                theta = minimised.data.to_theta(weight, bias)[None].to(rows.X.dtype)  # (1, K, p)
            result = solver.minimise(minimised, theta, options)
            weight, bias = minimised.data.from_theta(result.theta[0])
            if not solver.affine_invariant:
                result = self._with_optimality(result, objective, weight, bias)
            self._store(rows, weight, bias, result)
        self._warn_unless_converged(result)
        return self

    def decision_function(self, X):
        """Logits: W x + b.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes, that of ``classes_[1]``.
        """
        logits = self._logits(X).numpy()  # (n, K)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, X):
        """Probabilities of the classes: softmax, or sigmoid for two classes, of the logits.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        logits = self._logits(X)  # (n, K)
        return loss_for(logits.shape[1]).proba(logits).numpy()

    def predict_log_proba(self, X):
        """Logarithms of the probabilities of the classes, exact also where a probability underflows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        logits = self._logits(X)  # (n, K)
        return loss_for(logits.shape[1]).log_proba(logits).numpy()

    def predict(self, X):
        """The most probable class.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Elements of ``classes_``.
        """
        logits = self._logits(X)  # (n, K)
        index = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)  # (n,)
        return self.classes_[index.numpy()]

    @property
    def module_(self):
        """A `torch.nn.Linear` that shares the memory of ``coef_`` and ``intercept_``: change one, change both."""
        check_is_fitted(self)
        n_outputs, n_features = self.coef_.shape
        # skip_init, because Linear's own initialisation would draw from torch's global generator.
        module = nn.utils.skip_init(nn.Linear, n_features, n_outputs, bias=self.fit_intercept)
        module.weight = nn.Parameter(torch.from_numpy(np.require(self.coef_, requirements="W")))
        if self.fit_intercept:
            module.bias = nn.Parameter(torch.from_numpy(np.require(self.intercept_, requirements="W")))
        return module

    def _objective(self, rows: TrainingRows, data: Data) -> Objective:
        total = rows.weights.sum()[None]  # (1,)
        kind = SmallObjective if is_small(data, rows.n_outputs) else Objective
        return kind(
            data=data,
            targets=rows.targets.to(data.dtype) if rows.targets.is_floating_point() else rows.targets,
            weights=rows.weights[None].to(data.dtype),
            penalty=1 / (self.C * total),
            n_outputs=rows.n_outputs,
            total=total,
            label_proba=rows.label_proba,
        )

    def _start(self, rows: TrainingRows, coef_init, intercept_init, generator) -> tuple[Tensor, Tensor]:
        if coef_init is not None or intercept_init is not None:
            return start.given(rows, coef_init, intercept_init)
        if self.warm_start and hasattr(self, "coef_"):
            if not np.array_equal(self.classes_, rows.classes):
                raise ValueError(
                    f"warm_start=True continues a fit of the classes {self.classes_}, but y holds {rows.classes}. "
                    "Pass the same classes or set warm_start=False."
                )
            return start.given(rows, self.coef_, self.intercept_)
        if not SOLVERS.get(self.solver, SOLVERS["newton"]).affine_invariant and self.random_state is not None:
            return start.drawn(rows, self.fit_intercept, generator)
        return start.zeros(rows)

    def _options(self, generator) -> SolverOptions:
        said = {"report": self._print_progress, "note": print} if self.verbose else {}
        return SolverOptions(
            tol=self.tol,
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            generator=generator,
            **said,
        )

    def _store(self, rows: TrainingRows, weight: Tensor, bias: Tensor, result: SolveResult) -> None:
        self.classes_ = rows.classes
        self.coef_ = weight.to(rows.X.dtype).numpy()  # (K, d)
        self.intercept_ = bias.to(rows.X.dtype).numpy()  # (K,)
        self.n_iter_ = np.array(result.n_iter, dtype=np.int32)
        self.n_passes_ = float(result.n_passes)
        self.loss_curve_ = np.array(result.loss_curve[0])
        self.optimality_gap_ = result.gap.item()
        self.converged_ = result.status[0] is Status.CONVERGED

    def _logits(self, X) -> Tensor:
        check_is_fitted(self)
        return linear(check_prediction_rows(self, X), as_tensor(self.coef_), as_tensor(self.intercept_))  # (n, K)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _with_optimality(self, result: SolveResult, objective: Objective, weight: Tensor, bias: Tensor) -> SolveResult:
        """Add what a solver that only descends cannot know: F and its gap at the end, on the precise objective."""
        value, gap = optimality(objective, objective.data.to_theta(weight, bias)[None])
        status = result.status[0]
        if gap <= self.tol * value.abs():
            status = Status.CONVERGED
        elif value < objective.separable_below:
            status = Status.SEPARABLE
        return replace(result, gap=gap, status=[status], loss_curve=[[*result.loss_curve[0], value.item()]])

    def _print_progress(self, iteration: int, value: Tensor, gap: Tensor | None) -> None:
        if iteration % self.verbose == 0:
            estimate = "" if gap is None else f"  gap {gap.item():.1e}"
            print(f"Iteration {iteration:4d}/{self.max_iter}  cost {value.item():.6f}{estimate}")

    def _warn_unless_converged(self, result: SolveResult) -> None:
        if self.converged_:
            return
        cause = result.status[0].value.format(**self.get_params(), patience=PATIENCE)
        value, gap = self.loss_curve_[-1], self.optimality_gap_
        warnings.warn(
            f"{type(self).__name__} did not converge: {cause}. The objective is {value:.6g}, by estimate "
            f"{gap:.2g} above its minimum ({gap / abs(value):.1e} of it; tol={self.tol:g}).",
            ConvergenceWarning,
            stacklevel=3,
        )
