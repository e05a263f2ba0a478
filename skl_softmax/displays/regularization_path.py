"""What the penalty does."""

import numpy as np

from skl_softmax.displays.canvas import as_label, fitted_model, panels, pyplot
from skl_softmax.inputs import as_arrays

# Classes up to which each has a colour and a place in the legend.
MANY_CLASSES = 10
PANEL_SIZE = (6.4, 3.2)


class RegularizationPathDisplay:
    """Scores with the spread of the folds, and coefficients, against C.

    Make it with `from_estimator`.

    Parameters
    ----------
    Cs : ndarray of shape (n_cs,)
        Values of C.
    scores : ndarray of shape (n_folds, n_cs)
        Scores of the held-out rows.
    coefficients : ndarray of shape (n_cs, n_classes or 1, n_features)
        Coefficients, without the intercept; means over folds.
    C : float
        The value that was chosen.
    score_name : str
        What the scores are.
    class_names : sequence of str of length n_classes
        Names of the classes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes that were passed or made, which hold the panels and are not drawn themselves.
    axes_ : ndarray of matplotlib Axes of shape (2,)
        The panels: scores, coefficients.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    CoefficientDisplay : The coefficients of one fit.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skl_softmax import TorchSoftmaxClassifierCV
    >>> from skl_softmax.displays import RegularizationPathDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> display = RegularizationPathDisplay.from_estimator(TorchSoftmaxClassifierCV().fit(X, y))
    >>> display.scores.shape, display.coefficients.shape
    ((5, 10), (10, 3, 4))
    """

    def __init__(self, *, Cs, scores, coefficients, C, score_name, class_names):
        self.Cs = Cs
        self.scores = scores
        self.coefficients = coefficients
        self.C = C
        self.score_name = score_name
        self.class_names = class_names

    @classmethod
    def from_estimator(cls, estimator, *, l1_ratio=None, ax=None):
        """Draw what a search over C has found.

        Parameters
        ----------
        estimator : TorchSoftmaxClassifierCV or Pipeline
            Fitted; of a pipeline, the last step.
        l1_ratio : float, default=None
            One of the ``l1_ratios_`` that were tried; the one that was chosen if None.
        ax : matplotlib Axes, default=None
            Where to draw, divided into two panels; a new figure if None.

        Returns
        -------
        display : RegularizationPathDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            If the estimator keeps no ``coefs_paths_`` and ``cv_results_``.
        ValueError
            If ``l1_ratio`` was not tried; as of `plot`.
        ImportError
            Without matplotlib.
        """
        pyplot(f"{cls.__name__}.from_estimator")
        estimator = fitted_model(estimator)
        if not (hasattr(estimator, "coefs_paths_") and hasattr(estimator, "cv_results_")):
            raise TypeError(f"{estimator!r} keeps no coefs_paths_ with cv_results_: pass TorchSoftmaxClassifierCV.")
        l1_ratios, Cs, paths, scores = (
            as_arrays(getattr(estimator, name)) for name in ("l1_ratios_", "Cs_", "coefs_paths_", "scores_")
        )
        if l1_ratio is None:  # a mean over folds, without refit
            l1_ratio = min(l1_ratios, key=lambda tried: abs(tried - estimator.l1_ratio_))
        places = np.flatnonzero(np.isclose(l1_ratios, l1_ratio))
        if not len(places):
            raise ValueError(f"l1_ratio={l1_ratio:g} was not tried; pass one of {l1_ratios.tolist()}.")
        order, place = np.argsort(Cs), places[0]
        paths = paths[:, place, order].mean(axis=0)  # (n_cs, K, d or d + 1)
        display = cls(
            Cs=Cs[order],
            scores=scores[:, place, order],
            coefficients=paths[..., : estimator.coef_.shape[1]],
            C=estimator.C_,
            score_name=_score_name(estimator.scoring),
            class_names=[str(label) for label in estimator.classes_],
        )
        return display.plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw the scores above the coefficients: the mean over folds and one standard deviation on either side.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw, divided into two panels; a new figure if None.

        Returns
        -------
        display : RegularizationPathDisplay
            The display itself.

        Raises
        ------
        ValueError
            If ``ax`` is in no grid.
        ImportError
            Without matplotlib.
        """
        caller = f"{type(self).__name__}.plot"
        self.ax_, grid = panels(caller, ax, 2, 1, PANEL_SIZE, sharex=True)
        self.figure_, self.axes_ = self.ax_.figure, grid.ravel()
        self._draw_scores(self.axes_[0])
        self._draw_coefficients(self.axes_[1])
        for panel in self.axes_:
            panel.axvline(self._place(self.C), color="black", linestyle="--", linewidth=1, label=f"C = {self.C:.3g}")
            panel.grid(alpha=0.3)
        self.axes_[0].legend()
        self.axes_[1].set(xscale="log", xlabel="C")
        if np.isinf(self.Cs).any():
            _name_infinity(self.axes_[1].xaxis, self._place(np.inf))
        return self

    def _place(self, C):
        """Where a C is drawn: infinity beyond the others, at a power of ten."""
        finite = self.Cs[np.isfinite(self.Cs)]
        beyond = 10 ** (np.floor(np.log10(finite.max())) + 2) if len(finite) else 1.0
        return np.where(np.isinf(C), beyond, C)[()]

    def _draw_scores(self, panel) -> None:
        mean, spread = self.scores.mean(axis=0), self.scores.std(axis=0)  # (n_cs,)
        places = self._place(self.Cs)
        panel.plot(places, mean, marker="o", markersize=4, label="mean")
        if len(self.scores) > 1:
            panel.fill_between(places, mean - spread, mean + spread, alpha=0.2, label="± std of folds")
        panel.set_ylabel(self.score_name)

    def _draw_coefficients(self, panel) -> None:
        n_classes = self.coefficients.shape[1]
        names = self.class_names if n_classes > 1 else self.class_names[1:]
        places, marker = self._place(self.Cs), "." if len(self.Cs) == 1 else ""
        for k, name in enumerate(names):
            color = f"C{k % MANY_CLASSES}"
            lines = panel.plot(places, self.coefficients[:, k], marker, color=color, linewidth=1, alpha=0.7)
            lines[0].set_label(as_label(name))
        if n_classes <= MANY_CLASSES:
            panel.legend(loc="upper left", ncols=1 if n_classes < 6 else 2)  # where C is small, so are coefficients
        panel.set_ylabel("Coefficients")


def _name_infinity(axis, place: float) -> None:
    """Let the tick at a place of a logarithmic axis say infinity, and those beyond it nothing."""
    known = axis.get_major_formatter()
    known.set_axis(axis)
    axis.set_major_formatter(lambda x, i: "∞" if np.isclose(x, place) else known(x, i) if x < place else "")


def _score_name(scoring) -> str:
    if callable(scoring):
        return getattr(scoring, "__name__", "Score")
    name = scoring or "neg_log_loss"
    name = f"Negative {name[4:]}" if name.startswith("neg_") else name
    return name.replace("_", " ").capitalize()
