"""Every storage of X against the explicit design."""

from functools import reduce
from operator import add

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from skl_softmax import data
from skl_softmax.data import DenseData, SparseData, column_ranges, compressed, csr_tensor, linear, standardised
from skl_softmax.data import logits as logits_module

X = np.random.default_rng(0).normal(size=(37, 4)) * [1e-3, 1, 1e3, 1] + [5, -1e4, 0, 2]
X[:, 3] = 7.25  # a constant column
SPARSE = np.where(np.random.default_rng(1).random((37, 6)) < 0.3, np.random.default_rng(2).normal(size=(37, 6)), 0)
SPARSE[5], SPARSE[:, 2] = 0, 0  # an empty row and an empty column
# Beside them a time stamp, an age of which one is zero, a column about zero, ones, and a category that most rows have.
NUMBERS = np.random.default_rng(3).normal(size=(37, 5)) * [30, 12, 1, 0, 0] + [1.7e5, 40, 0, 1, 1]
NUMBERS[3, [1, 4]] = 0
MIXED = np.hstack([SPARSE, NUMBERS])


def explicit_design(fit_intercept):
    mean = X.mean(axis=0) if fit_intercept else np.zeros(4)
    scale = np.abs(X - mean).max(axis=0)
    scale[scale < 1e-12] = 1
    design = (X - mean) / scale
    return np.hstack([design, np.ones((len(X), 1))]) if fit_intercept else design


def cases():
    """Data of every kind with the design that it stands for, and how exact its products are."""
    for fit_intercept in (True, False):
        ones = [np.ones((37, 1))] if fit_intercept else []
        design = explicit_design(fit_intercept)
        yield DenseData.standardised(torch.from_numpy(X), fit_intercept), design, 1e-12
        # Rounding X to float32 moves column 1, 1e4 times as far from zero as it is wide, by 1e4 * 6e-8 of its width.
        yield DenseData.standardised(torch.from_numpy(X).float(), fit_intercept), design, 2e-3
        yield DenseData.standardised(torch.from_numpy(X), fit_intercept).narrow(), design, 1e-5
        yield DenseData.raw(torch.from_numpy(X), fit_intercept, torch.float64), np.hstack([X, *ones]), 1e-12
        sparse = SparseData.raw(csr_tensor(sp.csr_array(SPARSE)), fit_intercept, torch.float64)
        yield sparse, np.hstack([SPARSE, *ones]), 1e-12
        yield sparse.narrow(), np.hstack([SPARSE, *ones]), 1e-5
        mixed = SparseData.standardised(csr_tensor(sp.csr_array(MIXED)), fit_intercept)
        yield mixed, np.hstack([MIXED - mixed.mean.numpy(), *ones]), 1e-12
        yield mixed.narrow(), np.hstack([MIXED - mixed.mean.numpy(), *ones]), 1e-5 if fit_intercept else 1e-3
        sparse = SparseData.raw(csr_tensor(sp.csr_array(SPARSE.astype(np.float32))), fit_intercept, torch.float64)
        yield sparse, np.hstack([SPARSE.astype(np.float32).astype(float), *ones]), 1e-12
        yield sparse.narrow(), np.hstack([SPARSE, *ones]), 1e-5


CASES = pytest.mark.parametrize(
    ("rows", "design", "tolerance"), list(cases()), ids=lambda v: type(v).__name__ if isinstance(v, data.Data) else ""
)


@pytest.fixture(params=[1, 2, 37, 1000], ids="{}-row-blocks".format)
def block_rows(request, monkeypatch):
    monkeypatch.setattr(data.dense, "BLOCK_BYTES", request.param * 6 * 8)
    monkeypatch.setattr(data.sparse, "SPARSE_LOGITS_BYTES", request.param * 3 * 8)


@pytest.fixture(params=[True, False], ids=["kept", "not kept"])
def keep(request, monkeypatch):
    monkeypatch.setattr(data.dense, "KEEP_BYTES", 2**24 if request.param else 0)
    monkeypatch.setattr(data.sparse, "BLOCK_ROWS", 5 if request.param else 2**16)
    monkeypatch.setattr(data.compressed, "MOST_VECTORS", 2 if request.param else 32)
    monkeypatch.setattr(data.sparse, "BLOCK_ROWS_PER_COLUMN", 0)


