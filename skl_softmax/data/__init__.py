"""X behind the few products that an objective needs.

The solvers never see X. They see parameters θ of the *standardised design*

    x̃_i = ((x_i - mean) / scale, 1),        p = d + 1 columns,

θ = (W * scale, b + W mean), an exact change of variables: F does not change, only its conditioning does. Without an
intercept there is no last column and the mean is zero. X is never copied as a whole, nor centred or scaled in memory:

- The scale is folded into the parameters: a product with x̃ is one with W = θ / scale.
- So is the mean, unless rounding would not survive it: where |mean| is far larger than the spread of a column,
  blocks of rows are centred while they are in cache. Blocks are also widened to the dtype of the computation there.
- Only of tables of a few megabytes the design itself is kept: there the calls cost more than the arithmetic.
- Sparse X is made dense only if that takes no more memory, or next to none, and centred only where next to no zeros
  are. What moves no logit of its categories is found (`null_space`).
- Dense rows fewer than columns are taken in coordinates of the space that they span (`span`) if a copy is small.

A block holds its rows as ``n_parts`` parts of ``part`` rows each, and logits have the shape (n_parts, q, part): matrix
products with few classes are twice as fast in batches of a thousand rows as in one piece, and softmax over a middle
dimension is seven times faster than over the last one. Large products in float32 are in one piece (`products`).
"""

from skl_softmax.data.base import FLOAT32_RANGE, Affine, Block, Data, as_tensor, widened
from skl_softmax.data.compressed import csr_tensor, scipy_matrix
from skl_softmax.data.coordinates import in_coordinates, normalised, raw, rotated, standardised
from skl_softmax.data.dense import DenseData
from skl_softmax.data.devices import find_device, home_of, making_on, plain_torch
from skl_softmax.data.logits import linear
from skl_softmax.data.null_space import NullSpace
from skl_softmax.data.row_blocks import RowBlocks
from skl_softmax.data.rows import column_ranges, join_rows, n_bytes, on_device, spread_rows, take_rows, without_sparsity
from skl_softmax.data.sparse import SparseData

__all__ = [
    "FLOAT32_RANGE",
    "Affine",
    "Block",
    "Data",
    "DenseData",
    "NullSpace",
    "RowBlocks",
    "SparseData",
    "as_tensor",
    "column_ranges",
    "csr_tensor",
    "find_device",
    "home_of",
    "in_coordinates",
    "join_rows",
    "linear",
    "making_on",
    "n_bytes",
    "normalised",
    "on_device",
    "plain_torch",
    "raw",
    "rotated",
    "scipy_matrix",
    "spread_rows",
    "standardised",
    "take_rows",
    "widened",
    "without_sparsity",
]
