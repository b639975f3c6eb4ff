"""The bundled demo site: a bookshop and a page of quotes, served on this machine.

It runs in a process of its own (`python -m vscrapy_magic.demo`); `vscrapy demo`, the notebooks and
the tests crawl it, so none of them needs a network. `DemoSite` in `site.py` starts and ends that
process. Standard library only: no Scrapy, no Redis.
"""
