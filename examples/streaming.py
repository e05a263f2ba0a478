"""A stream of batches: partial_fit, with momentum and the mean of all updates."""

import numpy as np
from sklearn.datasets import make_classification
from sklearn.metrics import log_loss

from skl_softmax import TorchSoftmaxClassifier

X, y = make_classification(20_000, 20, n_informative=10, n_classes=4, random_state=0)
X = X * np.logspace(-2, 3, 20)  # raw features of very different size
X_test, y_test = X[-4000:], y[-4000:]

stream = TorchSoftmaxClassifier(solver="sgd", momentum=0.9, average=True, random_state=0)
for i in range(0, 16_000, 64):
    stream.partial_fit(X[i : i + 64], y[i : i + 64], classes=[0, 1, 2, 3])
    if i % 3200 == 0:
        print(f"{i + 64:6d} rows: log loss {log_loss(y_test, stream.predict_proba(X_test)):.4f}")

whole = TorchSoftmaxClassifier().fit(X[:16_000], y[:16_000])
print(f"all at once: log loss {log_loss(y_test, whole.predict_proba(X_test)):.4f}")
