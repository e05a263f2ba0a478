"""Iris in a pipeline: scale, fit, choose C, look at the probabilities."""

from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skl_softmax import TorchSoftmaxClassifier

iris = load_iris(as_frame=True)
X, y = iris.data, iris.target_names[iris.target]
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

# Scaling does not change how fast the fit is, but it does change what the penalty means for each feature.
pipeline = make_pipeline(StandardScaler(), TorchSoftmaxClassifier())
grid = {"torchsoftmaxclassifier__C": [0.1, 1, 10, 100]}
search = GridSearchCV(pipeline, grid, scoring="neg_log_loss").fit(X_train, y_train)

model = search.best_estimator_[-1]
print(f"best C {model.C}, test accuracy {search.best_estimator_.score(X_test, y_test):.3f}")
print(f"converged: {model.converged_}, at most about {model.optimality_gap_:.0e} above the minimum")
for name, weights in zip(model.classes_, model.coef_, strict=True):
    print(name, weights.round(2))
