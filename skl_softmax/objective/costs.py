"""What evaluations and models of the curvature take, in seconds, by counts of operations and measured rates.

By them is chosen what to do; only their ratios matter.
"""

# Rows for each parameter in a sample that the Hessian is taken from. From a sample's optimum,
# letter took 20 iterations with 4 and 10 with 8, 200,000 x 50 x 5 took 9 and 6.
ROWS_PER_PARAMETER = 8
# Passes that a Hessian of all rows may cost, and rows for each parameter, for Newton's method to be taken in place of
# L-BFGS: with two classes 1,000 x 100 takes 0.6 of the time so, 5,000 x 50 0.5, 10,000 x 100 0.5 to 1.0, 5,000 x 30
# with three 0.9 to 1.1. At 8 passes, of 5,000 x 200 with two classes, it is 0.8 to 1.6, and with more rows, as 20,000 x
# 100 with two, 0.7 to 1.1.
NEWTON_PASSES, NEWTON_ROWS = 5.0, 128
# Rows up to which that is so with two classes, however few the parameters are: from 10,000 x 40 to 30,000 x 50, scaled
# and raw, with C from 0.01 to 1e4, Newton's method takes 0.4 to 1.1 of the time (0.72 in the mean), with 40,000 rows
# 1.0 to 1.2, with 50,000 and more 0.8 to 2.5.
NEWTON_ROWS_OF_TWO = 2**15
# `NEWTON_PASSES` where a sample would be all rows: up to 6 fits take 0.6 to 1.0 of the time, at 9 to 11 0.6 to 1.3, at
# 13 to 17 0.6 to 1.7.
NEWTON_PASSES_OF_FEW = 11.0
# What both are multiplied by for several outputs, from four rows for each parameter on: their Hessian at θ = 0, the
# first of three or four, costs little. Fits of 15 tables that this adds, from 1,500 x 100 to 10,000 x 20 with three to
# eight classes, take 0.8 of the time with C from 0.01 to 1e4 (0.46 to 1.04), of raw letter and covertype 0.85; with
# fewer rows seven tables take 0.96 (0.65 to 1.42) and three others 1.1, from 28 passes on 1.3.
NEWTON_OF_SEVERAL = 2.0
# Passes that all rows may cost in place of a sample whose steps were too long, which else doubles: it lacks single rows
# far out. Of 36 fits of 100,000 and 200,000 rows, with some of 1e3 to 1e6, five ended at 3 to 100 times tol and three
# had not converged after 15,000 passes, with samples that doubled; so none and two.
GROWN_PASSES = 32.0
# Rows for each column in a sample that the Kronecker factors are taken from.
ROWS_PER_COLUMN = 8
# Passes that the Gram matrix of all rows may cost for the metric at θ = 0. Fits of 16 tables with C of 0.01, 1 and 100
# take 0.9 of the time that they take with eigenvectors of a sample's (0.5 to 1.3); with 4 passes embeddings take 1.1.
PASSES_AT_ZERO = 2.0
# Above these sizes a matrix of that order is not formed: the Hessian has P² entries, the Gram matrix p².
DENSE_LIMIT = 1200
GRAM_LIMIT = 6000
# What the choice is made with, measured on two cores in float64: matrix products, factorisations and
# eigendecompositions in operations a second; what a pass does beyond its products, in seconds an element of x̃ and of
# the logits; what any evaluation costs at least.
PRODUCT_RATE, FACTOR_RATE, ELEMENT_SECONDS, CALL_SECONDS = 6e10, 2e10, 5e-10, 5e-4
# Likewise, what a stretch of rows by itself takes more: calls for 8e-5 to 2e-4, and products of fewer rows at a time.
STRETCH_SECONDS = 2.5e-4
# Likewise, to fetch an entry of a row from anywhere in a large X and standardise it.
GATHER_SECONDS = 1e-8
# Likewise, for a class to weigh a row of which some are drawn.
DRAW_SECONDS = 2e-8
# Passes over sparse rows that their Gram matrix may cost, with its eigenvectors, or a Hessian, for columns to be few.
# Of 19 tables of 200 to 1,200 parameters, each with C of 0.01, 1 and 1e4, six take 0.05 to 0.4 of the time that they
# took where a Hessian was made whatever it costs, four 0.3 to 0.9 and the others as long. With 30 three of them take
# 1.1 to 3 times as long as with 10, with 3 three others take 1.5 to 2.7 times as long.
GRAM_PASSES = 10
# Passes that the Hessian of sparse rows may cost for Newton's method to form it, and how many times its price may go
# into products before. Of nine tables of 100 to 1,800 parameters, each with C of 0.01, 1 and 1e4, two take as long as
# by the Hessian, four 0.07 to 1 of that, two a twentieth or less (100,000 x 1,550 with C=1e4 0.1 s for 78) and one, of
# rows that are nearly told apart, 0.5 to 1.1. Dense rows would take a third, but there the Hessian tells what one row
# far out holds.
DIRECT_PASSES, PRODUCT_PRICES = 30.0, 5
# Rows that have to show each column for each class for Kronecker factors. With 25 to 120 one-hot tables take 0.2 to 1.0
# of the time that the diagonal takes where C is 100 or less, and 3 to 4 times as long with 1e4. With 6 or fewer and C
# large, rows of such columns come to be told apart, which changes single entries of the diagonal by orders of
# magnitude, and these factors, which do not follow, took hundreds of iterations.
ROWS_PER_CLASS = 10
# What fits without one row each may take for each C of approximate leave-one-out. From the minimum with all rows such a
# fit takes as long as a Hessian (digits), or less.
REFIT_SECONDS = 0.2
# Multiplications from which on a Hessian is tried in float32. Newton's method takes 0.65 to 0.85 of the time so from
# 1,000 x 100 with three classes or 5,000 x 100 with two on; with a half or a quarter no table took less.
NARROW_WORK = 2**25

