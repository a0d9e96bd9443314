"""Benchmarks and fault runs: long, and not part of the tests."""
