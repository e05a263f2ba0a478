"""
A stream of batches
===================

``partial_fit`` on raw features, with momentum and the mean of all updates. Needs the extra "plot".
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import make_classification
from sklearn.metrics import log_loss

from skl_softmax import TorchSoftmaxClassifier

X, y = make_classification(20_000, 20, n_informative=10, n_classes=4, random_state=0)
X = X * np.logspace(-2, 3, 20)  # raw features of very different size
X_test, y_test = X[-4000:], y[-4000:]

# %%
# Each batch is seen once.
stream = TorchSoftmaxClassifier(solver="sgd", momentum=0.9, average=True, random_state=0)
rows, losses = [], []
for i in range(0, 16_000, 64):
    stream.partial_fit(X[i : i + 64], y[i : i + 64], classes=[0, 1, 2, 3])
    if i % 640 == 0:
        rows.append(i + 64)
        losses.append(log_loss(y_test, stream.predict_proba(X_test)))
print(f"after {rows[-1]:,} rows: log loss {losses[-1]:.4f}")

# %%
# All rows at once, for comparison.
whole = TorchSoftmaxClassifier().fit(X[:16_000], y[:16_000])
least = log_loss(y_test, whole.predict_proba(X_test))
print(f"all at once: log loss {least:.4f}")

figure, axes = plt.subplots(layout="constrained")
axes.plot(rows, losses, label="stream")
axes.axhline(least, color="black", linestyle="--", label="all rows at once")
axes.set(xlabel="Rows so far", ylabel="Log loss on test rows")
axes.legend()
plt.show()
