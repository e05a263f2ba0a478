"""A part of the hostile problems of `fuzz`, at every run of the tests."""

import pytest
from fuzz import check


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_hostile_problems(first):
    found = {seed: check(seed)[0] for seed in range(first, first + 20)}
    assert not {seed: problem for seed, problem in found.items() if problem}
