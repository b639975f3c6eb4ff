"""The long-lived process on a machine that starts and watches children; never imports Scrapy."""
