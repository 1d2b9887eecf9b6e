"""Tests of `copycat.sync`."""
