"""The pages of the site, by the first part of their path."""

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

ITEMS: Final = 40  # of the shop
PER_PAGE: Final = 10
HTML, XML, PLAIN, JSON, CSV = (
    *("text/html; charset=utf-8", "application/xml", "text/plain"),
    *("application/json", "text/csv"),
)
SENTENCE: Final = "Größe, señor, façade: £5 für naïve Köche"  # in latin-1
WORLD: Final = "Привет, 世界, 🕷️ — naïve"


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    site: Any

    @property
    def number(self) -> int:
        """The number at the end of the path."""
        return int(self.path.rpartition("/")[2].partition(".")[0])

    @property
    def cookies(self) -> dict[str, str]:
        pairs = (part.strip().partition("=") for part in self.headers.get("cookie", "").split(";"))
        return {name: value for name, _, value in pairs if name}

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True)
class Reply:
    body: bytes
    status: int = 200
    kind: str = HTML
    headers: tuple[tuple[str, str], ...] = ()
    wait_s: float = 0.0
    reset: bool = False  # no answer at all: the connection is closed


Page = Callable[[Asked], Reply]
PAGES: dict[str, Page] = {}


def page(*names: str) -> Callable[[Page], Page]:
    def add(function: Page) -> Page:
        PAGES.update(dict.fromkeys(names, function))
        return function

    return add


def html(title: str, body: str, head: str = "") -> bytes:
    text = (
        f"<html><head><title>{title}</title>{head}</head><body><h1>{title}</h1>{body}</body></html>"
    )
    return text.encode()


def link(target: str, text: str = "", rel: str = "") -> str:
    more = f' rel="{rel}"' if rel else ""
    return f'<p><a href="{target}"{more}>{text or target}</a></p>'


def answer(data: Any) -> Reply:
    return Reply(json.dumps(data, sort_keys=True).encode(), kind=JSON)


def redirect(target: str, status: int = 302, *headers: tuple[str, str]) -> Reply:
    return Reply(b"", status, headers=(("Location", target), *headers))


# The shop.


@page("", "list")
def listing(asked: Asked) -> Reply:
    number = int(asked.query.get("page", "1"))
    first = (number - 1) * PER_PAGE + 1
    shown = range(first, min(first + PER_PAGE, ITEMS + 1))
    body = "".join(link(f"/item/{n}", f"Item {n}") for n in shown)
    if number * PER_PAGE < ITEMS:
        body += link(f"/list?page={number + 1}", "next", rel="next")
    return Reply(html(f"Page {number}", f'<div class="all">{body}</div>'))


@page("item")
def item(asked: Asked) -> Reply:
    n = asked.number
    related = "".join(link(f"/item/{(n * k) % ITEMS + 1}", "more") for k in (3, 7))
    body = f'<span class="price">{n}.50</span><div class="related">{related}</div>'
    body += f'<a class="review" href="/review/{n}">review</a>'
    return Reply(html(f"Item {n}", body))


@page("review", "private", "page", "plain", "deep", "tick")
def simple(asked: Asked) -> Reply:
    body = f"<p>{asked.path}</p>"
    if asked.path.startswith("/deep/"):
        body += link(f"/deep/{asked.number * 2}") + link(f"/deep/{asked.number * 2 + 1}")
    return Reply(html(asked.path, body))


@page("robots.txt")
def robots(asked: Asked) -> Reply:
    text = "User-agent: *\nDisallow: /private\n"
    text += f"Sitemap: http://{asked.headers['host']}/sitemap_index.xml\n"
    return Reply(text.encode(), kind=PLAIN)


@page("mixed")
def mixed(asked: Asked) -> Reply:
    """Links of all kinds: here, elsewhere, twice, forbidden, files."""
    port = asked.site.port
    targets = [f"/page/{n}" for n in range(6)] + ["/page/1", "/page/1#part", "/private/1"]
    targets += [f"http://localhost:{port}/page/7", "/file/1.pdf", "mailto:x@example.com"]
    return Reply(html("Mixed", "".join(map(link, targets))))


# Logins and cookies.


