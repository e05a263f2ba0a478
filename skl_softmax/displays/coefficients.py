"""What coefficients say."""

from contextlib import suppress
from math import ceil
from numbers import Integral

import numpy as np

from skl_softmax.displays.canvas import LARGEST, as_label, fitted_model, panels, pyplot
from skl_softmax.inputs import dense_array

POSITIVE, NEGATIVE, DIVERGING = "tab:red", "tab:blue", "RdBu_r"
# Panels in a row, of bars and of images.
BARS_IN_A_ROW, IMAGES_IN_A_ROW = 3, 5
# Inches of a panel: width of one of several and of a single one with bars, height without and of a bar; sides of an
# image; what a letter of a name takes, beyond so many.
BARS_WIDTH, SINGLE_WIDTH, BARS_HEIGHT, BAR_HEIGHT, IMAGE_SIZE = 3.6, 6.4, 0.8, 0.22, (2.0, 2.1)
LETTER_WIDTH, SHORT_NAME = 0.08, 15


class CoefficientDisplay:
    """Coefficients of a linear classifier, class by class: the largest by name, or all as images.

    Make it with `from_estimator`. Coefficients are in the units of one over those of the features: they compare with
    each other where the features are of one scale.

    Parameters
    ----------
    coefficients : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        The coefficients.
    class_names : sequence of str of length n_classes
        Names of the classes.
    feature_names : sequence of str of length n_features
        Names of the features.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes that were passed or made, which hold the panels and are not drawn themselves.
    axes_ : ndarray of matplotlib Axes of shape (n_classes,), or (1,) for two classes
        The panels.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    RegularizationPathDisplay : Coefficients against C.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skl_softmax import TorchSoftmaxClassifier
    >>> from skl_softmax.displays import CoefficientDisplay
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> display = CoefficientDisplay.from_estimator(TorchSoftmaxClassifier().fit(X, y))
    >>> len(display.axes_)
    3
    """

    def __init__(self, *, coefficients, class_names, feature_names):
        self.coefficients = coefficients
        self.class_names = class_names
        self.feature_names = feature_names

    @classmethod
    def from_estimator(cls, estimator, *, feature_names=None, n_features=10, image_shape=None, ax=None):
        """Draw the coefficients of a fitted classifier.

        Parameters
        ----------
        estimator : classifier or Pipeline
            With ``classes_`` and ``coef_``; of a pipeline, the last step.
        feature_names : array-like of str of shape (n_features,), default=None
            Names of the features. None takes those that the classifier was fitted on, those that the steps before it
            in a pipeline give out, or else x0, x1, ...
        n_features : int, default=10
            How many features to draw for each class: those with the largest coefficients that are not zero.
        image_shape : tuple of two ints, default=None
            Height and width of the images that the features are the pixels of, row by row: draw all coefficients as
            such images, on one scale of colours.
        ax : matplotlib Axes, default=None
            Where to draw, divided into panels; a new figure if None.

        Returns
        -------
        display : CoefficientDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            If the estimator is no linear classifier.
        ValueError
            If ``feature_names`` are not as many as the features; as of `plot`.
        ImportError
            Without matplotlib.
        """
        pyplot(f"{cls.__name__}.from_estimator")
        model = fitted_model(estimator)
        if not (hasattr(model, "coef_") and hasattr(model, "classes_")):
            raise TypeError(f"{model!r} has no coef_ and classes_: pass a linear classifier, of a search the best one.")
        coefficients = np.atleast_2d(dense_array(model.coef_))
        n_classes = len(model.classes_)
        of_pairs = n_classes > 2 and hasattr(model, "dual_coef_")  # of three classes as many as these
        if len(coefficients) != (n_classes if n_classes > 2 else 1) or of_pairs:
            raise TypeError(f"The rows of coef_ of {model!r} are not those of its classes_, one each, or one of two.")
        names = _feature_names(estimator, model) if feature_names is None else np.atleast_1d(feature_names)
        if len(names) != coefficients.shape[1]:
            raise ValueError(f"feature_names has {len(names)} entries, but there are {coefficients.shape[1]} features.")
        display = cls(coefficients=coefficients, class_names=[str(c) for c in model.classes_], feature_names=names)
        return display.plot(n_features=n_features, image_shape=image_shape, ax=ax)

    def plot(self, *, n_features=10, image_shape=None, ax=None):
        """Draw a panel for each class; one for two classes, for the second of them.

        Parameters
        ----------
        n_features : int, default=10
            How many features to draw for each class.
        image_shape : tuple of two ints, default=None
            Height and width of images; bars if None.
        ax : matplotlib Axes, default=None
            Where to draw, divided into panels; a new figure if None.

        Returns
        -------
        display : CoefficientDisplay
            The display itself.

        Raises
        ------
        ValueError
            If ``n_features`` is not positive, ``image_shape`` not that of the features, or ``ax`` cannot be divided.
        """
        if not isinstance(n_features, Integral) or n_features < 1:
            raise ValueError(f"n_features must be an integer, 1 or more, got {n_features!r}.")
        n_panels, n_pixels = self.coefficients.shape
        image_shape = None if image_shape is None else _image_shape(image_shape, n_pixels)
        in_a_row, size = self._layout(n_features) if image_shape is None else (IMAGES_IN_A_ROW, IMAGE_SIZE)
        n_columns = min(n_panels, in_a_row)
        caller = f"{type(self).__name__}.plot"
        self.ax_, grid = panels(caller, ax, ceil(n_panels / n_columns), n_columns, size)
        self.figure_, self.axes_ = self.ax_.figure, grid.ravel()[:n_panels]
        for spare in grid.ravel()[n_panels:]:
            spare.set_axis_off()
        titles = self.class_names if n_panels > 1 else [f"{self.class_names[1]} against {self.class_names[0]}"]
        for panel, title in zip(self.axes_, titles, strict=True):
            panel.set_title(as_label(title))
        if image_shape is None:
            self._draw_bars(n_features)
        else:
            self._draw_images(image_shape)
        return self

    def _layout(self, n_features: int) -> tuple[int, tuple[float, float]]:
        """Panels of bars in a row, and the inches of one, of which names of features take what they need."""
        drawn = np.concatenate([_largest(of_class, n_features) for of_class in self.coefficients])
        longest = max((len(str(self.feature_names[i])) for i in drawn), default=0)
        width = BARS_WIDTH if len(self.coefficients) > 1 else SINGLE_WIDTH
        width += LETTER_WIDTH * max(0, longest - SHORT_NAME)
        height = BARS_HEIGHT + BAR_HEIGHT * min(n_features, self.coefficients.shape[1])
        return max(1, min(BARS_IN_A_ROW, int(LARGEST[0] // width))), (width, height)

    def _draw_bars(self, n_features: int) -> None:
        for panel, of_class in zip(self.axes_, self.coefficients, strict=True):
            order = _largest(of_class, n_features)
            values = of_class[order]
            panel.barh(range(len(order)), values, color=np.where(values > 0, POSITIVE, NEGATIVE))
            panel.set_yticks(range(len(order)), [as_label(self.feature_names[i]) for i in order])
            panel.invert_yaxis()
            panel.axvline(0, color="black", linewidth=0.8)
            panel.locator_params(axis="x", nbins=5)
            panel.set_xlabel("Coefficient")
        limits = np.array([panel.get_xlim() for panel in self.axes_])  # one scale for all classes
        for panel in self.axes_:
            panel.set_xlim(limits[:, 0].min(), limits[:, 1].max())

    def _draw_images(self, image_shape: tuple[int, int]) -> None:
        largest = np.abs(self.coefficients).max() or 1.0
        for panel, of_class in zip(self.axes_, self.coefficients, strict=True):
            image = panel.imshow(of_class.reshape(image_shape), cmap=DIVERGING, vmin=-largest, vmax=largest)
            panel.set(xticks=[], yticks=[])
        self.figure_.colorbar(image, ax=list(self.axes_), label="Coefficient", shrink=0.8)


def _largest(of_class: np.ndarray, n_features: int) -> np.ndarray:
    """The features with the largest coefficients of a class that are not zero."""
    order = np.argsort(-np.abs(of_class), kind="stable")[:n_features]
    return order[of_class[order] != 0]


def _image_shape(image_shape, n_pixels: int) -> tuple[int, int]:
    """Height and width of images of as many pixels as there are features."""
    numbers = np.asarray(image_shape)
    if numbers.shape != (2,) or numbers.dtype.kind not in "iu" or numbers.min() < 1 or numbers.prod() != n_pixels:
        raise ValueError(f"image_shape={image_shape!r} has no room for {n_pixels} features: pass (height, width).")
    return int(numbers[0]), int(numbers[1])


def _feature_names(estimator, model) -> np.ndarray:
    names = getattr(model, "feature_names_in_", np.array([f"x{j}" for j in range(model.coef_.shape[-1])]))
    if model is estimator or len(estimator) == 1:
        return names
    with suppress(AttributeError, TypeError, ValueError):  # of steps that give no names
        found = estimator[:-1].get_feature_names_out()
        return names if found is None else found
    return names
