"""Sparse features: word counts of short texts, with an L1 penalty that keeps few words."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split

from skl_softmax import TorchSoftmaxClassifier

TOPICS = {
    "weather": ["rain", "sun", "wind", "storm", "cloud", "forecast", "cold", "warm", "snow", "degrees"],
    "sport": ["goal", "match", "team", "season", "coach", "league", "score", "player", "final", "win"],
    "money": ["bank", "stock", "price", "market", "rate", "fund", "profit", "tax", "trade", "bond"],
}
COMMON = [
    "the",
    "a",
    "of",
    "and",
    "to",
    "in",
    "on",
    "for",
    "with",
    "this",
    "that",
    "today",
    "after",
    "before",
    "new",
    "old",
    "big",
    "small",
]

rng = np.random.default_rng(0)
labels = rng.choice(list(TOPICS), size=2000)
texts = [" ".join([*rng.choice(TOPICS[label], 4), *rng.choice(COMMON, 12)]) for label in labels]
train, test, y_train, y_test = train_test_split(texts, labels, random_state=0)

vectorizer = TfidfVectorizer()
X_train, X_test = vectorizer.fit_transform(train), vectorizer.transform(test)  # sparse, and they stay so
model = TorchSoftmaxClassifier(l1_ratio=1.0, C=0.5).fit(X_train, y_train)

print(
    f"test accuracy {model.score(X_test, y_test):.3f}; {np.mean(model.coef_ != 0):.0%} of the coefficients are not zero"
)
words = vectorizer.get_feature_names_out()
for label, weights in zip(model.classes_, model.coef_, strict=True):
    print(f"{label}: {', '.join(words[np.argsort(weights)[::-1][:5]])}")
