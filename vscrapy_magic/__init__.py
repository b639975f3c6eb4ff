"""Distributed Scrapy crawls from a notebook or a terminal, as easy as a local one."""

__version__ = "0.1.0.dev0"
