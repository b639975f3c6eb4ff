"""Spiders of the benchmarks; each file is shipped by itself."""
