"""Benchmarks against the way of the release: `make bench`, or `python -m benchmarks.{preprocess,encode,merge}`."""
