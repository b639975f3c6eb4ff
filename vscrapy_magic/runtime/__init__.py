"""What runs inside a child process; the only home of Scrapy and Twisted."""
