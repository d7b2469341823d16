"""Benchmarks: each file asks one question, against the standard library's pool in the same run; see README.md."""