@page("login")
def login(asked: Asked) -> Reply:
    if asked.method == "POST":
        form = asked.form
        if form.get("token") == "t0k3n" and form.get("password") == "secret":
            cookie = ("Set-Cookie", f"session={form['user']}; Path=/; HttpOnly")
            return redirect("/account", 302, cookie)
        return Reply(html("Wrong", ""), 403)
    form_html = (
        '<form action="/login" method="post"><input type="hidden" name="token" value="t0k3n">'
        '<input name="user" value="nobody"><input type="password" name="password">'
        '<input type="submit" name="go" value="Go"></form>'
    )
    return Reply(html("Login", form_html))


@page("account")
def account(asked: Asked) -> Reply:
    user = asked.cookies.get("session")
    if not user:
        return redirect("/login")
    links = "".join(link(f"/account/{n}") for n in range(60)) if asked.path == "/account" else ""
    return Reply(html(f"Account of {user}", f'<b class="user">{user}</b>{links}'))


@page("logout")
def logout(_asked: Asked) -> Reply:
    gone = ("Set-Cookie", "session=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
    return Reply(html("Bye", ""), headers=(gone,))


@page("cookies")
def cookies(asked: Asked) -> Reply:
    return answer(asked.cookies)


@page("cookie")
def cookie(asked: Asked) -> Reply:
    """Sets what the query says."""
    made = tuple(("Set-Cookie", f"{name}={value}; Path=/") for name, value in asked.query.items())
    return Reply(html("Set", ""), headers=made)


@page("auth")
def auth(asked: Asked) -> Reply:
    wanted = base64.b64encode(b"user:pass").decode()
    if asked.headers.get("authorization") != f"Basic {wanted}":
        return Reply(b"who are you", 401, headers=(("WWW-Authenticate", 'Basic realm="x"'),))
    return Reply(html("Welcome", ""))


# What goes wrong.


@page("status")
def status(asked: Asked) -> Reply:
    """The status of the path; `fails=k`: only the first k times."""
    fails = int(asked.query.get("fails", "1000000"))
    key = f"{asked.path} {sorted(asked.query.items())}"
    if asked.site.count(key) > fails:
        return Reply(html("Works now", ""))
    return Reply(html("Fails", ""), asked.number)


@page("reset")
def reset(asked: Asked) -> Reply:
    fails = int(asked.query.get("fails", "1000000"))
    is_over = asked.site.count(f"{asked.path} {asked.query}") > fails
    return Reply(html("Connected", "")) if is_over else Reply(b"", reset=True)


@page("slow")
def slow(asked: Asked) -> Reply:
    fails = int(asked.query.get("fails", "1000000"))
    is_slow = asked.site.count(f"{asked.path} {asked.query}") <= fails
    wait_s = float(asked.query.get("s", "0.3")) if is_slow else 0.0
    return Reply(html("Slow", ""), wait_s=wait_s)


@page("redirect")
def redirects(asked: Asked) -> Reply:
    """To `to`, or down to /page/0 in as many steps as the path says."""
    code = int(asked.query.get("code", "302"))
    if "to" in asked.query:
        return redirect(asked.query["to"], code)
    n = asked.number
    return redirect(f"/redirect/{n - 1}" if n > 0 else "/page/0", code)


@page("loop")
def loop(asked: Asked) -> Reply:
    return redirect(f"/loop/{asked.number + 1}")


@page("refresh")
def refresh(asked: Asked) -> Reply:
    head = f'<meta http-equiv="refresh" content="0; url=/page/{asked.number}">'
    return Reply(html("Moved", "", head))


# Bodies.


@page("echo")
def echo(asked: Asked) -> Reply:
    shown = ("accept", "accept-language", "authorization", "content-type", "cookie", "referer")
    headers = {k: v for k, v in asked.headers.items() if k in shown or k.startswith("x-")}
    return answer(
        {
            "method": asked.method,
            "path": asked.path,
            "query": asked.query,
            "headers": headers,
            "body": base64.b64encode(asked.body).decode(),
        }
    )


@page("packed")
def packed(asked: Asked) -> Reply:
    body, how = html("Packed", "x" * 20_000), asked.path.rpartition("/")[2]
    if how == "br":
        import brotli

        body = brotli.compress(body)
    elif how == "zstd":
        from backports import zstd

        body = zstd.compress(body)
    elif how == "gzip":
        body = gzip.compress(body, mtime=0)
    elif how == "deflate":
        body = zlib.compress(body)
    return Reply(body, headers=(("Content-Encoding", how),))


@page("encoded")
def encoded(asked: Asked) -> Reply:
    how = asked.path.rpartition("/")[2]
    text = SENTENCE if how.startswith("latin") else WORLD
    if how == "latin-1-meta":
        head = '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1">'
        body = f"<html><head>{head}</head><body><h1>{text}</h1></body></html>"
        return Reply(body.encode("latin-1"), kind="text/html")
    body = f"<html><body><h1>{text}</h1></body></html>"
    return Reply(body.encode(how), kind=f"text/html; charset={how}")


@page("big")
def big(asked: Asked) -> Reply:
    line = b"<p>A patient spider reads even the longest page.</p>\n"
    size = int(float(asked.query.get("mb", "1")) * 1024 * 1024)
    return Reply((b"<html><body>" + line * (size // len(line) + 1))[:size])


@page("binary")
def binary(asked: Asked) -> Reply:
    return Reply(bytes(range(256)) * (1 + asked.number), kind="application/octet-stream")


@page("json")
def numbers(asked: Asked) -> Reply:
    n = int(asked.query.get("page", "1"))
    return answer({"page": n, "data": [{"id": n * 10 + k} for k in range(5)], "more": n < 4})


@page("file")
def file(asked: Asked) -> Reply:
    head = (("Last-Modified", "Mon, 02 Jan 2023 10:00:00 GMT"),)
    if asked.number == 99:
        return Reply(b"", 404)
    return Reply(b"%PDF-1.4 " + asked.path.encode() * 50, kind="application/pdf", headers=head)


@page("image")
def image(asked: Asked) -> Reply:
    return Reply(png(20 + asked.number, 30), kind="image/png")


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + bytes([200, 30, 30]) * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@page("gallery")
def gallery(_asked: Asked) -> Reply:
    body = "".join(f'<img src="/image/{n}.png">{link(f"/file/{n}.pdf")}' for n in range(6))
    return Reply(html("Gallery", body))


@page("cached")
def cached(asked: Asked) -> Reply:
    """A page with an ETag that says how often it was really made."""
    if asked.headers.get("if-none-match") == '"one"':
        return Reply(b"", 304, headers=(("ETag", '"one"'),))
    made = asked.site.count(asked.path)
    headers = (("ETag", '"one"'), ("Cache-Control", "no-cache"))
    return Reply(html(f"Made {made} times", ""), headers=headers)


# Feeds and maps.


@page("feed.xml")
def feed_xml(_asked: Asked) -> Reply:
    rows = "".join(f'<item id="{n}"><name>Näme {n}</name></item>' for n in range(1, 31))
    return Reply(f"<?xml version='1.0'?><rss><channel>{rows}</channel></rss>".encode(), kind=XML)


@page("names.xml")
def names_xml(_asked: Asked) -> Reply:
    rows = "".join(f"<n:row><n:v>{n}</n:v></n:row>" for n in range(1, 11))
    text = f'<?xml version="1.0"?><n:all xmlns:n="http://example.com/n">{rows}</n:all>'
    return Reply(text.encode(), kind=XML)


@page("feed.csv")
def feed_csv(_asked: Asked) -> Reply:
    rows = "".join(f"{n};'Name; {n}';{n}.5\n" for n in range(1, 31))
    return Reply(rows.encode(), kind=CSV)


_MAP: Final = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


@page("sitemap_index.xml")
def sitemap_index(asked: Asked) -> Reply:
    host = asked.headers["host"]
    names = ("sitemap_items.xml.gz", "sitemap_pages.xml")
    rows = "".join(f"<sitemap><loc>http://{host}/{name}</loc></sitemap>" for name in names)
    return Reply(f"<sitemapindex {_MAP}>{rows}</sitemapindex>".encode(), kind=XML)


@page("sitemap_items.xml.gz", "sitemap_pages.xml")
def sitemap(asked: Asked) -> Reply:
    host, kind = asked.headers["host"], "item" if "items" in asked.path else "page"
    rows = "".join(
        f"<url><loc>http://{host}/{kind}/{n}</loc><lastmod>{2000 + n}-01-01</lastmod></url>"
        for n in range(1, 16)
    )
    body = f"<urlset {_MAP}>{rows}</urlset>".encode()
    if kind == "item":
        return Reply(gzip.compress(body, mtime=0), kind="application/gzip")
    return Reply(body, kind=XML)


@page("archive.tar.gz")
def archive(_asked: Asked) -> Reply:
    return Reply(gzip.compress(b"hello" * 100, mtime=0), kind="application/gzip")
