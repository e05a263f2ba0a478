"""Writes models of this version, and what they predict, for the tests of later versions."""

import pickle
from pathlib import Path

import numpy as np
import skops.io
from sklearn.datasets import load_iris

from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV, __version__

FOLDER = Path(__file__).parent


def make_models():
    """Fitted models of every kind, by name."""
    X, y = load_iris(return_X_y=True)
    names = load_iris().target_names[y]
    return {
        "softmax": TorchSoftmaxClassifier().fit(X, names),
        "sigmoid": TorchSoftmaxClassifier().fit(X[:100].astype(np.float32), y[:100]),
        "sparse": TorchSoftmaxClassifier(l1_ratio=1.0, C=0.1).fit(X, y).sparsify(),
        "stream": TorchSoftmaxClassifier(solver="sgd", momentum=0.9).partial_fit(X, y, classes=[0, 1, 2]),
        "cv": TorchSoftmaxClassifierCV(Cs=2, cv=2).fit(X, y),
    }


if __name__ == "__main__":
    X, models = load_iris().data, make_models()
    proba = {name: model.predict_proba(X) for name, model in models.items()}
    stem = FOLDER / f"models-{__version__}"
    stem.with_name(stem.name + ".pickle").write_bytes(pickle.dumps(models, protocol=5))
    skops.io.dump(models, stem.with_name(stem.name + ".skops"))
    np.savez_compressed(stem.with_name(stem.name + ".npz"), **proba)
