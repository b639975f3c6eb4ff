"""Benchmarks: one command each, side by side in alternating rounds, medians and ratios."""
