"""Benchmarks, each run as a module, and the synthetic tables that they and the tests use."""
