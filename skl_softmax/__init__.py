"""Softmax regression for scikit-learn users, trained by torch."""

from skl_softmax._version import __version__
from skl_softmax.classifier import TorchSoftmaxClassifier
from skl_softmax.classifier_cv import TorchSoftmaxClassifierCV
from skl_softmax.data import RowBlocks
from skl_softmax.forks import use_one_thread_after_forks
from skl_softmax.versions import show_versions

__all__ = ["RowBlocks", "TorchSoftmaxClassifier", "TorchSoftmaxClassifierCV", "__version__", "show_versions"]

use_one_thread_after_forks()
