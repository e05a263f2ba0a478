"""The objective of penalised softmax regression and its gradient.

With rows x_i, classes y_i, weights s_i, S = Σ s_i, logits z_i = W x_i + b:

    F(W, b) = (1/S) Σ s_i ℓ(y_i, z_i)  +  λ₂/2 ‖W‖²_F  +  λ₁ ‖W‖₁,        λ₂ = (1 - ρ)/(C S),  λ₁ = ρ/(C S),

ρ the l1_ratio. ℓ is softmax cross-entropy over K outputs, or, for two classes, binary cross-entropy of the sigmoid of
one output. All but the last term is smooth: gradients and curvature are those of that part.

Everything here works on a stack of M models over one X, because sweeps over C and folds solve many at
once; a single fit is M = 1. Shapes, throughout:

    theta, gradient, direction   (M, K, p)              K outputs, p columns of the design (`skl_softmax.data`)
    logits, residual             (parts, M, K, part)    one block of rows, in parts of rows
    value, l2, l1, total         (M,)
    weights                      (M or 1, n)
"""

from skl_softmax.objective.base import Evaluation, Objective

__all__ = ["Evaluation", "Objective"]