@pytest.mark.usefixtures("block_rows", "keep")
@CASES
def test_products_equal_those_of_the_explicit_design(rows, design, tolerance):
    rows = rows.take(torch.arange(37))  # a copy, so that nothing is kept from other settings
    design = torch.from_numpy(design)
    close = {"rtol": tolerance, "atol": tolerance * design.abs().max().item() * 10}
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(3, design.shape[1], dtype=torch.float64, generator=generator)
    residual = torch.randn(3, 37, dtype=torch.float64, generator=generator)
    affine = rows.affine(theta)
    logits, sums = [], []
    for block in rows.blocks(3):
        parts, part = block.parts
        logits.append(block.logits(affine).transpose(0, 1).flatten(1))
        by_part = residual[:, block.rows].to(rows.dtype).unflatten(1, (parts, part)).transpose(0, 1)
        sums.append(block.pullback(by_part, affine.bias is not None))
    torch.testing.assert_close(torch.cat(logits, dim=1).double(), theta @ design.T, **close)
    total = sums[0]
    for term in sums[1:]:
        total = total + term
    torch.testing.assert_close(rows.gradient(total).double(), residual @ design, **close)


@CASES
def test_without_weights_logits_are_the_intercepts(rows, design, tolerance):
    theta = torch.zeros(3, rows.n_columns, dtype=torch.float64)
    theta[:, rows.X.shape[1] :] = torch.tensor([[1.0], [-2.0], [0.5]])
    logits = [block.logits(rows.affine(theta)).transpose(0, 1).flatten(1) for block in rows.blocks(3)]
    expected = theta[:, rows.X.shape[1] :].sum(dim=1, keepdim=True).expand(3, 37)
    torch.testing.assert_close(torch.cat(logits, dim=1).double(), expected)


