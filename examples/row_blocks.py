"""
Rows from files
===============

``RowBlocks`` fits rows that are in many files and need not fit into memory.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from skl_softmax import RowBlocks, TorchSoftmaxClassifier

# %%
# A file for each month, as a log may come: features in raw units, and what was chosen.
folder = TemporaryDirectory()
rng = np.random.default_rng(0)
for month in range(1, 13):
    X = rng.normal([20, 1000, 0.5], [8, 300, 0.2], size=(2000, 3))  # temperature, price, share
    logits = np.stack([0.2 * X[:, 0], 0.004 * X[:, 1], 8 * X[:, 2]], axis=1) + rng.gumbel(size=X.shape)
    y = np.array(["walk", "train", "car"])[logits.argmax(axis=1)]
    np.savez(Path(folder.name) / f"{month:02}.npz", X=X.astype(np.float32), y=y)


class Months:
    """Reads a file when its turn comes; gone through once for each evaluation."""

    def __iter__(self):
        for path in sorted(Path(folder.name).glob("*.npz")):
            with np.load(path) as file:
                yield file["X"], file["y"]


# %%
# A thread reads the next file while one is worked on.
months = RowBlocks(Months())
clf = TorchSoftmaxClassifier().fit(months)
print(f"{clf.n_passes_:g} passes, converged: {clf.converged_}, accuracy {clf.score(months):.3f}")

# %%
# To the tolerance, the same as of all rows at once, where they fit.
X, y = map(np.concatenate, zip(*Months(), strict=True))
whole = TorchSoftmaxClassifier().fit(X, y)
print(f"F in blocks {clf.loss_curve_[-1]:.9f}, in memory {whole.loss_curve_[-1]:.9f}")
folder.cleanup()
