"""
Odds ratios
===========

Standard errors, p-values and confidence intervals of a fit without a penalty. Needs the extra "plot" and pandas.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer

from skl_softmax import TorchSoftmaxClassifier

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X = X[["mean radius", "mean texture", "mean smoothness", "mean symmetry"]]
X = (X - X.mean()) / X.std()  # so that a ratio is that of one standard deviation
y = y.map({0: "malignant", 1: "benign"})

# %%
# Coefficients of the table are logarithms of odds ratios, those in ``coef_`` of two classes only. The reference is the
# class that the odds are against.
clf = TorchSoftmaxClassifier(C=np.inf, tol=1e-12).fit(X, y)
table = clf.summary(X, y, reference="benign").loc["malignant"]
print(table.round(3).to_string())

# %%
# So are the ends of the intervals.
features = table.drop(index="intercept")
ratios = np.exp(features[["coef", "[0.025", "0.975]"]])
print(ratios.round(2).to_string())

figure, axes = plt.subplots(layout="constrained")
low, high = ratios["coef"] - ratios["[0.025"], ratios["0.975]"] - ratios["coef"]
axes.errorbar(ratios["coef"], ratios.index, xerr=[low, high], fmt="o", capsize=4)
axes.axvline(1, color="black", linestyle="--")
axes.set(xscale="log", xlabel="Odds ratio of malignant, for one standard deviation more")
plt.show()
