"""Benchmarks of skl_softmax beside its peers; see ``python -m benchmarks --help``."""