# Columns above which it pays to factorise few rows, which wakes threads; how many times the rows they have to be; what
# the factors may take. With half as many rows as columns fits take a half to a twentieth of the time (300 x 600 to
# 2,000 x 4,000), at three quarters 0.2 to 1.2 of it, at nine tenths about as long.
SPAN_COLUMNS, SPAN_GAIN, SPAN_BYTES = 200, 4 / 3, 256 * 2**20

# Logits of a row that take longer than to know the ranges of the columns: of 200,000 x 50 ten take 8 ms, ranges 4.
BOUND_OUTPUTS = 10

# Passes longer than this may be worth taking in float32.
NARROW_SECONDS = 2e-3
# The part of a pass that float32 has to save, as to leave it takes another: of 200,000 x 50 x 5, 1,000,000 x 20 x 3 and
# 10,000 x 784 x 10 in float64 the fits take 0.9, 0.8 and 0.8 of the time without, 20,000 x 512 x 100 takes 1.2.
NARROW_GAIN = 0.25


def pass_seconds(objective) -> float:
    """Estimated time of a value with its gradient."""
    n_entries, n_logits = objective.data.row_entries, objective.n_outputs
    work = 4 * n_logits * n_entries / PRODUCT_RATE + (n_entries + 6 * n_logits) * ELEMENT_SECONDS
    return objective.call_seconds + objective.n_models * objective.n_rows * work


def stretches_pay(objective, n_stretches: int) -> bool:
    """Whether to pass over so many stretches of rows, each for the models in which it counts, is the sooner way."""
    counted = objective.weights.count_nonzero().item() / objective.weights.numel()
    return n_stretches * STRETCH_SECONDS <= (1 - counted) * pass_seconds(objective)


def bound_pays(objective) -> bool:
    """Whether to know the ranges of the columns costs less than the logits of all rows."""
    return objective.data.is_dense and objective.n_models * objective.n_outputs >= BOUND_OUTPUTS


def narrow_pays(objective, converts: bool) -> bool:
    """Whether passes in float32 are worth it: they halve what logits take, but may convert the rows each time."""
    if pass_seconds(objective) < NARROW_SECONDS:
        return False
    n_entries, n_logits = objective.data.row_entries, objective.n_models * objective.n_outputs
    of_logits = 4 * n_logits * n_entries / PRODUCT_RATE + 6 * n_logits * ELEMENT_SECONDS
    of_rows = n_entries * ELEMENT_SECONDS
    return not converts or 0.5 * of_logits - of_rows >= NARROW_GAIN * (of_logits + of_rows)


def rotation_pays(n_rows: int, n_columns: int) -> bool:
    """Whether rows are so few that to solve in the space that they span, for 2 n² d operations, is the sooner way."""
    return n_columns > SPAN_COLUMNS and n_columns >= SPAN_GAIN * n_rows and 8 * n_rows * n_columns <= SPAN_BYTES


def balancing_pays(objective) -> bool:
    """Whether the best intercepts, a few times n K² operations, cost less than a pass, 4 K for each entry."""
    return 2 * objective.n_outputs <= objective.data.row_entries


