"""
Early stopping and a callback
=============================

Held-out rows end one fit, a rule of our own another. Needs the extra "plot".
"""

from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skl_softmax import TorchSoftmaxClassifier
from skl_softmax.displays import ConvergenceDisplay

X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)

# %%
# With next to no penalty the minimum is far off, and predicts worse than what lies on the way there.
clf = TorchSoftmaxClassifier(C=1e6, early_stopping=True, random_state=0).fit(X, y)
minimum = TorchSoftmaxClassifier(C=1e6).fit(X, y)
print(f"best of {clf.n_iter_[0]} iterations: {clf.best_iteration_}")
for name, model in (("there", clf), ("at the minimum", minimum)):
    print(f"{name}: log loss on test rows {log_loss(y_test, model.predict_proba(X_test)):.3f}")

ConvergenceDisplay.from_estimator(clf, kind="validation_score", name="C = 1e6")
plt.show()


# %%
# scikit-learn's callbacks may end a fit as well: one that returns true makes the epoch the last.
class GoodEnough:
    """Ends a fit once nearly all training rows are right."""

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        return context.task_name == "epoch" and fitted_estimator.score(X, y) > 0.97


adam = TorchSoftmaxClassifier(solver="adam", random_state=0).set_callbacks(GoodEnough()).fit(X, y)
print(f"adam ended after {adam.n_iter_[0]} epochs: training accuracy {adam.score(X, y):.3f}")
