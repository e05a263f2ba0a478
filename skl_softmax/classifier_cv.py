"""The estimator that chooses C."""

import warnings
from itertools import product
from numbers import Integral, Real
from reprlib import repr as shortened
from typing import ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import Tensor

from skl_softmax.classifier import TorchSoftmaxClassifier
from skl_softmax.data import plain_torch
from skl_softmax.export import ExportMixin
from skl_softmax.folds import (
    refuse_single_row,
    refuse_weightless,
    split_rows,
    warn_of_single_rows,
    warn_of_unknown_classes,
)
from skl_softmax.inputs import (
    TrainingRows,
    as_labels,
    as_numbers,
    as_rows,
    check_training_rows,
    check_weights,
    with_signature,
)
from skl_softmax.leave_one_out import PARAMETER_LIMIT, left_out_scores, warn_of_doubtful
from skl_softmax.predictor import LinearPredictor
from skl_softmax.routing import part_of, routed_parameters, routed_score_parameters, with_classes
from skl_softmax.scores import (
    accuracy,
    as_score,
    check_scores,
    find_measure,
    held_out_scores,
    mean_of_logits,
    negative_log_loss,
    of_rows,
    place_of_best,
    refuse_metrics_of_labels,
    refuse_scorers_without_weights,
    score_weights,
    search_results,
    standard_errors,
)
from skl_softmax.solver_parameters import Penalty, check_penalty
from skl_softmax.solvers import DETERMINISTIC, Status
from skl_softmax.state import follow, unchanged_on_error
from skl_softmax.sweep import Sweep, solve_refit, solve_sweep
from skl_softmax.targets import balanced_weights, has_columns, true_targets
from skl_softmax.training import choose_coordinates, narrowed
from skl_softmax.watch import FitTasks


