"""ONNX, by a converter for skl2onnx."""

import warnings

import numpy as np

from skl_softmax.classifier import TorchSoftmaxClassifier
from skl_softmax.classifier_cv import TorchSoftmaxClassifierCV
from skl_softmax.training import LOGIT_ROUNDING


def register_onnx_converter() -> None:
    """Teach `skl2onnx` the estimators of this package, so that it converts Pipelines that hold them.

    They become what `LogisticRegression` becomes, with its options (``zipmap``, ``raw_scores``, ...). The Dask
    estimator is converted by what its ``to_local()`` gives. Needs the extra ``export``.

    Raises
    ------
    ModuleNotFoundError
        Without skl2onnx.

    Warns
    -----
    UserWarning
        When a model is converted, of features far from zero, of whose logits float32 leaves too little.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skl2onnx import to_onnx
    >>> from skl_softmax import TorchSoftmaxClassifier
    >>> from skl_softmax.onnx import register_onnx_converter
    >>> register_onnx_converter()
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), TorchSoftmaxClassifier()).fit(X, y)
    >>> len(to_onnx(model, X[:1].astype("float32")).graph.output)
    2
    """
    from skl2onnx import update_registered_converter
    from skl2onnx.common.data_types import DoubleTensorType
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
    from skl2onnx.operator_converters.linear_classifier import convert_sklearn_linear_classifier

    def convert(scope, operator, container) -> None:
        ours = operator.raw_operator
        if not isinstance(operator.inputs[0].type, DoubleTensorType):
            _warn_of_rounding(ours)
        operator.raw_operator = theirs = ours.to_sklearn()
        known = container.get_options(ours, {})
        for asked in (scope, container):  # the options of each, which may be a dict that the caller passed
            asked.add_options(id(theirs), known)
        try:
            convert_sklearn_linear_classifier(scope, operator, container)
        finally:
            operator.raw_operator = ours
            for asked in (scope, container):
                asked.options.pop(id(theirs), None)

    options = {"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]}
    options["raw_scores"] = [True, False]
    for estimator in (TorchSoftmaxClassifier, TorchSoftmaxClassifierCV):
        update_registered_converter(
            estimator, f"SklSoftmax{estimator.__name__}", calculate_linear_classifier_output_shapes, convert,
            options=options,
        )  # fmt: skip


def _warn_of_rounding(model) -> None:
    """Warn of intercepts so large, of features far from zero, that in float32 too little is left of the logits."""
    lost = np.finfo(np.float32).eps * np.abs(model.intercept_).max()
    if lost > LOGIT_ROUNDING:
        warnings.warn(
            f"Features far from zero make intercepts of {np.abs(model.intercept_).max():.1e}, and rounding to float32 "
            f"moves logits by {lost:.1e}. Convert for float64, as with to_onnx(model, X[:1].astype('float64')), or put "
            "StandardScaler() before the classifier.",
            UserWarning,
            stacklevel=2,
        )
