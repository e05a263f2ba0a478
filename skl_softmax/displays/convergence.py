"""How fits went."""

from textwrap import fill

import numpy as np

from skl_softmax.displays.canvas import as_label, fitted_model, line_style, pyplot, single
from skl_softmax.inputs import as_arrays
from skl_softmax.solver_parameters import uses_optimizer

LABELS = {
    "objective": "Objective",
    "gap": "Objective above its minimum (estimate)",
    "validation_score": "Validation score (negative log loss)",
    "iteration": "Iteration",
    "seconds": "Seconds",
}
# Letters of a line of the legend.
NAME_WIDTH = 60
# Curves of no more points have a marker at each.
MARKED = 50


class ConvergenceDisplay:
    """Objective, gap or validation score of one or more fits, against iterations or seconds.

    Make it with `from_estimator`.

    Parameters
    ----------
    objective : list of ndarray of shape (n_iter + 1,)
        F of each fit before each iteration and, last, of the result.
    gap : list of ndarray of shape (n_iter + 1,)
        Estimates of :math:`F - F^*` at the same points; nan where there is none.
    validation_score : list of ndarray of shape (n_iter,) or (n_iter + 1,), or of None
        Minus the mean log loss of held-out rows, of the last iterations if there are fewer.
    seconds : list of ndarray of shape (n_iter + 1,), or of None
        When each point was reached.
    name : list of str
        Names of the fits, for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    lines_ : list of matplotlib Line2D
        The curves.

    See Also
    --------
    RegularizationPathDisplay : Scores and coefficients against C.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skl_softmax import TorchSoftmaxClassifier
    >>> from skl_softmax.displays import ConvergenceDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> fits = [TorchSoftmaxClassifier(solver=solver).fit(X, y) for solver in ("newton", "lbfgs")]
    >>> display = ConvergenceDisplay.from_estimator(fits, name=["newton", "lbfgs"])
    >>> display.ax_.get_yscale()
    'log'
    """

    def __init__(self, *, objective, gap, validation_score, seconds, name):
        self.objective = objective
        self.gap = gap
        self.validation_score = validation_score
        self.seconds = seconds
        self.name = name

    @classmethod
    def from_estimator(cls, estimator, *, kind="gap", x="iteration", name=None, ax=None, curve_kwargs=None):
        """Draw how fits went.

        The gap at a point is :math:`F - F_{end}` plus ``optimality_gap_``, the estimate of :math:`F_{end} - F^*` that
        the fit has ended with. The error is that of this estimate, the same at every point. Mini-batches make F itself
        an estimate; points that it puts below the minimum are left out.

        Parameters
        ----------
        estimator : TorchSoftmaxClassifier, Pipeline or list of them
            One or more fits; of a pipeline, the last step.
        kind : {"gap", "objective", "validation_score"}, default="gap"
            What to draw; validation scores are there after fits with ``early_stopping=True``.
        x : {"iteration", "seconds"}, default="iteration"
            Against what; an epoch is an iteration of an optimiser's. Seconds are those of the solver, without the
            checks of X and y.
        name : str or list of str, default=None
            Names for the legend. None takes the parameters in which fits differ, or the estimator as it prints.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        curve_kwargs : dict or list of dict, default=None
            What is passed on to ``Axes.plot``, for all curves or each.

        Returns
        -------
        display : ConvergenceDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            If a fit keeps no ``loss_curve_`` or no ``optimality_gap_``.
        ValueError
            For an empty list; as of `plot`.
        ImportError
            Without matplotlib.
        """
        pyplot(f"{cls.__name__}.from_estimator")
        fits = [fitted_model(fit) for fit in (estimator if isinstance(estimator, (list, tuple)) else [estimator])]
        if not fits:
            raise ValueError("estimator holds no fits: pass one or more.")
        for fit in fits:
            if not (hasattr(fit, "loss_curve_") and hasattr(fit, "optimality_gap_")):
                raise TypeError(f"{fit!r} keeps no loss_curve_ with its gap: pass fitted TorchSoftmaxClassifier.")
        name = _names(fits) if name is None else name
        objective, validation_score, seconds = (
            [as_arrays(getattr(fit, curve, None)) for fit in fits]
            for curve in ("loss_curve_", "validation_scores_", "seconds_curve_")
        )
        validation_score = [_at_points(fit, scores) for fit, scores in zip(fits, validation_score, strict=True)]
        display = cls(
            objective=objective,
            gap=[curve - curve[-1] + fit.optimality_gap_ for curve, fit in zip(objective, fits, strict=True)],
            validation_score=validation_score,
            seconds=seconds,
            name=[name] if isinstance(name, str) else list(name),
        )
        return display.plot(kind=kind, x=x, ax=ax, curve_kwargs=curve_kwargs)

    def plot(self, *, kind="gap", x="iteration", ax=None, curve_kwargs=None):
        """Draw the curves.

        Parameters
        ----------
        kind : {"gap", "objective", "validation_score"}, default="gap"
            What to draw.
        x : {"iteration", "seconds"}, default="iteration"
            Against what.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        curve_kwargs : dict or list of dict, default=None
            What is passed on to ``Axes.plot``, for all curves or each.

        Returns
        -------
        display : ConvergenceDisplay
            The display itself.

        Raises
        ------
        ValueError
            If ``kind`` or ``x`` is no choice, or the fits do not have it, or names or styles are not as many as they.
        """
        if kind not in ("gap", "objective", "validation_score"):
            raise ValueError(f"kind must be 'gap', 'objective' or 'validation_score', got {kind!r}.")
        if x not in ("iteration", "seconds"):
            raise ValueError(f"x must be 'iteration' or 'seconds', got {x!r}.")
        n_curves = len(self.objective)
        styles = curve_kwargs if isinstance(curve_kwargs, (list, tuple)) else [curve_kwargs or {}] * n_curves
        for what, given in (("name", self.name), ("curve_kwargs", styles)):
            if len(given) != n_curves:
                raise ValueError(f"{what} has {len(given)} entries, but there are {n_curves} fits.")
        curves = [self._curve(fit, kind, x) for fit in range(n_curves)]
        ax = single(f"{type(self).__name__}.plot", ax)
        self.lines_ = []
        for (abscissa, ordinate), label, style in zip(curves, self.name, styles, strict=True):
            marker = "o" if len(abscissa) <= MARKED else None
            style = line_style(style, label=as_label(label), marker=marker, markersize=4)  # noqa: PLW2901
            self.lines_ += ax.plot(abscissa, ordinate, **style)
        ax.set(xlabel=LABELS[x], ylabel=LABELS[kind], yscale="log" if kind == "gap" else "linear")
        if x == "iteration":
            ax.locator_params(axis="x", integer=True)
        else:
            ax.set_xlim(left=0)
        ax.grid(alpha=0.3)
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _curve(self, fit: int, kind: str, x: str) -> tuple[np.ndarray, np.ndarray]:
        """Abscissas and ordinates of one curve."""
        points = {"gap": self.gap, "objective": self.objective, "validation_score": self.validation_score}[kind][fit]
        if points is None or np.isnan(points).all():
            by_epoch = "fit it with early_stopping=True, for more than an epoch"
            cause = by_epoch if kind == "validation_score" else "use kind='objective'"
            raise ValueError(f"{self.name[fit]} has no {kind}: {cause}.")
        if x == "seconds" and self.seconds[fit] is None:
            raise ValueError(f"{self.name[fit]} has no seconds, which only fit takes down: use x='iteration'.")
        points = np.asarray(points)
        abscissa = np.arange(len(self.objective[fit])) if x == "iteration" else self.seconds[fit]
        if kind == "gap":
            points = np.where(points > 0, points, np.nan)
        return abscissa[len(abscissa) - len(points) :], points


def _names(fits: list) -> list[str]:
    """What tells fits apart: the parameters in which they differ, or else how they print."""
    parameters, kinds = [fit.get_params(deep=False) for fit in fits], {type(fit) for fit in fits}
    differ = [key for key in parameters[0] if len({repr(given.get(key)) for given in parameters}) > 1]
    if len(kinds) > 1 or not differ:
        return [fill(" ".join(repr(fit).split()), NAME_WIDTH) for fit in fits]
    return [fill(", ".join(f"{key}={given[key]!r}" for key in differ), NAME_WIDTH) for given in parameters]


def _at_points(fit, scores: np.ndarray | None) -> np.ndarray | None:
    """Scores at the last points of the objective: that of an epoch, where it ends and not where it begins.

    Of an optimiser that was interrupted the objective after the last epoch is not known.
    """
    is_cut = scores is not None and uses_optimizer(fit) and len(scores) == len(fit.loss_curve_)
    return np.r_[np.nan, scores[:-1]] if is_cut else scores
