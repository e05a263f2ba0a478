"""What displays draw of, and where: the only place that imports matplotlib, and only when a picture is asked for."""

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

# The largest figure that is made for many panels, in inches: matplotlib draws up to 655 high.
LARGEST = 12.0, 300.0


def pyplot(caller: str):
    """`matplotlib.pyplot`, or an error that says who needs it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{caller} requires matplotlib. You can install matplotlib with `pip install matplotlib`"
        ) from error
    return plt


def fitted_model(estimator):
    """The fitted estimator, or of a pipeline the last step."""
    check_is_fitted(estimator)
    return estimator[-1] if isinstance(estimator, Pipeline) else estimator


def as_label(name) -> str:
    """A name as matplotlib draws it as it is: a dollar begins no formula, and a first underscore hides no label."""
    name = str(name).replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def line_style(given: dict, **default) -> dict:
    """What a line is drawn with: what is given, by any of matplotlib's names for it, else a default."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    return default | normalize_kwargs(given, Line2D)


def single(caller: str, ax):
    """The axes, or those of a new figure."""
    plt = pyplot(caller)
    return plt.subplots(layout="constrained")[1] if ax is None else _checked(ax)


def _checked(ax):
    if not hasattr(ax, "get_subplotspec"):
        raise TypeError(f"ax must be matplotlib Axes, got {type(ax).__name__}: of several, pass one.")
    return ax


def panels(caller: str, ax, n_rows: int, n_columns: int, panel_size, **shared):
    """The axes of a new figure, or ``ax``, divided into panels (n_rows, n_columns).

    Parameters
    ----------
    caller : str
        Who needs matplotlib.
    ax : Axes or None
        What to divide. It stays as a frame that is not drawn.
    n_rows, n_columns : int
        The grid.
    panel_size : tuple of two floats
        Inches of a panel in a new figure, which grows no larger than `LARGEST`.
    **shared : bool
        ``sharex`` and ``sharey``, as for ``Figure.subplots``.

    Returns
    -------
    ax : Axes
        The frame.
    axes : ndarray of Axes of shape (n_rows, n_columns)
        The panels.
    """
    plt = pyplot(caller)
    if ax is None:
        size = np.minimum(np.multiply(panel_size, (n_columns, n_rows)), LARGEST)
        _, ax = plt.subplots(figsize=tuple(size), layout="constrained")
    place = _checked(ax).get_subplotspec()
    if place is None:
        raise ValueError("ax must belong to a grid, as those of plt.subplots() do, to be divided into panels.")
    ax.set_axis_off()
    return ax, place.subgridspec(n_rows, n_columns).subplots(squeeze=False, **shared)
