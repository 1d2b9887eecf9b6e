"""Benchmarks: of the kernels here, of whole clusters in ``cluster.py``. Not part of the tests."""
