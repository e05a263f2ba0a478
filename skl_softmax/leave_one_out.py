"""Approximate leave-one-out: what each row's logits would be had the model not seen the row.

Without row i, one Newton step from the minimum θ leads to logits

    z_i + B_i (I - D_i B_i)⁻¹ r_i,      B_i = (s_i / S) (I ⊗ x̃_i)ᵀ H⁻¹ (I ⊗ x̃_i),

with the residual r_i = p_i - y_i, D_i the second derivatives of the row's loss by its logits, and H the Hessian of F.
Rad & Maleki (2020), "A scalable estimate of the out-of-sample prediction error via approximate leave-one-out
cross-validation"; Stephenson & Broderick (2020), "Approximate cross-validation in high dimensions with guarantees".
"""

import torch
from torch import Tensor

from skl_softmax import curvature
from skl_softmax.objective import Objective


def left_out_logits(objective: Objective, theta: Tensor) -> Tensor:
    """The logits (K, n) of each row by the model without it, from the minimum θ (1, K, p) with all rows.

    Costs the Hessian and as many operations again.
    """
    n_outputs, n_columns = theta.shape[1:]
    factor = curvature.factorise(curvature.hessian(objective, theta))[0]  # (P, P)
    inverse = torch.cholesky_inverse(factor).view(n_outputs, n_columns, n_outputs, n_columns)
    inverse = inverse.permute(1, 0, 2, 3).flatten(1)  # (p, K K p)
    targets, shares = _targets(objective), objective.weights[0].double() / objective.total[0]  # (n, K), (n,)
    found = []
    for rows in curvature.portions(objective.n_rows, n_outputs**2 * n_columns):
        design = objective.data.design(rows)  # (rows, p)
        logits = design @ theta[0].T  # (rows, K)
        proba = objective.proba(logits.T).T
        leverage = (design @ inverse).view(len(design), n_outputs, n_outputs, n_columns) @ design[:, None, :, None]
        leverage = leverage[..., 0] * shares[rows, None, None]  # (rows, K, K)
        residual = (proba - targets[rows])[..., None]  # (rows, K, 1)
        system = torch.eye(n_outputs, dtype=torch.float64) - _curvature(proba) @ leverage
        found.append(logits + (leverage @ torch.linalg.solve(system, residual))[..., 0])
    return torch.cat(found).T


def _curvature(proba: Tensor) -> Tensor:
    """D_i of each row, (rows, K, K)."""
    if proba.shape[1] == 1:
        return (proba * (1 - proba))[..., None]
    return torch.diag_embed(proba) - proba[..., None] * proba[:, None]


def _targets(objective: Objective) -> Tensor:
    """The targets as probabilities of the outputs, (n, K)."""
    if objective.n_outputs == 1:
        return objective.targets[:, None].double()
    if objective.targets.is_floating_point():
        return objective.targets.double()
    if objective.label_proba is not None:
        return objective.label_proba[objective.targets].double()
    return torch.nn.functional.one_hot(objective.targets, objective.n_outputs).double()
