"""The estimator."""

from numbers import Integral, Real
from typing import ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from torch import Tensor

from skl_softmax import start
from skl_softmax.blocks import place_blocks
from skl_softmax.data import RowBlocks, plain_torch
from skl_softmax.export import ExportMixin
from skl_softmax.inference import InferenceMixin
from skl_softmax.inputs import (
    TrainingRows,
    as_arrays,
    check_batch,
    check_training_rows,
    dense_array,
    torch_generator,
    with_signature,
)
from skl_softmax.predictor import LinearPredictor
from skl_softmax.solver_parameters import check_solver, draws, has_partial_fit, penalty_of, uses_optimizer
from skl_softmax.solvers import SCHEDULES, SOLVERS, SolveResult, Status
from skl_softmax.state import follow, forget_fit, unchanged_on_error
from skl_softmax.stream import Stream
from skl_softmax.training import (
    Problem,
    make_batch_problem,
    make_placed_problem,
    make_problem,
    refuse_divergence,
    solved,
    warn_unless_converged,
)
from skl_softmax.watch import Callbacks, EarlyStopping, FitTasks, Printer, Watch, hold_out


class TorchSoftmaxClassifier(CallbackSupportMixin, ExportMixin, InferenceMixin, LinearPredictor, BaseEstimator):
    r"""Softmax regression: multinomial logistic regression, trained by torch.

    With logits :math:`z_i = W x_i + b`, row weights :math:`s_i` (``sample_weight`` times class weight) and
    :math:`S = \sum_i s_i`, the fit minimises the objective of `sklearn.linear_model.LogisticRegression`,

    .. math::

        F(W, b) = \frac{1}{S} \sum_i s_i \, \ell(y_i, z_i)
            + \frac{1}{C S} \left( \frac{1 - \rho}{2} \lVert W \rVert_F^2 + \rho \lVert W \rVert_1 \right),
            \qquad \rho = \mathtt{l1\_ratio},

    where :math:`\ell` is softmax cross-entropy for three or more classes and, for two classes, binary cross-entropy of
    the sigmoid of a single output. The intercept is not penalised.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength of the penalty, > 0; the same number as in ``LogisticRegression``. ``np.inf`` means none.
    l1_ratio : float, default=0.0
        Fraction of the L1 norm in the penalty, 0 to 1. With any of it, coefficients that do not help are exactly zero;
        1 is the lasso's penalty, what lies between is called elastic net.
    fit_intercept : bool, default=True
        Whether to add the intercept b.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, by label; labels that are not named weigh 1. "balanced" weighs each class by
        ``n / (n_classes * count)``, where n and count are sums of weights. A row's weight is the product of its class's
        and its ``sample_weight``.
    label_smoothing : float, default=0.0
        Fraction of every target, 0 to 1, that is spread evenly over the K classes: ``(1 - label_smoothing) y +
        label_smoothing / K``, as in `torch.nn.CrossEntropyLoss`. With ``class_weight`` each class's part of a target
        has its weight, as there; the row's is their sum.
    solver : {"auto", "newton", "lbfgs", "proximal", "sgd", "adam"} or class, default="auto"
        - "newton": Newton's method with a line search; the Hessian of all rows, in float32 where that will do, from
          2,000 parameters on, and for sparse X where that is quicker, conjugate gradients on products with it.
        - "lbfgs": limited-memory BFGS in a metric of subsampled curvature. A fit from zero goes over growing samples of
          the rows, so that all rows are needed a few times only, and goes in float32 where that is quicker and for as
          long as it is exact enough. After 300 iterations Newton's method goes on.
        - "proximal": proximal Newton on working sets, for any ``l1_ratio`` and finite ``C``; the only one for
          ``l1_ratio`` > 0.
        - "sgd", "adam": the optimisers `torch.optim.SGD` and `torch.optim.Adam`, on all rows at once or on batches.
          These have ``partial_fit``.
        - any class of `torch.optim.Optimizer`, likewise, but for Muon and SparseAdam. Other options than ``lr`` are
          given in a subclass whose ``__init__(self, params, lr=...)`` passes them on.
        - "auto": "proximal" if ``l1_ratio`` > 0 and ``C`` is finite; "newton" for small tables and for sparse X of many
          columns, if most of these are no one-hot categories; else "lbfgs".

        The first three do not depend on the scale of the features, so raw data converge. Nor do the optimisers on dense
        X if their rate is "auto": they then work on normalised columns and put the result in the units of X. Sparse X
        is taken as it is: scale it.
    tol : float, default=1e-7
        The fit ends when the estimate of :math:`F - F^*`, F* the minimum, is at most ``tol`` times F; coefficients
        are then right to about the root of ``tol``, some nine digits with 1e-18. For optimisers: when the mean F of the
        last ``n_iter_no_change`` epochs is not below that of as many before by more than ``tol`` of itself. With
        ``early_stopping`` also when the validation score has not risen by more than ``tol`` of itself for
        ``n_iter_no_change`` iterations.
    max_iter : int, default=1000
        Upper limit of iterations, or of epochs.
    learning_rate : float, "auto" or the name of a schedule, default="auto"
        Step size of the optimisers, the same all the time. "auto" is one over a bound of the curvature for "sgd", with
        which full-batch descent goes down on data of any scale, 0.02 for "adam" and torch's default for others. Or a
        schedule that starts at ``learning_rate_init``: "constant"; "invscaling", divided by the root of 1 + epochs;
        "adaptive", divided by 5 where else the fit would end (``tol``), until it is 1e-6 of the first, and constant in
        ``partial_fit``; "cosine" and "one-cycle", those of torch over ``max_iter`` epochs, not in ``partial_fit``.
    learning_rate_init : float or "auto", default="auto"
        Where a schedule begins ("one-cycle": the largest rate). No effect without one, that is, where
        ``learning_rate`` is a number or "auto".
    momentum : float, default=0.0
        Momentum of "sgd". This and the other parameters of optimisers, ``learning_rate`` to ``average``, have no effect
        on other solvers.
    batch_size : int, "auto" or None, default=None
        Rows in a batch of the optimisers; "auto" means 256, None all rows.
    shuffle : bool, default=True
        Whether batches are drawn anew for each epoch, or go through the rows in their order.
    average : bool, default=False
        Whether the result of an optimiser is the mean over all its updates.
    early_stopping : bool, default=False
        Whether to hold out rows, score each iterate by its mean log loss on them, end the fit when the score has not
        risen for ``n_iter_no_change`` iterations or epochs, and return the iterate with the best score, up to ``tol``.
        The rows that were held out are not fitted afterwards.
    validation_fraction : float, default=0.1
        Fraction of the rows, of each class the same, that ``early_stopping`` holds out.
    n_iter_no_change : int, default=10
        Iterations or epochs without a better score after which early stopping ends. Optimisers compare the means of
        this many epochs and of as many before, so that they run at least twice as many: with ``max_iter`` exactly so
        many.
    warm_start : bool, default=False
        Whether ``fit`` starts from the previous fit's coefficients, matched by class label and, between data frames, by
        name of the feature; new ones start at zero. Optimisers also go on with their state if neither has changed.
    device : str, torch.device or None, default=None
        Where to compute: "cpu", "cuda", ...; "auto" for an accelerator if there is one; None where X is. Sparse X is
        computed on the CPU. A device without float64 ("mps") has products in float32, which may end a fit at a gap
        above ``tol``.
    random_state : int, RandomState instance or None, default=None
        Only for the optimisers and ``early_stopping``. An int fixes the order of the batches, the rows that are held
        out and, if the learning rate or that of a schedule is a number, initial weights: those that
        ``torch.nn.Linear`` has after ``torch.manual_seed`` of that int. None starts at zero and draws differently in
        each fit.
    verbose : int, default=0
        Print the cost (F), the accuracy and, where known, the gap and the validation score at every ``verbose``-th
        iteration or epoch, and what the solver has chosen: samples of rows, float32 or float64, the model of the
        curvature and its price. The cost of an epoch is that before its updates, in the mean over its batches, the
        accuracy that after them.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        W, float64 if X was, float32 if it had less, where that holds it as near to the optimum as ``tol`` asks for.
    intercept_ : ndarray of shape (n_classes,), or (1,) for two classes
        b; zeros without intercept.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X had any.
    n_iter_ : ndarray of shape (1,)
        Iterations or epochs.
    n_passes_ : float
        Passes over X that the solver took: one for each value with its gradient and each Hessian-vector product, half
        of one for logits alone; samples count by their share of the rows, Hessians do not. Summed over the calls of
        ``partial_fit``; nan after Ctrl-C.
    loss_curve_ : ndarray of shape (`n_iter_` + 1,)
        The objective F of all rows before each iteration on them and, last, of the result; with batches an epoch's mean
        over them. After Ctrl-C optimisers lack the last. Each call of ``partial_fit`` adds a mean over its batches.
        With ``early_stopping`` of the rows that were not held out.
    seconds_curve_ : list of float
        Seconds from when the rows were checked to each point of ``loss_curve_``; only after ``fit``.
    validation_scores_ : list of float
        Minus the mean log loss of the held-out rows at each iterate, if ``early_stopping``.
    best_iteration_ : int
        Index of the score of the result: the last one that was above the best before it by more than ``tol`` of itself.
        After Ctrl-C that of the best, while coefficients are those of the last.
    converged_ : bool
        Whether ``optimality_gap_`` is at most ``tol`` times F; False after ``partial_fit``.
    optimality_gap_ : float
        Estimate of :math:`F - F^*` at the end, from the Newton decrement :math:`\frac12 g^\top H^{-1} g` (H the Hessian
        or the solver's model of it) and from what the last steps gained; where these are not reliable, a bound by
        duality, by the curvature of the penalty, or F itself. Of "proximal", unless it was stopped, the duality gap,
        which :math:`F - F^*` does not exceed but for rounding. At most F; nan after ``partial_fit``, and of optimisers
        after Ctrl-C.
    module_ : torch.nn.Linear
        A linear layer that shares the memory of ``coef_`` and ``intercept_``.

    See Also
    --------
    TorchSoftmaxClassifierCV : Chooses C by cross-validation.
    RowBlocks : Rows that are larger than memory.
    skl_softmax.dask.DaskTorchSoftmaxClassifier : The same model of rows on a cluster.
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
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        "fit_intercept": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "label_smoothing": [Interval(Real, 0, 1, closed="both")],
        "solver": [StrOptions({"auto", *SOLVERS}), callable],
        "tol": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto", *SCHEDULES})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        "shuffle": ["boolean"],
        "average": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str, torch.device, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    @with_signature
    def __init__(
        self,
        *,
        C=1.0,
        l1_ratio=0.0,
        fit_intercept=True,
        class_weight=None,
        label_smoothing=0.0,
        solver="auto",
        tol=1e-7,
        max_iter=1000,
        learning_rate="auto",
        learning_rate_init="auto",
        momentum=0.0,
        batch_size=None,
        shuffle=True,
        average=False,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        device=None,
        random_state=None,
        verbose=0,
    ):
        self.C = C
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.average = average
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, coef_init=None, intercept_init=None, classes=None):
        """Fit the model.

        Parameters
        ----------
        X : array-like, sparse matrix, tensor or RowBlocks of shape (n_samples, n_features)
            Training rows. float32, and half precision of arrays and tensors, stay as they are; other types become
            float64, as do frames of extension types, of several that float32 does not hold, and those of other
            libraries than pandas. Sparse X (CSR; others are converted) is made dense only where that takes no more
            memory than X or 256 kB. `RowBlocks` need not fit into memory, and hold their labels.
        y : array-like of shape (n_samples,) or (n_samples, n_classes), default=None
            Labels: strings, numbers or bools; left out only for `RowBlocks`. Or, with a column for each class, the
            probabilities of the classes for each row ("soft targets"), which sum to 1 (to 1e-4). A row then counts as
            one row of each class, weighted with its probability. Labels of the columns go into ``classes``; a frame
            whose columns name them in another order is refused.
        sample_weight : array-like of shape (n_samples,) or float, default=None
            Weights of the rows, >= 0. A row of weight 0 has no influence.
        coef_init, intercept_init : array-like of the shapes of ``coef_`` and ``intercept_``, default=None
            Where to start; zeros, or as ``random_state`` says, if None. Solvers that are no optimisers start from zeros
            where the objective is lower there.
        classes : array-like of shape (n_classes,), default=None
            All labels, if not only those in ``y``; the labels of the columns of ``y``, if not 0, 1, ... In any order:
            ``classes_`` and columns of predictions are sorted. A class that no row is of has no part in a fit of rows
            in memory, but by an optimiser: beside an intercept, two others and labels that are not smoothed it has
            coefficients of zero and next to no probability, without an L1 penalty 2e-16 at most.

        Returns
        -------
        self : TorchSoftmaxClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter has a value that it may not have, if parameters do not go together, or if X, ``y``, weights
            or starts cannot be fitted: the message names the parameter, or the row, and says what is expected.
        TypeError
            If ``solver`` is a class of no optimiser, X a tensor of a layout other than dense, CSR and COO, or ``y``
            sparse.
        MemoryError
            With what was wanted, and what to change.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the fit ended without reaching ``tol``, with the cause, the gap and what to do; not where early stopping
            or a callback ended it.

        Notes
        -----
        Callbacks (``set_callbacks``) are told of every iteration or epoch, and one that asks for an end gets it. A call
        that raises leaves the estimator as it was, but for Ctrl-C, which leaves the last completed iteration. That, or
        one that a callback has saved, goes on with ``warm_start``: optimisers bit for bit, unless batches are shuffled
        or a schedule counts ``max_iter``, the other solvers to the same optimum.
        """
        check_solver(self)
        call = {"X": X, "y": y, "metadata": None if sample_weight is None else {"sample_weight": sample_weight}}
        tasks = FitTasks(self, "epoch" if uses_optimizer(self) else "iteration", self.max_iter, call)
        with unchanged_on_error(self) as keep, plain_torch():
            known = forget_fit(self)
            placed = place_blocks(self, X, y, sample_weight, classes) if isinstance(X, RowBlocks) else None
            is_lazy = not self.early_stopping
            rows = placed.sample if placed else check_training_rows(self, X, y, sample_weight, classes, is_lazy=is_lazy)
            generator = torch_generator(self.random_state) if draws(self) else None
            begin = start.begin(self, rows, (coef_init, intercept_init), generator, known)  # draws first
            watch, rows = self._watch(rows, generator, tasks)
            stream = self._stream_of(known, rows) if self.warm_start else None
            self._seen = placed.total.total_weight if placed else rows.weights.sum().item()  # for partial_fit
            if placed:
                problem = make_placed_problem(self, placed, begin, watch)
            else:
                problem = make_problem(self, rows, begin, generator, watch, stream)
            result = self._solve(problem, rows, watch, keep)
            self._store_stream(problem, result)
            follow(self, X)
            tasks.finish(keep)
            warn_unless_converged(self, result)
        return self

    @available_if(has_partial_fit)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Go once over a batch of a stream of rows, where the last call has left off.

        The optimiser's state goes on from call to call, and the penalty is that of ``fit`` on all rows so far, also
        those of a ``fit`` before, so that ``C`` means the same. What ``learning_rate="auto"`` needs to know, the scale
        of the columns, it takes from the first batch, dense or sparse, whose rows differ; where one kind follows the
        other, momentum begins anew. Callbacks are not told; ``tol``, ``max_iter`` and ``verbose`` have no effect.

        Parameters
        ----------
        X : array-like, sparse matrix or tensor of shape (n_samples, n_features)
            The batch. It is itself taken in batches of ``batch_size``.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels or probabilities of the classes, as in ``fit``.
        classes : array-like of shape (n_classes,), default=None
            All labels that may come. Needed in the first call, unless ``y`` has a column for each. Columns of ``y`` are
            in this order or, where it is not given, in that of ``classes_``.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, >= 0.

        Returns
        -------
        self : TorchSoftmaxClassifier
            The estimator, fitted so far.

        Raises
        ------
        ValueError
            As of ``fit``, or if ``classes`` are missing or others than before, or if this batch takes parameters beyond
            what floats hold. Also for ``class_weight="balanced"``, ``early_stopping`` and the schedules "cosine" and
            "one-cycle".
        TypeError
            As of ``fit``, or if X is `RowBlocks`: pass them one by one.
        AttributeError
            If ``solver`` is no optimiser, as "auto" is none: set ``solver="sgd"``.
        MemoryError
            As of ``fit``.
        """
        self._validate_params()  # in each call, as they may have been set since the first
        check_solver(self)
        with unchanged_on_error(self), plain_torch():
            known = dict(vars(self))
            rows = check_batch(self, X, y, classes, sample_weight)
            generator = torch_generator(self.random_state)
            stream, seen = self._stream_of(known, rows), known.get("_seen", 0.0)
            stream = Stream(self, rows) if stream is None else stream.over(rows)
            so_far = (dense_array(self.coef_), self.intercept_) if "coef_" in known else (None, None)
            begin = start.begin(self, rows, so_far, generator, known)
            problem = make_batch_problem(self, rows, begin, generator, stream, seen)
            result = solved(problem.minimise, rows)
            refuse_divergence(result)
            curve = np.append(as_arrays(known.get("loss_curve_", [])), result.loss_curve[0])
            self._store(rows, *problem.coefficients(result, rows.dtype))
            self.loss_curve_, self.n_iter_ = curve, self.n_iter_ + as_arrays(known.get("n_iter_", 0))
            self.n_passes_ += known.get("n_passes_", 0.0)
            self._store_records(None)
            self._store_stream(problem, result)
            self._seen = seen + rows.weights.sum().item()
            follow(self, X)
        return self

    def _stream_of(self, known: dict, rows: TrainingRows) -> Stream | None:
        """What an earlier call has left for the same classes, features and optimiser."""
        stream = known.get("_stream")
        names = (known.get("feature_names_in_"), getattr(self, "feature_names_in_", None))
        same = stream is not None and np.array_equal(known["classes_"], rows.classes) and np.array_equal(*names)
        return stream if same and stream.goes_on(self, rows) else None

    def _store_stream(self, problem: Problem, result: SolveResult) -> None:
        vars(self).pop("_stream", None)
        if problem.stream is not None:
            self._stream = problem.stream_after(result.memory)

    def _watch(self, rows: TrainingRows, generator, tasks: FitTasks) -> tuple[Watch, TrainingRows]:
        """What looks on at the fit, and the rows that are left to fit."""
        looks, scores, unit = [], (), "Epoch" if uses_optimizer(self) else "Iteration"
        if self.early_stopping:
            rows, held_out = hold_out(rows, self.validation_fraction, generator)
            looks.append(EarlyStopping(held_out, self.tol, self.n_iter_no_change))
            scores = looks[0].scores
        if self.verbose:
            looks.append(Printer(rows, self.verbose, self.max_iter, unit, scores))
        return Watch(looks + self._callbacks(rows, tasks, uses_optimizer(self))), rows

    def _callbacks(self, rows: TrainingRows, tasks: FitTasks, is_after: bool) -> list[Callbacks]:
        attributes = lambda watch: self._attributes(rows, *watch.stored(rows.dtype))  # noqa: E731
        return [Callbacks(tasks, attributes, is_after)] if tasks.are_looked_on else []

    def _solve(self, problem: Problem, rows: TrainingRows, watch: Watch, keep) -> SolveResult:
        """Minimise, and store where that ends or, interrupted, has come to."""
        watch.problem = problem
        try:
            result = solved(lambda: problem.solve(watch.best), rows)
        except KeyboardInterrupt:
            if watch.last is not None:
                self._store_interrupted(rows, watch)
                keep()
            raise
        finally:
            watch.problem = None  # which holds the watch: together they would keep X until cycles are collected
        weight, bias, result = problem.coefficients(result, rows.dtype)
        self._store(rows, weight, bias, result)
        self._store_records(watch)
        return result

    def _attributes(self, rows: TrainingRows, weight: Tensor, bias: Tensor) -> dict:
        """What prediction needs, in the types that it has."""
        return {
            "classes_": rows.classes,
            "coef_": weight.cpu().numpy(),  # (K, d)
            "intercept_": bias.cpu().numpy(),  # (K,)
        }

    def _store(self, rows: TrainingRows, weight: Tensor, bias: Tensor, result: SolveResult) -> None:
        vars(self).update(self._attributes(rows, weight, bias))
        self.n_iter_ = np.array(result.n_iter, dtype=np.int32)
        self.n_passes_ = float(result.n_passes)
        self.loss_curve_ = np.array(result.loss_curve[0])
        self.optimality_gap_ = result.gap.item()
        self.converged_ = result.status[0] is Status.CONVERGED

    @property
    def penalty(self):
        """The penalty that ``l1_ratio`` and ``C`` make: "l1", "l2", "elasticnet" or None.

        No parameter: `SelectFromModel` asks for it, and of "l1" keeps all features that are not next to zero (1e-5).
        """
        return penalty_of(self).kind

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _store_records(self, watch: Watch | None) -> None:
        for name in ("seconds_curve_", "validation_scores_", "best_iteration_"):
            vars(self).pop(name, None)
        vars(self).update(watch.records(len(self.loss_curve_), uses_optimizer(self)) if watch else {})

    def _store_interrupted(self, rows: TrainingRows, watch: Watch) -> None:
        """Leave the last iterate; what a finished fit says besides is not known of it."""
        last = watch.last
        gap = torch.tensor([min(last.gap[0], last.value.item()) if last.gap else np.nan], dtype=torch.float64)
        n_iter = last.iteration + uses_optimizer(self)  # which looks after epochs
        result = SolveResult(last.theta, gap, [n_iter], [Status.STOPPED], [watch.curve], np.nan)
        self._store(rows, *watch.stored(rows.dtype), result)
        self._store_records(watch)
        vars(self).pop("_stream", None)
        vars(self).update(watch.stream())
