"""Tests of the Raft core: units, text stories (``scripts``) and random hostile lives.

Read ``harness`` first: a cluster of Raft cores with toy logs and disks, in which every message and
every sync happens only when a test says so.
"""
