"""Approximate leave-one-out: what each row's logits would be had the model not seen the row.

Without row i, one Newton step from the minimum θ leads to logits

    z_i + B_i (I - D_i B_i)⁻¹ r_i,      B_i = (s_i / S) (I ⊗ x̃_i)ᵀ H⁻¹ (I ⊗ x̃_i),

with the residual r_i = p_i - y_i, D_i the second derivatives of the row's loss by its logits, and H the Hessian of F.
Rad & Maleki (2020), "A scalable estimate of the out-of-sample prediction error via approximate leave-one-out
cross-validation"; Stephenson & Broderick (2020), "Approximate cross-validation in high dimensions with guarantees".
"""

import torch
from torch import Tensor

from skl_softmax.data import linear, making_on
from skl_softmax.inputs import TrainingRows
from skl_softmax.objective import Objective, curvature
from skl_softmax.objective.costs import DENSE_LIMIT
from skl_softmax.scores import Measure, by_class
from skl_softmax.solver_parameters import Penalty
from skl_softmax.sweep import Sweep
from skl_softmax.training import make_stack

# Parameters of which the Hessian is formed.
PARAMETER_LIMIT = DENSE_LIMIT
# How many times as large a residual may become without the row. Beyond, 1 less the leverage is known to few digits.
MOST_INFLUENCE = 1e12


def left_out_scores(
    rows: TrainingRows, weights: Tensor, penalties: list[Penalty], sweep: Sweep, truth: Tensor, measure: Measure
) -> Tensor:
    """A measure (J, n) of each row by the models without it, from the one fold of a sweep over C.

    ``weights`` (1, counted) are of the fit, ``truth`` (n,) or (n, K) what the rows are scored against. Rows that do not
    count are left out of the fit as it is.
    """
    data, targets = sweep.data, by_class(truth)  # (1, 1 or K, n)
    scores = []
    for j, penalty in enumerate(penalties):
        if not sweep.solved[j]:
            scores.append(torch.full((1, len(truth)), torch.nan, dtype=torch.float64))
            continue
        objective = make_stack(rows.counted, data, weights, penalty)
        theta = data.to_theta(sweep.weight[:, j], sweep.bias[:, j])  # (1, K, p)
        with making_on(data.home):
            logits = left_out_logits(objective, theta).cpu()  # (K, counted)
        if not rows.all_count:
            found = linear(rows.X, sweep.weight[0, j], sweep.bias[0, j]).cpu().double().T  # (K, n)
            logits = found.contiguous().masked_scatter(rows.counts, logits)
        by_row = measure(logits[None], targets)  # (1, n)
        scores.append(torch.where(logits.isnan().any(dim=0), torch.nan, by_row))
    return torch.cat(scores)


def left_out_logits(objective: Objective, theta: Tensor) -> Tensor:
    """The logits (K, n) of each row by the model without it, from the minimum θ (1, K, p) with all rows.

    B_i = (s_i / S) A_iᵀ A_i, A_i = L⁻¹ (I ⊗ x̃_i) by the Cholesky factor L: of collinear columns without a penalty L⁻¹
    has entries of 1e7 that cancel, of which H⁻¹ has the squares. Costs the Hessian and as many operations again. Where
    I - D_i B_i is singular to rounding, as of a row that alone holds a parameter, they are nan.
    """
    n_outputs, n_columns = theta.shape[1:]
    factor = curvature.factorise(curvature.hessian(objective, theta))[0]  # (P, P)
    half = torch.linalg.solve_triangular(factor, torch.eye(len(factor), dtype=factor.dtype), upper=False)  # (P, P)
    half = half.view(-1, n_outputs, n_columns).permute(2, 1, 0).flatten(1)  # (p, K P)
    eye, found = torch.eye(n_outputs, dtype=torch.float64), []
    for rows in curvature.row_slices(objective.n_rows, n_outputs**2 * n_columns):
        block, targets, weights, _ = objective.portion(objective.data.block(rows))
        logits = objective.logits(block, theta)[0, 0]  # (K, rows)
        residual = objective.loss.value_and_residual(logits, targets[0, 0])[1]  # (K, rows)
        logits, residual, shares = map(objective.gathered, (logits, residual, weights[0, 0, 0]))
        design = objective.data.design(rows)  # (rows, p)
        halves = (design @ half).view(len(design), n_outputs, -1)  # (rows, K, P)
        leverage = halves @ halves.mT * (shares / objective.total)[:, None, None]  # (rows, K, K)
        curved = objective.loss.curvature_product(objective.curvature_proba(logits), leverage.permute(2, 1, 0))
        inverse = torch.linalg.inv_ex(eye - curved.permute(2, 1, 0)).inverse  # (rows, K, K)
        is_open = ~(inverse.abs().amax(dim=(1, 2)) < MOST_INFLUENCE)  # (rows,)
        change = (leverage @ (inverse @ residual.T[..., None]))[..., 0].T  # (K, rows)
        found.append(torch.where(is_open, torch.nan, logits + change))
    return torch.cat(found, dim=1)
