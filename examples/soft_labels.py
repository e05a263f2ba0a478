"""
Soft labels
===========

What several annotators said, as probabilities of the classes.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_wine
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skl_softmax import TorchSoftmaxClassifier

X, y = load_wine(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)

# %%
# Five annotators, each right three times in four.
rng = np.random.default_rng(0)
votes = np.where(rng.random((len(y_train), 5)) < 0.75, y_train[:, None], rng.integers(3, size=(len(y_train), 5)))
proba = np.stack([(votes == k).mean(axis=1) for k in range(3)], axis=1)  # (n, 3), rows sum to 1

# %%
# The probabilities themselves, what the majority said, and that smoothed.
fits = {
    "probabilities": TorchSoftmaxClassifier().fit(X_train, proba),
    "majority": TorchSoftmaxClassifier().fit(X_train, proba.argmax(axis=1)),
    "majority, smoothed": TorchSoftmaxClassifier(label_smoothing=0.1).fit(X_train, proba.argmax(axis=1)),
}
losses = {name: log_loss(y_test, model.predict_proba(X_test)) for name, model in fits.items()}
for name, loss in losses.items():
    print(f"{name:20s} test log loss {loss:.4f}")

# %%
# How sure each model is of its most probable class.
figure, axes = plt.subplots(layout="constrained")
for name, model in fits.items():
    axes.ecdf(model.predict_proba(X_test).max(axis=1), label=f"{name} (log loss {losses[name]:.3f})")
axes.set(xlabel="Probability of the most probable class", ylabel="Part of the test rows")
axes.legend()
plt.show()
