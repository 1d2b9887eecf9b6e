"""What helps to test programs that use Copycat: read ``local_cluster.py`` first.

The library itself never needs it.
"""
