"""
Text classification with sparse features
========================================

Tf-idf weights of the words of short texts, which stay sparse, with an L1 penalty that keeps few words. Needs the
extra "plot".
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skl_softmax import TorchSoftmaxClassifier
from skl_softmax.displays import CoefficientDisplay

TOPICS = {
    "weather": "rain sun wind storm cloud forecast cold warm snow degrees",
    "sport": "goal match team season coach league score player final win",
    "money": "bank stock price market rate fund profit tax trade bond",
}
COMMON = "the a of and to in on for with this that today after before new old big small"

rng = np.random.default_rng(0)
labels = rng.choice(list(TOPICS), size=2000)
texts = [" ".join([*rng.choice(TOPICS[label].split(), 4), *rng.choice(COMMON.split(), 12)]) for label in labels]
train, test, y_train, y_test = train_test_split(texts, labels, random_state=0)

# %%
# What the vectorizer gives out is sparse, and is never made dense.
pipeline = make_pipeline(TfidfVectorizer(), TorchSoftmaxClassifier(l1_ratio=1.0, C=0.5)).fit(train, y_train)
print(f"test accuracy {pipeline.score(test, y_test):.3f}")
print(f"{np.mean(pipeline[-1].coef_ != 0):.0%} of the coefficients are not zero")

# %%
# The words that speak for each topic.
CoefficientDisplay.from_estimator(pipeline)
plt.show()
