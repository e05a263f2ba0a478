"""Softmax regression for scikit-learn users, trained by torch."""

from skl_softmax._version import __version__
from skl_softmax.classifier import TorchSoftmaxClassifier

__all__ = ["TorchSoftmaxClassifier", "__version__"]