def dense_seconds(objective, growth: int = 1) -> float:
    """Estimated time of a dense metric of one model."""
    return CALL_SECONDS + _hessian_seconds(dense_rows(objective, growth), objective.n_parameters)


def _hessian_seconds(n_rows: int, n_parameters: int) -> float:
    """Of a Hessian and its factor."""
    return 2 * n_rows * n_parameters**2 / PRODUCT_RATE + n_parameters**3 / (3 * FACTOR_RATE)


def refits_pay(objective, n_models: int) -> bool:
    """Whether fits of so many models, from near the minimum, take next to no time."""
    return n_models * _hessian_seconds(objective.n_rows, objective.n_parameters) <= REFIT_SECONDS


def dense_rows(objective, growth: int = 1) -> int:
    """Rows that a dense metric is taken from: some for each parameter, or more if they cost less than half a pass.

    Times ``growth``; where that has grown, all if they cost no more than `GROWN_PASSES`.
    """
    n_parameters = objective.n_parameters
    row_seconds = 2 * n_parameters**2 / PRODUCT_RATE + objective.data.n_columns * GATHER_SECONDS
    of_pass = pass_seconds(objective) / row_seconds
    available = objective.data.n_rows
    if growth > 1 and available <= GROWN_PASSES * of_pass:
        return available
    return min(available, growth * max(ROWS_PER_PARAMETER * n_parameters, int(0.5 * of_pass)))


def rows_at_zero(objective) -> int:
    """Rows that a metric at θ = 0 is taken from: all where that costs little, else some for each column."""
    n_rows, n_columns = objective.data.n_rows, objective.data.n_columns
    seconds = 2 * n_rows * n_columns**2 / PRODUCT_RATE
    return n_rows if seconds <= PASSES_AT_ZERO * pass_seconds(objective) else ROWS_PER_COLUMN * n_columns


def kronecker_seconds(objective) -> float:
    """Estimated time of a Kronecker metric of one model."""
    n_columns = objective.data.n_columns
    n_rows = min(objective.data.n_rows, ROWS_PER_COLUMN * n_columns)
    return CALL_SECONDS + 2 * n_rows * n_columns**2 / PRODUCT_RATE + 10 * n_columns**3 / FACTOR_RATE


def correlations_pay(objective) -> bool:
    """Whether fits are to know how columns are correlated: those of sparse rows that have few."""
    if objective.data.is_dense:
        return True
    seconds = kronecker_seconds(objective)
    if objective.n_parameters <= DENSE_LIMIT:
        seconds = min(seconds, dense_seconds(objective))
    return seconds <= GRAM_PASSES * pass_seconds(objective)


def newton_pays(objective) -> bool:
    """Whether the Hessian of all rows costs a few passes at most, and one of a sample is not of far fewer rows."""
    n_rows, n_parameters = objective.n_rows, objective.n_parameters
    most_rows = max(NEWTON_ROWS * n_parameters, NEWTON_ROWS_OF_TWO if objective.n_outputs == 1 else 0)
    if objective.n_models > 1 or not objective.data.is_dense or n_rows > most_rows:
        return False
    limit = NEWTON_PASSES if n_rows > ROWS_PER_PARAMETER * n_parameters else NEWTON_PASSES_OF_FEW
    limit *= NEWTON_OF_SEVERAL if objective.n_outputs > 1 and 2 * n_rows >= ROWS_PER_PARAMETER * n_parameters else 1.0
    return CALL_SECONDS + _hessian_seconds(n_rows, n_parameters) <= limit * pass_seconds(objective)


def products_pay(objective, passes: float) -> bool:
    """Whether the Hessian of sparse rows costs many passes, and products may yet do for the price of a few of it."""
    if objective.data.is_dense:
        return False
    price = objective.n_models * _hessian_seconds(objective.n_rows, objective.n_parameters) / pass_seconds(objective)
    return price > DIRECT_PASSES and passes < PRODUCT_PRICES * price


def factors_fit(objective) -> bool:
    """Whether Kronecker factors are near the Hessian: not that of sparse rows of which few show some column."""
    return objective.data.rarest >= ROWS_PER_CLASS * max(2, objective.n_outputs)


def class_seconds(objective, n_rows: int, n_candidates: int) -> float:
    """Estimated time of a metric by classes, of so many rows for each class, drawn from so many."""
    n_outputs, n_columns = objective.n_outputs, objective.data.n_columns
    work = 2 * n_rows * n_columns**2 / PRODUCT_RATE + n_columns**3 / (3 * FACTOR_RATE)
    return CALL_SECONDS + n_outputs * (work + n_candidates * DRAW_SECONDS)
