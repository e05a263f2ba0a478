"""
Soft labels
===========

What several annotators said, as probabilities of the classes. Needs the extra "plot".
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
# Five annotators, each of whom picks the right class five times in six.
rng = np.random.default_rng(0)


def annotate(y, n_annotators):
    """What annotators say, (n, n_annotators)."""
    guesses = rng.integers(3, size=(len(y), n_annotators))
    return np.where(rng.random(guesses.shape) < 0.75, y[:, None], guesses)


votes = annotate(y_train, 5)
proba = np.stack([(votes == k).mean(axis=1) for k in range(3)], axis=1)  # (n, 3), rows sum to 1

# %%
# Fits to what all of them said, to what the majority said, and to that smoothed. Which of them foretells what another
# annotator will say? One that was told of no doubt has none.
fits = {
    "probabilities": TorchSoftmaxClassifier().fit(X_train, proba),
    "majority": TorchSoftmaxClassifier().fit(X_train, proba.argmax(axis=1)),
    "majority, smoothed": TorchSoftmaxClassifier(label_smoothing=0.1).fit(X_train, proba.argmax(axis=1)),
}
another = annotate(y_test, 1).ravel()
for name, model in fits.items():
    loss, accuracy = log_loss(another, model.predict_proba(X_test)), model.score(X_test, y_test)
    print(f"{name:20s} log loss of another annotator {loss:.3f}, accuracy of the truth {accuracy:.3f}")

# %%
# How sure each model is of its most probable class.
figure, axes = plt.subplots(layout="constrained")
for name, model in fits.items():
    axes.ecdf(model.predict_proba(X_test).max(axis=1), label=name)
axes.set(xlabel="Probability of the most probable class", ylabel="Part of the test rows")
axes.legend()
plt.show()