class TorchSoftmaxClassifierCV(CallbackSupportMixin, ExportMixin, LinearPredictor, BaseEstimator):
    r"""Softmax regression that chooses ``C`` (and ``l1_ratio``) by cross-validation.

    The models of all folds are solved together, as weights of the rows of one X: every evaluation is one product for
    all of them, and one model of the curvature serves all. Each ends where a `TorchSoftmaxClassifier` of its own would.

    Parameters
    ----------
    Cs : int or array-like of float, default=10
        Values of C; an int stands for as many from 1e-4 to 1e4, evenly spaced in their logarithm.
    l1_ratios : array-like of float, default=(0.0,)
        Values of ``l1_ratio``.
    fit_intercept : bool, default=True
        Whether to add the intercept.
    class_weight : dict, "balanced" or None, default=None
        As in `TorchSoftmaxClassifier`. "balanced" is taken in the training part of each fold; for "alo" of all rows;
        not with probabilities for ``y`` or ``label_smoothing``.
    label_smoothing : float, default=0.0
        As in `TorchSoftmaxClassifier`; scores are those of the targets as they are.
    cv : int, splitter, iterable of splits, "alo" or None, default=None
        Folds: an int (None: 5) of stratified ones, any of scikit-learn's splitters, or pairs of training and test
        indices. Splitters that want ``groups`` get them with ``sklearn.set_config(enable_metadata_routing=True)`` and
        ``fit(X, y, groups=groups)``. "alo" is approximate leave-one-out: one fit of all rows for each penalty, and from
        its Hessian what the fit without each row would have given; those that this moves far are fitted without, if
        that takes next to no time, else a warning tells how many they are. Only for ``l1_ratio`` 0, "neg_log_loss" or
        "accuracy", and at most 1,200 parameters; of dense X with more than 200 columns, and a third more than rows,
        those of the space that the rows span.
    scoring : str, callable or None, default=None
        What is best: the name of a scorer or one; None is "neg_log_loss". That and "accuracy" need no predictions
        beyond the logits, and the log loss is exact, where scikit-learn's scorer clips probabilities that round to 0.
    solver : {"auto", "newton", "lbfgs", "proximal"}, default="auto"
        As in `TorchSoftmaxClassifier`.
    tol : float, default=1e-7
        As in `TorchSoftmaxClassifier`, for each model.
    max_iter : int, default=1000
        Upper limit of iterations of each model.
    refit : bool or "1se", default=True
        True fits all rows with the penalty of the best mean score. "1se" with the smallest C whose mean score is within
        one standard error of the best, at the best ``l1_ratio``: Hastie, Tibshirani & Friedman (2009), section 7.10; of
        a single fold, which has no such error, with the best.
        False takes the means over folds of the coefficients that are best in each, as `LogisticRegressionCV` does.
    device : str, torch.device or None, default=None
        Where to compute, as in `TorchSoftmaxClassifier`.
    verbose : int, default=0
        Print what is solved.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        The coefficients, as in `TorchSoftmaxClassifier`.
    intercept_ : ndarray of shape (n_classes,), or (1,) for two classes
        The intercepts.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X had any.
    C_ : float
        The C that was chosen; the mean over folds without ``refit``.
    l1_ratio_ : float
        The ``l1_ratio`` that was chosen; the mean over folds without ``refit``.
    Cs_ : ndarray of shape (n_cs,)
        The values of C that were tried.
    l1_ratios_ : ndarray of shape (n_l1_ratios,)
        The values of ``l1_ratio`` that were tried.
    scores_ : ndarray of shape (n_folds, n_l1_ratios, n_cs)
        Scores of the held-out rows; nan of penalties that were to come when a callback ended the sweep. One "fold" for
        "alo".
    coefs_paths_ : ndarray of shape (n_folds, n_l1_ratios, n_cs, n_classes or 1, n_features + 1)
        Coefficients, the intercept last, if there is one; nan where ``scores_`` are.
    n_iter_ : ndarray of shape (n_folds, n_l1_ratios, n_cs)
        Iterations of each model; 0 where ``scores_`` are nan as a callback has ended the sweep.
    best_score_ : float
        The mean score of the penalty that was chosen; without ``refit``, the mean of each fold's best.
    cv_results_ : dict of ndarray
        Parameters and scores as in `sklearn.model_selection.GridSearchCV`, for `pandas.DataFrame`.
    converged_ : bool
        Whether the fit of all rows converged, or without ``refit`` those of all folds.
    optimality_gap_ : float
        Of the fit of all rows, as in `TorchSoftmaxClassifier`; nan without ``refit``.
    module_ : torch.nn.Linear
        A linear layer that shares the memory of ``coef_`` and ``intercept_``.

    See Also
    --------
    TorchSoftmaxClassifier : One fit.
    sklearn.linear_model.LogisticRegressionCV : The same, one fit after the other.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skl_softmax import TorchSoftmaxClassifierCV
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = TorchSoftmaxClassifierCV().fit(X, y)
    >>> round(clf.C_, 1)
    166.8
    """

    # The scorer's request says whether it takes weights.
    __metadata_request__score: ClassVar[dict] = {"sample_weight": UNUSED}

    _parameter_constraints: ClassVar[dict] = {
        "Cs": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "l1_ratios": ["array-like"],
        "fit_intercept": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "label_smoothing": [Interval(Real, 0, 1, closed="both")],
        "cv": ["cv_object", StrOptions({"alo"})],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "solver": [StrOptions({"auto", *DETERMINISTIC})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "refit": ["boolean", StrOptions({"1se"})],
        "device": [str, torch.device, None],
        "verbose": ["verbose"],
    }

    @with_signature
    def __init__(
        self,
        *,
        Cs=10,
        l1_ratios=(0.0,),
        fit_intercept=True,
        class_weight=None,
        label_smoothing=0.0,
        cv=None,
        scoring=None,
        solver="auto",
        tol=1e-7,
        max_iter=1000,
        refit=True,
        device=None,
        verbose=0,
    ):
        self.Cs = Cs
        self.l1_ratios = l1_ratios
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.cv = cv
        self.scoring = scoring
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.refit = refit
        self.device = device
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, **params):
        """Choose the penalty and fit.

        Parameters
        ----------
        X : array-like, sparse matrix or tensor of shape (n_samples, n_features)
            Rows, as in `TorchSoftmaxClassifier.fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels, or probabilities with a column for each of the classes 0, 1, ...
        sample_weight : array-like of shape (n_samples,) or float, default=None
            Weights of the rows, >= 0.
        **params : dict
            Metadata for the splitter (``groups``) and the scorer, with scikit-learn's metadata routing. Without it,
            ``sample_weight`` also weighs the scores.

        Returns
        -------
        self : TorchSoftmaxClassifierCV
            The fitted estimator.

        Raises
        ------
        ValueError
            As of `TorchSoftmaxClassifier.fit`, or if folds are of no use or ``scoring`` gives no numbers.
        TypeError
            If X is `RowBlocks`, or a tensor of a layout other than dense, CSR and COO.
        MemoryError
            With what was wanted, and what to change.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If any of the models did not reach ``tol``.
        UserWarning
            If a fold trains on no row of a class that it holds out, if "alo" is rough, or some scores are nan.
        """
        for_splitter, for_scorer = routed_parameters(self, sample_weight, params)
        Cs, l1_ratios = self._grid()
        penalties = [Penalty(*map(float, pair)) for pair in product(l1_ratios, Cs)]  # in the order of the scores
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        tasks = FitTasks(self, "penalty", len(penalties), {"X": X, "y": y, "metadata": weights | params or None})
        with unchanged_on_error(self) as keep, plain_torch():
            self.Cs_, self.l1_ratios_ = Cs, l1_ratios
            rows, y = check_training_rows(self, X, y, sample_weight, for_folds=True), as_labels(y)
            truth = rows.targets if rows.has_labels else true_targets(y, rows.classes)
            if not rows.has_labels:
                refuse_metrics_of_labels(self.scoring, self._scorer())
            if "sample_weight" in for_scorer and find_measure(self.scoring) is None:
                refuse_scorers_without_weights(self.scoring, self._scorer())
            folds = self._folds(X, y, truth, for_splitter)
            if self._is_alo:
                sweep, scores, errors = self._leave_one_out(rows, truth, penalties, for_scorer, tasks)
            else:
                sweep, scores = self._cross_validate(rows, truth, penalties, folds, X, y, for_scorer, tasks)
                errors = standard_errors(scores)
            check_scores(scores[:, sweep.solved])
            self._store(rows, sweep, scores)
            place = self._choose(scores, errors)
            refit = self._finish(rows, truth, sweep, place)
            follow(self, X)
            tasks.finish(keep)
            self._warn_unless_converged(sweep, refit)
        return self

    def score(self, X, y, sample_weight=None, **params):
        """The score of ``scoring`` on some rows.

        Parameters
        ----------
        X : array-like, sparse matrix or tensor of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels, or probabilities of the classes where ``scoring`` is "neg_log_loss" or "accuracy".
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        **params : dict
            Metadata for the scorer, with scikit-learn's metadata routing.

        Returns
        -------
        score : float
            The score.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        ValueError
            If X has other features than those of the fit, or NaN or infinity, of which row and column are named, or
            ``y`` labels that the fit has not known, but for the accuracy, of which they are misses. If no row has a
            positive weight.
        """
        check_is_fitted(self)
        parameters, measure = routed_score_parameters(self, sample_weight, params), find_measure(self.scoring)
        truth = as_labels(y)
        if measure is None or parameters.keys() - {"sample_weight"}:
            # An imported model has chosen none: such parameters tell a scorer what it does not ask for.
            penalty = Penalty(getattr(self, "l1_ratio_", 0.0), getattr(self, "C_", 1.0))
            model = self._model(self.classes_, penalty, self.coef_, self.intercept_)
            if "sample_weight" in parameters:
                parameters = parameters | {"sample_weight": check_weights(parameters["sample_weight"], truth)}
            X = as_rows(X.cpu()) if isinstance(X, Tensor) else X
            return with_classes(self._scorer(), self.classes_)(model, X, truth, **parameters)
        if measure is accuracy and not has_columns(truth):
            return super().score(X, y, **parameters)
        logits, targets = self._of_logits(lambda logits: logits, X), true_targets(truth, self.classes_)
        check_consistent_length(logits, targets)
        return mean_of_logits(logits, targets, score_weights(parameters, targets), measure)

    def get_metadata_routing(self):
        """What metadata goes where: see scikit-learn's user guide on metadata routing.

        Returns
        -------
        routing : MetadataRouter
            Requests of this estimator, the splitter and the scorer.
        """
        to_split = MethodMapping().add(caller="fit", callee="split")
        to_score = MethodMapping().add(caller="fit", callee="score").add(caller="score", callee="score")
        # Others ask for nothing, and may be gone through once.
        splitter = self.cv if hasattr(self.cv, "split") else None
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(splitter=splitter, method_mapping=to_split)
            .add(scorer=self._scorer(), method_mapping=to_score)
        )

    @property
    def penalty(self):
        """The penalty that ``l1_ratio_`` and ``C_`` make: "l1", "l2", "elasticnet" or None.

        No parameter: `SelectFromModel` asks for it, and of "l1" keeps all features that are not next to zero (1e-5).
        """
        return Penalty(self.l1_ratio_, self.C_).kind

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    @property
    def _is_alo(self) -> bool:
        return isinstance(self.cv, str)

    def _scorer(self):
        return check_scoring(self, self.scoring or "neg_log_loss")

    def _leaves_free(self, n_outputs: int) -> bool:
        """Whether the logits of a class without rows have no lower bound; of two, such a fold is told otherwise."""
        return n_outputs > 1 and not self.label_smoothing and (self.fit_intercept or np.isinf(self.Cs_).any())

    def _grid(self) -> tuple[np.ndarray, np.ndarray]:
        """All C and all l1_ratio."""
        Cs = np.logspace(-4, 4, self.Cs) if isinstance(self.Cs, Integral) else as_numbers(self.Cs).copy()
        l1_ratios = as_numbers(self.l1_ratios).copy()
        if Cs.ndim != 1 or not len(Cs) or not (Cs > 0).all():
            raise ValueError(f"Cs must be positive numbers, or how many there are to be, got {self.Cs!r}.")
        if l1_ratios.ndim != 1 or not len(l1_ratios) or not ((l1_ratios >= 0) & (l1_ratios <= 1)).all():
            raise ValueError(f"l1_ratios must be numbers from 0 to 1, got {self.l1_ratios!r}.")
        for penalty in product(l1_ratios, Cs):
            check_penalty(self.solver, Penalty(*penalty), names=("l1_ratios", "Cs"))
        return Cs, l1_ratios

    def _folds(self, X, y, truth: Tensor, for_splitter: dict) -> list[tuple[np.ndarray, np.ndarray]]:
        if self._is_alo:
            return []
        return split_rows(self.cv, X, None if truth.is_floating_point() else y, len(truth), for_splitter)

    def _cross_validate(
        self, rows: TrainingRows, truth: Tensor, penalties, folds, X, y, for_scorer: dict, tasks: FitTasks
    ) -> tuple[Sweep, np.ndarray]:
        """The models of all folds and penalties, and their scores (F, J)."""
        known, n_rows = rows.weights.numpy(), len(truth)
        trained = np.stack([np.bincount(train, known[train], n_rows) for train, _ in folds])  # (F, n)
        refuse_weightless("trains on", trained.sum(axis=1))
        data = choose_coordinates(rows.counted.X, self.fit_intercept, penalties)
        trained = balanced_weights(self, rows.classes, trained, truth)
        sweep = solve_sweep(self, rows.counted, data, rows.of_counted(trained), penalties, tasks)
        tests = [test for _, test in folds]
        measure, weights = find_measure(self.scoring), score_weights(for_scorer, truth)
        refuse_weightless("holds out", [weights[test].sum().item() for test in tests])
        if measure is not None and not (for_scorer.keys() - {"sample_weight"}):
            if measure is negative_log_loss and rows.has_labels and self._leaves_free(rows.n_outputs):
                warn_of_unknown_classes(rows.classes, truth.numpy(), trained.numpy(), tests, weights.numpy())
            scores = held_out_scores(rows.X, (sweep.weight, sweep.bias), truth, weights, tests, measure)
            scores[:, ~sweep.solved] = np.nan
            return sweep, scores
        if "sample_weight" in for_scorer:
            for_scorer = for_scorer | {"sample_weight": weights.numpy()}
        scorer, scores = with_classes(self._scorer(), rows.classes), np.full(sweep.n_iter.shape, np.nan)
        for fold, test in enumerate(tests):
            x, labels, parameters = part_of(X, y, for_scorer, test)
            for j in np.flatnonzero(sweep.solved):
                found = sweep.weight[fold, j].numpy(), sweep.bias[fold, j].numpy()
                model = self._model(rows.classes, penalties[j], *found)
                scores[fold, j] = as_score(scorer(model, x, labels, **parameters))
        return sweep, scores

    def _leave_one_out(
        self, rows: TrainingRows, truth: Tensor, penalties, for_scorer: dict, tasks: FitTasks
    ) -> tuple[Sweep, np.ndarray, np.ndarray]:
        """The models of all rows, their scores (1, J) and standard errors (J,)."""
        data = choose_coordinates(rows.counted.X, self.fit_intercept, penalties)
        n_parameters, measure = rows.n_outputs * data.n_columns, find_measure(self.scoring)
        if measure is None or self.l1_ratios_.any() or n_parameters > PARAMETER_LIMIT:
            raise ValueError(
                "cv='alo' needs the whole Hessian of a smooth objective and scores of single rows: l1_ratios=(0.0,), "
                f"scoring 'neg_log_loss' or 'accuracy' and at most {PARAMETER_LIMIT} parameters. Here l1_ratios="
                f"{self.l1_ratios_.tolist()}, scoring={self.scoring!r}, {n_parameters} parameters. Set cv=5, or what "
                "is missing."
            )
        refuse_single_row(len(rows.counted.weights))
        weights = balanced_weights(self, rows.classes, rows.weights.numpy()[None], truth)  # (1, n)
        shares = score_weights(for_scorer, truth)
        if measure is negative_log_loss and rows.has_labels and self._leaves_free(rows.n_outputs):
            warn_of_single_rows(rows.classes, truth.numpy(), weights[0].numpy(), shares.numpy())
        weights = rows.of_counted(weights)
        sweep = solve_sweep(self, rows.counted, data, weights, penalties, tasks)
        by_row, doubtful = left_out_scores(self, rows, weights, penalties, sweep, truth, measure)  # (J, n), (J,)
        means, errors = of_rows(by_row[:, shares > 0], shares[shares > 0])  # (J,), (J,)
        best = means.nan_to_num(-np.inf).argmax()
        warn_of_doubtful(doubtful[best], penalties[best].C)
        return sweep, means[None].numpy(), errors.numpy()

    def _model(self, classes, penalty: Penalty, coef, intercept) -> TorchSoftmaxClassifier:
        """A fitted estimator with these coefficients, and the parameters with which a fit of its own gives them."""
        shared = set(TorchSoftmaxClassifier._get_param_names()) & set(self._get_param_names())
        of_fit = {name: getattr(self, name) for name in shared}
        model = TorchSoftmaxClassifier(**penalty._asdict(), **of_fit)
        vars(model).update({k: v for k, v in vars(self).items() if k in ("n_features_in_", "feature_names_in_")})
        model.classes_, model.coef_, model.intercept_ = classes, coef, intercept
        return model

    def _store(self, rows: TrainingRows, sweep: Sweep, scores: np.ndarray) -> None:
        shape = len(scores), len(self.l1_ratios_), len(self.Cs_)
        paths, biases = narrowed(sweep.data, sweep.weight, sweep.bias, rows.dtype)
        if self.fit_intercept:
            paths = torch.cat([paths, biases[..., None]], dim=-1)
        self.classes_ = rows.classes
        self.scores_, self.n_iter_ = scores.reshape(shape), sweep.n_iter.reshape(shape)
        self.coefs_paths_ = paths.unflatten(1, shape[1:]).numpy()
        pairs = [(l1_ratio, C) for l1_ratio in self.l1_ratios_ for C in self.Cs_]
        self.cv_results_ = search_results(scores, [{"C": C, "l1_ratio": l1_ratio} for l1_ratio, C in pairs])

    def _choose(self, scores: np.ndarray, errors: np.ndarray) -> int:
        """The place of the penalty, from scores (F, J) and the standard errors (J,) of their means."""
        shape = self.scores_.shape[1:]
        means = scores.mean(axis=0).reshape(shape)  # (n_l1_ratios, n_cs)
        errors = errors.reshape(shape)
        i, j = place_of_best(means)
        if self.refit == "1se":
            within = np.flatnonzero(means[i] >= means[i, j] - errors[i, j])
            j = within[self.Cs_[within].argmin()]
        self.l1_ratio_, self.C_, self.best_score_ = float(self.l1_ratios_[i]), float(self.Cs_[j]), float(means[i, j])
        return int(np.ravel_multi_index((i, j), shape))

    def _finish(self, rows: TrainingRows, truth: Tensor, sweep: Sweep, place: int) -> Status | None:
        """The coefficients: of a fit of all rows from the folds' mean, or the mean of the best of each fold.

        Returns what became of the fit of all rows, if there is one.
        """
        if self.refit:
            weights = balanced_weights(self, rows.classes, rows.weights.numpy()[None], truth)  # (1, n)
            weights, penalty = rows.of_counted(weights), Penalty(self.l1_ratio_, self.C_)
            weight, bias, result = solve_refit(self, rows.counted, sweep, weights, penalty, place)
            self.coef_, self.intercept_ = weight.numpy(), bias.numpy()
            self.converged_, self.optimality_gap_ = result.status[0] is Status.CONVERGED, result.gap.item()
            return result.status[0]
        weight, bias = (t.unflatten(1, self.scores_.shape[1:]) for t in (sweep.weight, sweep.bias))
        best = [place_of_best(of_fold) for of_fold in self.scores_]
        pick = [(fold, *place) for fold, place in enumerate(best)]
        mean = (torch.stack([part[place] for place in pick]).mean(dim=0) for part in (weight, bias))
        self.coef_, self.intercept_ = (part.numpy() for part in narrowed(sweep.data, *mean, rows.dtype))
        self.l1_ratio_ = float(np.mean([self.l1_ratios_[i] for i, _ in best]))
        self.C_ = float(np.mean([self.Cs_[j] for _, j in best]))
        self.best_score_ = float(np.mean([self.scores_[place] for place in pick]))
        self.converged_, self.optimality_gap_ = bool(sweep.converged[:, sweep.solved].all()), float("nan")
        return None

    def _warn_unless_converged(self, sweep: Sweep, refit: Status | None) -> None:
        """Say what did not converge, why and what to do: the folds' models or, if those have, the fit of all rows."""
        failed = ~sweep.converged & sweep.solved
        statuses = {refit} - {None, Status.CONVERGED}
        if failed.any():
            statuses = set(sweep.status[failed])
            folds = shortened(np.flatnonzero(failed.any(axis=1)).tolist())
            what = (
                f"{failed.sum()} of the {len(failed) * sweep.solved.sum()} models of the folds, in the folds "
                f"{folds}, did not converge: by estimate they are up to "
                f"{sweep.worst_gap:.1e} of the objective above its minimum"
            )
        elif statuses:
            what = (
                f"The fit of all rows with C={self.C_:g} did not converge: by estimate it is "
                f"{self.optimality_gap_:.1e} above the minimum of the objective"
            )
        else:
            return
        causes = "; ".join(status.value.format(**self.get_params()) for status in Status if status in statuses)
        warnings.warn(f"{what} ({causes}; tol={self.tol:g}).", ConvergenceWarning, stacklevel=4)
