"""
Iris in a pipeline
==================

Scale, fit, choose C, look at the probabilities and the coefficients. Needs the extra "plot" and pandas.
"""

from matplotlib import pyplot as plt
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skl_softmax import TorchSoftmaxClassifier
from skl_softmax.displays import CoefficientDisplay

iris = load_iris(as_frame=True)
X, y = iris.data, iris.target_names[iris.target]
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

# %%
# The fit needs no scaling to converge, but scaling changes what the penalty means for each feature.
pipeline = make_pipeline(StandardScaler(), TorchSoftmaxClassifier())
grid = {"torchsoftmaxclassifier__C": [0.1, 1, 10, 100]}
search = GridSearchCV(pipeline, grid, scoring="neg_log_loss").fit(X_train, y_train)

best = search.best_estimator_
print(f"best C {best[-1].C}, test accuracy {best.score(X_test, y_test):.3f}")
print(f"converged: {best[-1].converged_}, about {best[-1].optimality_gap_:.0e} above the minimum")
for name, proba in zip(best.classes_, best.predict_proba(X_test)[0], strict=True):
    print(f"{name}: {proba:.3f}")

# %%
# The names come from the data frame, through the scaler.
CoefficientDisplay.from_estimator(best)
plt.show()
