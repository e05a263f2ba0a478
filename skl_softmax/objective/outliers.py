"""Steps along columns in which one row is far out.

Such a row holds its column while it saturates: its curvature, however little is left of it, exceeds what all others
have, and falls with every step, so that a gap told by curvature may be any part of what is to be gained. A step by the
whole Hessian moves the row far, which is seen; products and metrics leave that out, as next to nothing depends on it.
"""

from dataclasses import replace

import torch
from torch import Tensor

from skl_softmax.objective.curvature import diagonal


def outlying_step(objective, theta: Tensor, gradient: Tensor) -> Tensor | None:
    """Newton's step (M, K, p) from θ by single parameters of the outlying columns, zero else; None without such.

    Around the middle of the other rows, which a mean is far from: there they would have a curvature of their own that
    the intercept takes up. Cost: the diagonal of the Hessian, about a pass.
    """
    columns = objective.data.outlying  # (p,)
    if not columns.any():
        return None
    data, middle = objective.data.around_the_middle()
    if data.fit_intercept:
        intercept = theta[..., -1:] + (theta @ middle.to(theta))[..., None]  # (M, K, 1)
        theta, gradient = torch.cat([theta[..., :-1], intercept], dim=-1), gradient - gradient[..., -1:] * middle
    curved = diagonal(replace(objective, data=data), theta)  # (M, K, p)
    step = torch.where(columns & (curved > 0), -gradient / curved, 0.0)  # (M, K, p)
    if data.fit_intercept:
        step[..., -1] = -(step @ middle)
    return step.to(theta)
