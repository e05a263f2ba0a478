"""
Moving from LogisticRegression
==============================

The same parameters, the same optimum, on data that make lbfgs give up. Needs the extra "plot".
"""

import warnings

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression

from skl_softmax import TorchSoftmaxClassifier
from skl_softmax.displays import ConvergenceDisplay

X, y = load_wine(return_X_y=True)  # features from 0.1 to 1,700

# %%
# On raw features, scikit-learn's default solver ends with a warning.
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    before = LogisticRegression(C=1.0).fit(X, y)
print("LogisticRegression:", str(said[0].message).splitlines()[0] if said else "no warning")

after = TorchSoftmaxClassifier(C=1.0).fit(X, y)
print(f"TorchSoftmaxClassifier: converged {after.converged_} in {after.n_iter_[0]} iterations")

# %%
# Beside the optimum, by scikit-learn's Newton solver at a tight tolerance:
exact = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-10).fit(X, y)
for name, model in (("lbfgs", before), ("ours", after)):
    print(f"{name}: coefficients off by up to {np.abs(model.coef_ - exact.coef_).max():.1e}")

# %%
# And back, for whatever wants a LogisticRegression.
again = after.to_sklearn()
print(type(again).__name__, np.abs(again.predict_proba(X) - after.predict_proba(X)).max())

# %%
# How the fit went.
ConvergenceDisplay.from_estimator(after)
plt.show()
