"""
A linear probe on embeddings
============================

Half-precision embeddings as torch tensors, C chosen on one validation set. Needs the extra "plot".
"""

import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.model_selection import PredefinedSplit

from skl_softmax import TorchSoftmaxClassifierCV
from skl_softmax.displays import RegularizationPathDisplay

n_rows, n_features, n_classes = 3000, 64, 10
generator = torch.Generator().manual_seed(0)
y = torch.randint(n_classes, (n_rows,), generator=generator)
centres = torch.randn(n_classes, n_features, generator=generator)
embeddings = (centres[y] + 2.5 * torch.randn(n_rows, n_features, generator=generator)).to(torch.bfloat16)

# %%
# -1 stands for rows that are always in the training part, 0 for the validation set.
split = PredefinedSplit(np.where(np.arange(n_rows) % 5 == 0, 0, -1))
probe = TorchSoftmaxClassifierCV(Cs=np.logspace(-4, 1, 6), cv=split).fit(embeddings, y)
for C, score in zip(probe.Cs_, probe.scores_[0, 0], strict=True):
    print(f"C={C:<8g} log loss {-score:.4f}{'  <' if probe.C_ == C else ''}")

# %%
# The result is a torch module, for the rest of the network.
head = probe.to_torch()
print(head, head(embeddings[:2].float()).shape)

# %%
# Scores and coefficients on the way. One validation set has no spread.
RegularizationPathDisplay.from_estimator(probe)
plt.show()