@pytest.mark.usefixtures("keep")
@CASES
def test_design_and_norms(rows, design, tolerance):
    rows = rows.take(torch.arange(37))
    close = {"rtol": tolerance, "atol": tolerance * np.abs(design).max() ** 2}
    weights = torch.rand(2, 37, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    design = torch.from_numpy(design)
    assert rows.n_columns == design.shape[1]
    torch.testing.assert_close(rows.design(slice(3, 9)), design[3:9], **close)
    norms = rows.column_norms(weights.to(rows.dtype) if isinstance(rows, SparseData) else weights)
    torch.testing.assert_close(norms.double(), weights @ design.square(), **close)
    theta = weights[:, : rows.n_columns] / rows.n_columns
    norms = rows.norms_by_logits(theta, lambda logits, rows: logits.square() * weights[:, rows].to(logits))
    by_logits = weights * (theta @ design.T).square()
    close["atol"] = tolerance * (by_logits @ design.square()).max().item()
    torch.testing.assert_close(norms.double(), by_logits @ design.square(), **close)
    torch.testing.assert_close(rows.row_norms().double(), design.square().sum(dim=1), **close)


@CASES
def test_take_is_the_rows_in_the_same_coordinates(rows, design, tolerance):
    index = torch.tensor([3, 3, 0, 36, 5])
    taken = rows.take(index).design(slice(0, 5))
    torch.testing.assert_close(taken, torch.from_numpy(design)[index], rtol=tolerance, atol=tolerance * 1e4)


@CASES
def test_theta_gives_the_same_logits_and_goes_back(rows, design, tolerance):
    generator = torch.Generator().manual_seed(0)
    n_features = rows.X.shape[1]
    weight = torch.randn(3, n_features, dtype=torch.float64, generator=generator)
    bias = torch.randn(3, dtype=torch.float64, generator=generator) * rows.fit_intercept
    theta = rows.to_theta(weight, bias)
    x = rows.X.to_dense().double()
    close = {"rtol": 10 * tolerance, "atol": 1e4 * tolerance}
    torch.testing.assert_close(theta @ torch.from_numpy(design).T, weight @ x.T + bias[:, None], **close)
    for actual, given in zip(rows.from_theta(theta), (weight, bias), strict=True):
        torch.testing.assert_close(actual, given, rtol=1e-11, atol=1e-10)
    torch.testing.assert_close((rows.penalty_scale() * theta.square()).sum(), weight.square().sum())


def test_constant_columns_vanish_exactly():
    rows = DenseData.standardised(torch.full((10_000, 2), 0.1, dtype=torch.float64), fit_intercept=True)
    assert (rows.design(slice(0, 10_000))[:, :2] == 0).all()


def test_columns_that_are_constant_in_most_rows_are_seen():
    rare = torch.zeros(20_000, 2, dtype=torch.float64)
    rare[7, 0], rare[9, 1] = 5.0, -1e-8
    rows = DenseData.standardised(rare, fit_intercept=True)
    torch.testing.assert_close(rows.scale, torch.tensor([5.0, 1e-8], dtype=torch.float64), rtol=1e-3, atol=0)


def test_columns_of_extreme_scale_are_standardised_without_overflow():
    extreme = torch.from_numpy(np.array([[1e150, 1e-150], [-1e150, 3e-150], [2e150, 2e-150]]))
    design = DenseData.standardised(extreme, fit_intercept=True).design(slice(0, 3))
    torch.testing.assert_close(design.abs().amax(dim=0), torch.ones(3, dtype=torch.float64))


@pytest.mark.usefixtures("keep")
def test_a_mean_far_from_zero_does_not_cost_digits():
    generator = torch.Generator().manual_seed(0)
    near = torch.randint(-8, 8, (500, 2), generator=generator).double()
    theta = torch.randn(1, 3, dtype=torch.float64, generator=generator)
    for offset in (0.0, 2.0**40):  # exact in float64, so that both hold the same rows
        rows = DenseData.standardised(near + offset, fit_intercept=True)
        logits = torch.cat([b.logits(rows.affine(theta)).transpose(0, 1).flatten(1) for b in rows.blocks(1)], dim=1)
        torch.testing.assert_close(logits, theta @ rows.design(slice(0, 500)).T, rtol=1e-12, atol=1e-12)


def test_blocks_have_one_memory_however_often_they_are_gone_through(monkeypatch):
    monkeypatch.setattr(data.dense, "KEEP_BYTES", 0)
    monkeypatch.setattr(data.dense, "BLOCK_BYTES", 5 * 6 * 4)
    rows = DenseData.standardised(torch.from_numpy(X), True).narrow()
    buffer = {block.x.untyped_storage().data_ptr() for _ in range(2) for block in rows.blocks(1)}
    assert len(buffer) == 1
    wide = [block.x.shape[1] for block in rows.blocks(1)]  # with fewer logits there is room for more rows
    narrow = [block.x.shape[1] for block in rows.blocks(15)]
    assert sum(wide) == sum(narrow) == 37
    assert wide[0] > narrow[0]


def test_X_is_not_written_to():
    before = torch.from_numpy(X.copy())
    rows = DenseData.standardised(before, fit_intercept=True)
    rows.design(slice(0, 37)).zero_()
    np.testing.assert_array_equal(before.numpy(), X)


def test_sparse_rows_share_memory_with_scipy():
    matrix = sp.csr_array(SPARSE)
    assert csr_tensor(matrix).values().data_ptr() == matrix.data.ctypes.data


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_sparse_products_lie_column_by_column_and_are_taken_so(fit_intercept, monkeypatch):
    rows = SparseData.raw(csr_tensor(sp.csr_array(SPARSE)), fit_intercept, torch.float64)
    (block,) = rows.blocks(3)
    residual = torch.ones(1, 3, len(SPARSE), dtype=torch.float64)
    gradient = rows.gradient(block.pullback(residual, with_bias=fit_intercept))  # (q, p)
    assert gradient.T.is_contiguous()
    assert gradient.shape == (3, rows.n_columns)
    taken, given = [], np.ascontiguousarray
    monkeypatch.setattr(np, "ascontiguousarray", lambda array: taken.append(array) or given(array))
    block.logits(rows.affine(gradient))
    assert taken[0].flags.c_contiguous  # and so not copied


@pytest.mark.parametrize("block_rows", [5, 2**16])
def test_numbers_beside_sparse_columns_are_centred_and_the_others_left(block_rows, monkeypatch):
    monkeypatch.setattr(data.sparse, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(data.sparse, "BLOCK_ROWS_PER_COLUMN", 0)
    matrix = sp.csr_array(MIXED)
    before = matrix.copy()
    rows = standardised(csr_tensor(matrix), fit_intercept=True)
    expected = np.where(np.isin(np.arange(11), [6, 7]), MIXED.mean(axis=0), 0)
    np.testing.assert_allclose(rows.mean, expected, rtol=1e-15)
    for block in rows.blocks(1):
        np.testing.assert_allclose(block.values, (MIXED - expected)[block.rows, 6:9].T, rtol=1e-12, atol=1e-12)
        assert block.x_transposed.values().numel() == np.count_nonzero(np.delete(MIXED, [6, 7, 8], 1)[block.rows])
    assert abs(matrix - before).max() == 0
    assert not standardised(csr_tensor(matrix), fit_intercept=False).mean.any()
    assert rows.nominal_sizes[6] < 200


def test_sparse_is_never_made_dense():
    # 30,000 x 3,000,000 would take 720 GB.
    rng = np.random.default_rng(0)
    matrix = sp.random_array((30_000, 3_000_000), density=1e-6, random_state=rng, format="csr")
    rows = standardised(csr_tensor(matrix), fit_intercept=True)
    theta = torch.zeros(1, rows.n_columns, dtype=torch.float64)
    (block,) = rows.blocks(1)
    assert block.logits(rows.affine(theta)).shape == (1, 1, 30_000)


@pytest.mark.parametrize("n_numbers", [0, 1, 12, 25, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_memory_beside_a_sparse_matrix_is_bounded(dtype, n_numbers):
    """Beside 25 other entries in a row."""
    rng = np.random.default_rng(0)
    others = sp.random_array((2_000, 2_500), density=0.01, rng=rng, format="csr")
    matrix = sp.hstack([others, rng.normal(5, 1, size=(2_000, n_numbers))], format="csr", dtype=dtype)
    x = csr_tensor(matrix)
    own = x.values().nbytes + x.col_indices().nbytes
    rows = standardised(x, fit_intercept=True)
    assert len(rows.numbers) == n_numbers
    (block,) = rows.blocks(1)
    parts = [of for matrix in (block.x, block.x_transposed) for of in (matrix.values(), matrix.col_indices())]
    shared = {x.values().data_ptr(), x.col_indices().data_ptr()}
    assert block.values.nbytes + sum(part.nbytes for part in parts if part.data_ptr() not in shared) <= 1.35 * own


@pytest.mark.parametrize("n_values", [1, 7, 10**6])
@pytest.mark.parametrize("n_vectors", [1, 2, 70])
@pytest.mark.parametrize("squares", [False, True])
def test_products_in_another_type_than_that_of_the_values(n_values, n_vectors, squares, monkeypatch):
    monkeypatch.setattr(compressed, "CONVERTED_VALUES", n_values)
    x = csr_tensor(sp.csr_array(SPARSE.astype(np.float32)))
    vectors = torch.randn(n_vectors, SPARSE.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = vectors @ torch.from_numpy(SPARSE.astype(np.float32).astype(float) ** (1 + squares)).T
    found = compressed.times(x, vectors, squares=squares)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_takes_every_storage(dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 6, dtype=dtype, generator=generator)
    bias = torch.randn(3, dtype=dtype, generator=generator)
    dense = linear(torch.from_numpy(SPARSE), weight, bias)
    assert dense.dtype == torch.float64
    torch.testing.assert_close(linear(csr_tensor(sp.csr_array(SPARSE)), weight, bias), dense)


@pytest.mark.parametrize("n_rows", [600, 1100])
@pytest.mark.parametrize("n_columns", [383, 384])
@pytest.mark.parametrize("n_outputs", [7, 8, 100, 129])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_linear_is_the_same_whichever_way_the_product_goes(n_rows, n_columns, n_outputs, dtype):
    generator = torch.Generator().manual_seed(0)
    X, weight, bias = (
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in ((n_rows, n_columns), (n_outputs, n_columns), n_outputs)
    )
    X = X.to(dtype)
    expected = X.double() @ weight.T + bias
    found = linear(X, weight, bias)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous()
    proba = linear(X, weight, bias, lambda logits: torch.softmax(logits, dim=1))
    torch.testing.assert_close(proba, torch.softmax(expected, dim=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_rows_are_widened_for_predictions_in_few_bytes(dtype):
    X, weight = torch.zeros(1, 1, dtype=dtype).expand(300, 20_000), torch.zeros(20, 20_000, dtype=torch.float64)
    heights = []
    linear(X, weight, torch.zeros(20), lambda logits: heights.append(len(logits)) or logits)
    assert sum(heights) == len(X)
    assert 8 * X.shape[1] * max(heights) <= logits_module.PREDICTED_BYTES


@pytest.mark.parametrize("means", [[12345.678, -0.1, 3e5, 0], [2.5, -0.1, 0, -1]], ids=["far", "near"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_are_centred_in_the_type_that_is_quick_and_the_parameters_take_up_the_rest(dtype, means):
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.normal(size=(3000, 4)) + np.array(means)).to(dtype)
    data = standardised(X, True).narrow()
    data.__dict__["keeps"] = False  # as of large X
    is_exact = dtype == torch.float64 and max(means) > 10
    assert data.shift.dtype == (torch.float64 if is_exact else torch.float32)
    theta, r = torch.from_numpy(rng.normal(size=(2, 5))), torch.from_numpy(rng.normal(size=(3000, 2)))  # (q, p), (n, q)
    design = torch.cat([(X.double() - data.mean) / data.scale, torch.ones(3000, 1)], dim=1)  # (n, p)
    logits, total = [], []
    for block in data.blocks(2):
        logits.append(block.logits(data.affine(theta)).permute(0, 2, 1).flatten(0, 1).double())
        total.append(block.pullback(r[block.rows].T.unflatten(1, block.parts).permute(1, 0, 2).float(), True))
    torch.testing.assert_close(torch.cat(logits), design @ theta.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(data.gradient(reduce(add, total)), r.T @ design, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("order", ["C", "F", "every second column"])
@pytest.mark.parametrize("shape", [(1, 3), (7, 2000), (345, 1), (2500, 3), (30_000, 7)], ids=str)
def test_ranges_of_columns(shape, order, dtype):
    X = np.random.default_rng(0).normal(size=shape) + np.arange(shape[1])
    x = torch.from_numpy(np.asfortranarray(X) if order == "F" else X).to(dtype)
    x = x[:, ::2] if order == "every second column" else x
    lowest, highest = column_ranges(x)
    torch.testing.assert_close(lowest, x.double().min(dim=0).values, rtol=0, atol=0)
    torch.testing.assert_close(highest, x.double().max(dim=0).values, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("n_rows", "n_threads", "parts"),
    [
        (5000, 1, [(5, 1000)]),
        (5000, 2, [(8, 625)]),
        (5003, 2, [(6, 833), (1, 5)]),
        (1797, 2, [(3, 599)]),  # rather than one row for itself
        (900, 2, [(1, 900)]),  # no work for two
    ],
)
def test_rows_are_in_equal_parts_for_all_threads_if_they_can_be(n_rows, n_threads, parts, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    data = DenseData.standardised(torch.randn(n_rows, 3, dtype=torch.float64), True)
    assert [block.parts for block in data.blocks(3)] == parts
    within = [block.rows for block in data.blocks(3, slice(10, 700))]
    assert within == [slice(10, 700)]


@pytest.mark.parametrize("n_threads", [2, 3, 16])
@pytest.mark.parametrize("n_columns", [20, 2000, 100_000])
def test_every_thread_has_a_part_of_large_blocks(n_columns, n_threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    X = torch.zeros(1, n_columns, dtype=torch.float64).expand(4_000_000 // n_columns, -1)  # no memory of their own
    *blocks, last = DenseData.raw(X, True, torch.float64).blocks(3)
    assert blocks
    assert sum(len(X[block.rows]) for block in (*blocks, last)) == len(X)
    if n_columns < 100_000:
        assert all(block.parts[0] % n_threads == 0 for block in blocks)
    for block in blocks:  # so that threads have work
        assert block.parts[1] >= min(10, 8 * 2**20 // (8 * n_columns))


@pytest.mark.parametrize(("n_columns", "is_copied"), [(3, False), (50, True)])
def test_blocks_of_long_rows_are_copies_that_stay_in_cache(n_columns, is_copied):
    X = torch.randn(4_000_000 // n_columns, n_columns, dtype=torch.float64)
    blocks = list(DenseData.standardised(X, True).blocks(3))
    begins = {block.x.data_ptr() for block in blocks}
    assert len(blocks) > 2
    assert (len(begins) == 1) if is_copied else (len(begins) == len(blocks))
