"""The estimator over Dask collections, on a cluster of `dask.distributed`."""

from copy import copy, deepcopy
from typing import ClassVar

import numpy as np
import pandas as pd
from dask import array, delayed
from distributed import Client, default_client
from sklearn.base import _fit_context
from sklearn.utils.validation import check_is_fitted

from skl_softmax import start
from skl_softmax._version import DOCUMENTATION
from skl_softmax.classifier import TorchSoftmaxClassifier
from skl_softmax.cluster import Work, align, is_collection, place, tree, whole_rows
from skl_softmax.data import plain_torch
from skl_softmax.inputs import naming, note_features
from skl_softmax.parts import PARTS_SOLVERS
from skl_softmax.solver_parameters import penalty_of
from skl_softmax.state import forget_fit, unchanged_on_error
from skl_softmax.targets import has_columns, refuse_probabilities
from skl_softmax.training import make_placed_problem, warn_unless_converged
from skl_softmax.watch import FitTasks, Printer, Watch

__all__ = ["DaskTorchSoftmaxClassifier"]


class DaskTorchSoftmaxClassifier(TorchSoftmaxClassifier):
    """`TorchSoftmaxClassifier` for rows that are spread over a Dask cluster.

    The objective and its minimum are those of the local class, whatever the partitions. The solver runs here; for each
    evaluation of the objective it sends the coefficients to the workers, each of which adds up its rows, and gets one
    sum back. What it knows of the curvature it knows from a sample of the rows, of 128 MB at most.

    Parameters
    ----------
    C, l1_ratio, fit_intercept, class_weight, label_smoothing, tol, max_iter, warm_start
        As in the local class. ``l1_ratio`` has to be 0: there is no L1 penalty here.
    solver : {"auto", "newton", "lbfgs"}, default="auto"
        As in the local class: "auto" is "newton" for sparse X of many columns and where the Hessian costs a few passes
        over the rows, else "lbfgs", which has nothing but small sums to wait for. "newton" adds up the Hessian of all
        rows up to 2,000 parameters, products with it from there on.
    device : str, torch.device or None, default=None
        Where the workers keep their rows and compute, as in the local class: "cuda" for workers with a GPU each.
    verbose : int, default=0
        As in the local class, with the accuracy on the sample of the rows.
    client : distributed.Client or None, default=None
        The cluster's client; None means the current one. It is not pickled.

    Attributes
    ----------
    client_ : distributed.Client
        ``client``, or the current one.
    classes_, coef_, intercept_, n_features_in_, feature_names_in_, n_iter_, n_passes_, loss_curve_, seconds_curve_, \
converged_, optimality_gap_, module_
        As in the local class.

    See Also
    --------
    TorchSoftmaxClassifier : The same for rows in memory.

    Notes
    -----
    - A worker that is lost in the middle of a fit is made up for: Dask computes its partitions again from the
      collections, on other workers. Without any worker for 60 seconds the fit ends with a `TimeoutError`. What
      the fit keeps on the workers is released when it ends, also by an error or Ctrl-C.
    - Errors of data, such as NaN or a label that is not in ``classes``, name the partition, counted from 0.
    - `sklearn.model_selection.GridSearchCV` takes it for ``dask.array`` collections with known chunks and with
      ``n_jobs=None``: the fits follow one another, each on the whole cluster. It does not take data frames of Dask.
    - Of Parquet files all columns are read that ``dask.dataframe.read_parquet(columns=...)`` asks for.
    - In a `sklearn.pipeline.Pipeline` the steps before it have to return Dask collections. scikit-learn's own
      transformers return arrays in memory; nothing has to be scaled for this estimator.

    Examples
    --------
    >>> import dask.array
    >>> from distributed import Client
    >>> from sklearn.datasets import load_iris
    >>> from skl_softmax.dask import DaskTorchSoftmaxClassifier
    >>> X, y = (dask.array.from_array(part, chunks=50) for part in load_iris(return_X_y=True))
    >>> with Client(n_workers=1, processes=False, dashboard_address=None) as client:
    ...     clf = DaskTorchSoftmaxClassifier().fit(X, y)
    ...     clf.predict(X)[:3].compute()
    array([0, 0, 0])
    """

    _doc_link_template = f"{DOCUMENTATION}/api/skl_softmax.dask.{{estimator_name}}.html"
    _parameter_constraints: ClassVar[dict] = {
        **TorchSoftmaxClassifier._parameter_constraints,
        "client": [Client, None],
    }

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
        warm_start=False,
        device=None,
        verbose=0,
        client=None,
    ):
        self.C = C
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.device = device
        self.verbose = verbose
        self.client = client

    @property
    def client_(self):
        """The client that ``fit`` and ``score`` use."""
        return default_client() if self.client is None else self.client

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, coef_init=None, intercept_init=None, classes=None):
        """Fit the model on the cluster.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            Training rows. Chunks of arrays may be sparse matrices of scipy's. Partitions may be of any size, also
            empty.
        y : dask.array.Array, dask.dataframe.Series or DataFrame of shape (n_samples,) or (n_samples, n_classes)
            Labels of any kind, or probabilities of the classes, as in the local class. In the partitions of X where
            Dask does not know how many rows they have.
        sample_weight : dask.array.Array or dask.dataframe.Series of shape (n_samples,), default=None
            Weights of the rows, >= 0; partitions as of ``y``.
        coef_init : array-like of the shape of ``coef_``, default=None
            Where to start.
        intercept_init : array-like of the shape of ``intercept_``, default=None
            Where to start.
        classes : array-like of shape (n_classes,), default=None
            All labels, if not only those in ``y``; the labels of the columns of ``y``, if not 0, 1, ...

        Returns
        -------
        self : DaskTorchSoftmaxClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If ``l1_ratio`` or ``solver`` is none for a cluster, or a partition, which is named, cannot be fitted; or if
            there is no client, neither given nor current.
        TypeError
            If one of X, ``y`` and ``sample_weight`` is no collection of Dask's.
        TimeoutError
            Where no worker has been there for 60 seconds.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the fit ended without reaching ``tol``, as in the local class.
        """
        _check_parameters(self)
        call = {"X": X, "y": y, "metadata": None if sample_weight is None else {"sample_weight": sample_weight}}
        tasks = FitTasks(self, "iteration", self.max_iter, call)
        partitions = align(X, y, sample_weight)
        with unchanged_on_error(self) as keep, plain_torch(), Work(self.client_) as work:
            known = forget_fit(self)
            note_features(self, _without_rows(X))
            placed = place(work, partitions, self._checker(), classes, has_columns(y))
            rows, self._seen = placed.sample, placed.total.total_weight  # for partial_fit of the local estimator
            begin = start.begin(self, rows, (coef_init, intercept_init), None, known)
            looks = [Printer(rows, self.verbose, self.max_iter, "Iteration")] if self.verbose else []
            watch = Watch(looks + self._callbacks(rows, tasks, is_after=False))
            problem = make_placed_problem(self, placed, begin, watch)
            result = self._solve(problem, rows, watch, keep)
            tasks.finish(keep)
            warn_unless_converged(self, result)
        return self

    def _checker(self) -> TorchSoftmaxClassifier:
        """An estimator that knows the features and how targets are made."""
        shared = ("class_weight", "label_smoothing", "device")
        checker = TorchSoftmaxClassifier(**{name: getattr(self, name) for name in shared})
        names = ("n_features_in_", "feature_names_in_")
        vars(checker).update({name: value for name, value in vars(self).items() if name in names})
        return checker

    @property
    def partial_fit(self):
        """There is none."""
        raise AttributeError(
            "DaskTorchSoftmaxClassifier has no partial_fit: go over the partitions with "
            "TorchSoftmaxClassifier.partial_fit."
        )

    @property
    def summary(self):
        """There is none: it would take all rows into the memory of the caller."""
        raise AttributeError(
            "DaskTorchSoftmaxClassifier has no summary, which wants all rows in memory: if they fit there, call that "
            "of to_local() with X.compute() and y.compute()."
        )

    def decision_function(self, X):
        """Logits: W x + b.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            Rows. For rows in memory, what the local class returns is returned.

        Returns
        -------
        logits : dask.array.Array, dask.dataframe.DataFrame or Series
            As X, of shape (n_samples, n_classes), or (n_samples,) for two classes. Nothing is computed yet.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        ValueError
            If X has not two dimensions; where it is computed, if it has other features than those of the fit, or NaN.
        """
        return self._lazily("decision_function", X)

    def predict_proba(self, X):
        """Probabilities of the classes.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_classes)
            As X, in the order of ``classes_``, which are the names of the columns of a data frame. Nothing is computed
            yet.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        ValueError
            If X has not two dimensions; where it is computed, if it has other features than those of the fit, or NaN.
        """
        return self._lazily("predict_proba", X)

    def predict_log_proba(self, X):
        """Logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_proba : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_classes)
            As of `predict_proba`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        ValueError
            If X has not two dimensions; where it is computed, if it has other features than those of the fit, or NaN.
        """
        return self._lazily("predict_log_proba", X)

    def predict(self, X):
        """The most probable class.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        labels : dask.array.Array or dask.dataframe.Series of shape (n_samples,)
            Elements of ``classes_``. Nothing is computed yet.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        ValueError
            If X has not two dimensions; where it is computed, if it has other features than those of the fit, or NaN.
        """
        return self._lazily("predict", X)

    def score(self, X, y, sample_weight=None):
        """Accuracy, computed on the cluster.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            Rows.
        y : dask.array.Array or dask.dataframe.Series of shape (n_samples,)
            Labels.
        sample_weight : dask.array.Array or dask.dataframe.Series of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            The part of the rows, weighted, whose label is predicted.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        TypeError
            If X is a collection of Dask's and ``y`` is none.
        ValueError
            If ``y`` holds probabilities, no label in a row, or labels of another type than those of ``fit``, or no row
            has a positive weight; if rows or partitions of X, ``y`` and weights differ, or there is no client.
        TimeoutError
            Where no worker has been there for 60 seconds.
        """
        if not is_collection(X):
            return super().score(X, y, sample_weight)
        refuse_probabilities(y)
        local = delayed(self.to_local(), pure=False)
        with Work(self.client_) as work:
            partitions = enumerate(align(X, y, sample_weight))
            hits = [delayed(_hits, pure=False)(number, local, *partition) for number, partition in partitions]
            right, total = work.get(tree(sum, hits))
        if not total:
            raise ValueError("X has no rows with a positive weight.")
        return float(right / total)

    def to_local(self):
        """A local estimator with equal predictions.

        Returns
        -------
        estimator : TorchSoftmaxClassifier
            With copies of the parameters and of the fitted attributes.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        """
        check_is_fitted(self)
        shared = deepcopy({name: value for name, value in self.get_params().items() if name != "client"})
        local = TorchSoftmaxClassifier(**shared)
        found = {name: value for name, value in vars(self).items() if name.endswith("_") or name == "_seen"}
        vars(local).update(deepcopy(found))
        return local

    def _lazily(self, method: str, X):
        if not is_collection(X):
            return getattr(super(), method)(X)
        if X.ndim != 2:
            raise ValueError(f"X must have rows and columns, but has {X.ndim} dimension(s).")
        local = self.to_local()
        like = _empty_result(local, method, _dtype_of(X))
        model = delayed(local, pure=False)
        if isinstance(X, array.Array):
            X = whole_rows("X", X)
            shape = {"drop_axis": 1} if like.ndim == 1 else {"chunks": (X.chunks[0], like.shape[1:])}
            return X.map_blocks(_predictions, model, method, like, dtype=like.dtype, meta=like, **shape)
        if method == "predict":  # of the type that labels have in a series: strings are none of NumPy's there
            like = pd.Series(self.classes_)[:0]
        else:
            like = pd.Series(like) if like.ndim == 1 else pd.DataFrame(like, columns=self.classes_)
        return X.map_partitions(_predictions_of_frame, model, method, like, meta=like)

    def __getstate__(self):
        return super().__getstate__() | {"client": None}

    def __sklearn_clone__(self):
        cloned = super(DaskTorchSoftmaxClassifier, copy(self)).__sklearn_clone__()
        cloned.client = self.client
        return cloned


