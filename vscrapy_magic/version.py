"""Owns the version of the package; read by the build, and by whoever shows it."""

__version__ = "0.1.0.dev0"
