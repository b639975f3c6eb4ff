"""Logins and cookies: what one worker is given, the others send."""

import scrapy
from scrapy.http import FormRequest


class LoginSpider(scrapy.Spider):
    """FormRequest.from_response login; the session's cookie is sent by every worker."""

    name = "login"

    async def start(self):
        yield scrapy.Request(f"{self.site}/login", self.log_in)

    def log_in(self, response):
        data = {"user": "ada", "password": "secret"}
        yield FormRequest.from_response(response, formdata=data, callback=self.logged_in)

    def logged_in(self, response):
        yield {"user": response.css(".user::text").get(), "url": response.url}
        yield from response.follow_all(css="a")

    def parse(self, response):
        yield {"user": response.css(".user::text").get(), "url": response.url}


class LogoutSpider(scrapy.Spider):
    """A cookie that is deleted by one page is sent with no later one."""

    name = "logout"

    async def start(self):
        data = {"user": "ada", "password": "secret", "token": "t0k3n"}
        yield FormRequest(f"{self.site}/login", formdata=data, callback=self.logged_in)

    def logged_in(self, response):
        yield {"user": response.css(".user::text").get()}
        yield response.follow("/logout", self.logged_out)

    def logged_out(self, response):
        for n in range(60):
            yield response.follow(f"/cookies?n={n}", self.parse)

    def parse(self, response):
        yield {"cookies": response.json()}


class JarsSpider(scrapy.Spider):
    """Several sessions at once by meta cookiejar."""

    name = "jars"

    async def start(self):
        for n in range(6):
            yield scrapy.Request(
                f"{self.site}/cookie?user=u{n}", self.known, meta={"cookiejar": n}, dont_filter=True
            )

    def known(self, response):
        jar = response.meta["cookiejar"]
        for n in range(9):
            yield response.follow(f"/cookies?jar={jar}&n={n}", meta={"cookiejar": jar})
        yield response.follow(f"/cookies?jar={jar}&none", cb_kwargs={"none": True})

    def parse(self, response, none=False):
        yield {"jar": response.meta.get("cookiejar"), "cookies": response.json(), "none": none}


class SentSpider(scrapy.Spider):
    """Cookies given with requests: dict and list, kept, merged and dont_merge_cookies."""

    name = "sent_cookies"

    async def start(self):
        yield scrapy.Request(
            f"{self.site}/cookies?0", cookies={"a": "1", "ü": "ö"}, callback=self.more
        )

    def more(self, response):
        yield {"first": response.json()}
        for n in range(50):
            yield response.follow(
                f"/cookies?n={n}", cookies=[{"name": f"own{n}", "value": "x", "path": f"/none{n}"}]
            )
        yield response.follow(
            "/cookies?alone", cookies={"b": "2"}, meta={"dont_merge_cookies": True}
        )

    def parse(self, response):
        yield {"url": response.url, "cookies": response.json()}


class NoCookiesSpider(scrapy.Spider):
    """COOKIES_ENABLED = False, with a Cookie header of one's own."""

    name = "no_cookies"
    custom_settings = {"COOKIES_ENABLED": False}

    async def start(self):
        yield scrapy.Request(f"{self.site}/cookie?a=1", self.then)

    def then(self, response):
        for n in range(8):
            yield response.follow(f"/cookies?n={n}", headers={"Cookie": f"mine={n}"})

    def parse(self, response):
        yield response.json()


class AuthSpider(scrapy.Spider):
    """http_user and http_pass of HttpAuthMiddleware."""

    name = "auth"
    http_user = "user"
    http_pass = "pass"
    http_auth_domain = None

    async def start(self):
        for n in range(12):
            yield scrapy.Request(f"{self.site}/auth?n={n}")

    def parse(self, response):
        yield {"title": response.css("h1::text").get()}