def _check_parameters(estimator: DaskTorchSoftmaxClassifier) -> None:
    if penalty_of(estimator).has_l1:
        raise ValueError(
            f"l1_ratio={estimator.l1_ratio:g}, but DaskTorchSoftmaxClassifier knows no L1 penalty. Set l1_ratio=0, or "
            "fit TorchSoftmaxClassifier on a sample of the rows."
        )
    if estimator.solver not in PARTS_SOLVERS:
        raise ValueError(
            f"solver={estimator.solver!r}, but DaskTorchSoftmaxClassifier has {', '.join(map(repr, PARTS_SOLVERS))} "
            "only. For an optimiser, go over the partitions with TorchSoftmaxClassifier.partial_fit."
        )


def _without_rows(X):
    """What scikit-learn takes the number and names of the features from."""
    return X if isinstance(X, array.Array) else X._meta


def _dtype_of(X) -> np.dtype:
    """Of an array, or what the columns of a data frame become together, float64 where that is not plain."""
    if isinstance(X, array.Array):
        return X.dtype
    is_plain = all(isinstance(kind, np.dtype) and kind.kind in "biuf" for kind in X.dtypes)
    found = np.result_type(*X.dtypes) if is_plain else np.dtype(np.float64)
    return np.dtype(np.float64) if found == np.float16 else found


def _empty_result(model: TorchSoftmaxClassifier, method: str, dtype: np.dtype) -> np.ndarray:
    """What a method returns for no rows of this type."""
    model = copy(model)
    vars(model).pop("feature_names_in_", None)  # an array has none
    return getattr(model, method)(np.zeros((1, model.n_features_in_), dtype))[:0]


def _predictions(x, model, method: str, like: np.ndarray) -> np.ndarray:
    return getattr(model, method)(x) if x.shape[0] else like


def _predictions_of_frame(x, model, method: str, like):
    if not len(x):
        return like
    found = getattr(model, method)(x)
    return pd.Series(found, index=x.index) if found.ndim == 1 else pd.DataFrame(found, x.index, like.columns)


def _hits(number: int, model, X, y, sample_weight) -> np.ndarray:
    """The weight of the rows whose label is predicted, and of all."""
    if not len(y):
        return np.zeros(2)
    with naming(f"Partition {number}"):
        return np.array(model._weight_of_hits(X, y, None if sample_weight is None else np.ravel(sample_weight)))
