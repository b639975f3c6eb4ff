"""The pages that examples have in mind when they say example.com; a process of its own.

Prints its address; ends when its standard input is closed.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ITEMS = range(1, 13)
QUOTE_PAGES = range(1, 5)
HTML, XML, PLAIN, CSV = "text/html", "application/xml", "text/plain", "text/csv"
JSON = "application/json"


def page(title: str, body: str) -> str:
    return f"<html><head><title>{title}</title></head><body>{body}</body></html>"


def links(*targets: str) -> str:
    return "".join(f'<p><a href="{target}">{target}</a></p>' for target in targets)


def numbered() -> dict[str, tuple[str, str]]:
    """Pages that lead to each other and away."""
    titles = {n: f"<h3>Title {n}</h3><h3>Other {n}</h3>" for n in (1, 2, 3)}
    away = links("/1.html", "/2.html", "/3.html", "http://elsewhere.invalid/")
    return {f"/{n}.html": (HTML, page(str(n), titles[n] + away)) for n in titles}


def shop() -> dict[str, tuple[str, str]]:
    """Categories, a subsection that is not to be followed, items, and more about each."""
    items = [f"/item.php?id={n}" for n in ITEMS]
    made = {
        "/": page("Shop", links("/category.php?id=1", "/category.php?id=2")),
        "/category.php?id=1": page("1", links(*items[:7], "/subsection.php?category.php")),
        "/category.php?id=2": page("2", links(*items[5:], "/category.php?id=1")),
        "/subsection.php?category.php": page("Sub", links("/item.php?id=99")),
        "/item.php?id=99": page("99", ""),
    }
    for n in ITEMS:
        cells = f'<td id="item_id">ID: {n}</td><td id="item_name">Item {n}</td>'
        cells += f'<td id="item_description">What item {n} is</td>'
        more = f'<td id="additional_data" href="/more/{n}">more</td>'
        made[f"/item.php?id={n}"] = page(f"{n}", f"<table><tr>{cells}{more}</tr></table>")
        made[f"/more/{n}"] = page(f"{n}", f'<p id="additional_data">More of {n}</p>')
    return {path: (HTML, text) for path, text in made.items()}


def machines(base: str) -> dict[str, tuple[str, str]]:
    """Feeds, sitemaps, robots.txt, and what they lead to."""
    items = "".join(
        f'<item id="{n}"><name>Name {n}</name><description>About {n}</description></item>'
        for n in ITEMS
    )
    rows = "".join(f"{n};'Name; {n}';About {n}\n" for n in ITEMS)
    kinds = ("shop", "product", "category")
    paths = [f"/{kind}/{n}" for kind in kinds for n in ITEMS]
    urls = "".join(
        f"<url><loc>{base}{path}</loc><lastmod>{2000 + n % 12}-03-01</lastmod></url>"
        for n, path in enumerate(paths)
    )
    head = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
    index = "".join(
        f"<sitemap><loc>{base}/{name}.xml</loc></sitemap>" for name in ("sitemap_shops", "other")
    )
    robots = f"User-agent: *\nDisallow:\n\nSitemap: {base}/sitemap_index.xml\n"
    product = '<div class="product_name">Lamp</div><div class="product_title">Bright</div>'
    made = {
        "/feed.xml": (XML, f"<?xml version='1.0'?><rss><channel>{items}</channel></rss>"),
        "/feed.csv": (CSV, rows),
        "/sitemap.xml": (XML, f"<?xml version='1.0'?><urlset {head}>{urls}</urlset>"),
        "/sitemap_shops.xml": (XML, f"<?xml version='1.0'?><urlset {head}>{urls}</urlset>"),
        "/sitemap_index.xml": (
            XML,
            f"<?xml version='1.0'?><sitemapindex {head}>{index}</sitemapindex>",
        ),
        "/other.xml": (XML, f"<?xml version='1.0'?><urlset {head}></urlset>"),
        "/robots.txt": (PLAIN, robots),
        "/about": (HTML, page("About", "<h1>About</h1>")),
        "/product": (
            HTML,
            page("P", f"<h1>A lamp</h1>{product}<p id='price'>12</p><p id='stock'>3</p>"),
        ),
        "/price": (HTML, page("Price", '<p id="price" class="price">12</p>')),
        "/color": (HTML, page("Colour", '<p class="color">red</p>')),
    }
    for n in QUOTE_PAGES:
        quotes = [{"text": f"Quote {n}.{k}"} for k in range(5)]
        answer = {"page": n, "quotes": quotes, "has_next": n != QUOTE_PAGES[-1]}
        made[f"/api/quotes?page={n}"] = (JSON, json.dumps(answer))
    paths += [f"/Computers/Programming/Languages/Python/{kind}/" for kind in ("Books", "Resources")]
    return made | {path: (HTML, page(path, f"<h1>{path}</h1>")) for path in paths}


def made(path: str, headers: Mapping[str, str]) -> tuple[str, str]:
    """Pages without number, and those that depend on who asks; no text when there is none."""
    _, kind, *rest = path.partition("?")[0].split("/")
    if kind == "page":
        files = links(*(f"/file/{rest[0]}.{n}" for n in range(2)))
        return HTML, page(rest[0], f"<h1>Page {rest[0]}</h1>{files}")
    if kind == "file":
        return PLAIN, f"What is in {rest[0]}"
    if kind == "headers":
        names = ("Authorization", "Cookie", "Referer", "X-ID")
        return JSON, json.dumps({name: headers.get(name) for name in names})
    if kind == "declared":
        return HTML, '<head><meta charset="cp1252"></head><h1>caf\u00e9</h1>'
    if kind in {
        "render.png",
        "render.html",
        "token",
        "categories",
        "index.html",
        "otherpage",
        "s",
        "post",
    }:
        return HTML, page(kind, f"<h1>{path}</h1>")
    return HTML, ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pages: dict[str, tuple[str, str]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        kind, text = self.pages.get(self.path) or made(self.path, dict(self.headers.items()))
        body = text.encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    base = f"http://127.0.0.1:{server.server_port}"
    Handler.pages = numbered() | shop() | machines(base)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(base, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
