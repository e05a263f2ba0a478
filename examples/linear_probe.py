"""A linear probe: half-precision embeddings as torch tensors, C chosen on one validation set."""

import numpy as np
import torch
from sklearn.model_selection import PredefinedSplit

from skl_softmax import TorchSoftmaxClassifierCV

n_rows, n_features, n_classes = 6000, 64, 20
generator = torch.Generator().manual_seed(0)
y = torch.randint(n_classes, (n_rows,), generator=generator)
centres = torch.randn(n_classes, n_features, generator=generator)
embeddings = (centres[y] + 2.5 * torch.randn(n_rows, n_features, generator=generator)).to(torch.bfloat16)

# -1: always in the training part; 0: in the validation set.
split = PredefinedSplit(np.where(np.arange(n_rows) % 5 == 0, 0, -1))
probe = TorchSoftmaxClassifierCV(Cs=np.logspace(-4, 2, 7), cv=split).fit(embeddings, y)

for C, score in zip(probe.Cs_, probe.scores_[0, 0], strict=True):
    print(f"C={C:<8g} log loss {-score:.4f}{'  <' if probe.C_ == C else ''}")
head = probe.to_torch()  # a torch module, for the rest of the network
print(head, head(embeddings[:2].float()).shape)
