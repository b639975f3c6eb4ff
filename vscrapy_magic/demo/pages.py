"""Owns the HTML of the demo site; each function turns data into one page.

Runs in the demo site's process. The class names are those of the two sites that Scrapy's tutorials
use, so what they teach works here: `article.product_pod`, `p.price_color`, `div.quote span.text`,
`li.next a`.
"""

from collections.abc import Iterable, Sequence
from html import escape

from vscrapy_magic.demo import words
from vscrapy_magic.demo.catalogue import Book, Draw, Order, Quote

PASSWORD = "magic"  # noqa: S105 (the login page shows it)
_RATINGS = ("Zero", "One", "Two", "Three", "Four", "Five")
_CATEGORY_NAMES = dict(words.CATEGORIES)
_MONTHS = ("January", "February", "March", "April", "June", "August", "October", "November")

STYLE = """\
:root { --ink: #2b2a33; --paper: #fbf8f1; --line: #e4dccb; --accent: #a3472f; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.55 Georgia, "Times New Roman", serif; color: var(--ink);
  background: var(--paper); }
header, main, footer { max-width: 62rem; margin: 0 auto; padding: 1rem 1.5rem; }
header { display: flex; gap: 1.5rem; align-items: baseline; border-bottom: 1px solid var(--line); }
header strong { font-size: 1.3rem; margin-right: auto; }
footer { border-top: 1px solid var(--line); font-size: .85rem; color: #857f72; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
h1 { font-weight: normal; font-size: 2rem; }
.shelf { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: 1.2rem;
  padding: 0; list-style: none; }
.cover { height: 11rem; padding: 1rem; border-radius: 3px 8px 8px 3px; color: #fff;
  font-size: .95rem;
  background: linear-gradient(100deg, hsl(var(--hue) 35% 28%) 6%, hsl(var(--hue) 38% 42%) 8%);
  box-shadow: 0 3px 10px #0003; }
.product_pod h3 { font-size: 1rem; margin: .6rem 0 .1rem; }
.price_color { color: var(--accent); font-weight: bold; margin: 0; }
.availability, .star-rating { font-size: .85rem; margin: 0; }
.product_page { display: grid; grid-template-columns: 12rem 1fr; gap: 2rem; }
.pager { display: flex; gap: 2rem; justify-content: center; list-style: none; padding: 0; }
.quote { border-left: 4px solid var(--line); padding: .3rem 1.2rem; margin: 1.2rem 0; }
.quote .text { display: block; font-size: 1.15rem; font-style: italic; }
.tag, nav.categories a { background: #efe7d6; border-radius: 1rem; padding: .1rem .7rem;
  font-size: .85rem; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--line); }
.error { color: #b00020; }
"""


def layout(title: str, body: str, *, head: str = "") -> bytes:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{escape(title)}</title>
<link rel="stylesheet" href="/static/site.css">{head}
</head>
<body>
<header><strong>The Patient Spider</strong> <a href="/">Home</a>
<a href="/catalogue?page=1">Catalogue</a> <a href="/quotes/">Quotes</a>
<a href="/account">Account</a></header>
<main>
{body}
</main>
<footer>A demo shop with no books in it. <a href="/oddities">Oddities</a></footer>
</body>
</html>
""".encode()


def message(title: str, text: str) -> bytes:
    return layout(title, f"<h1>{escape(title)}</h1>\n<p>{escape(text)}</p>")


def _cover(book: Book) -> str:
    hue = Draw(book.upc).below(360)
    return f'<div class="cover" style="--hue:{hue}">{escape(book.title)}</div>'


def _facts(book: Book) -> str:
    stock = f"In stock ({book.stock} available)" if book.stock else "Out of stock"
    state = "instock" if book.stock else "outofstock"
    return (
        f'<p class="star-rating {_RATINGS[book.rating]}">{"★" * book.rating}</p>\n'
        f'<p class="price_color">£{book.price}</p>\n'
        f'<p class="{state} availability">{stock}</p>'
    )


def _shelf(books: Iterable[Book]) -> str:
    pods = "\n".join(
        f'<li><article class="product_pod">{_cover(book)}\n'
        f'<h3><a href="/book/{book.number}" title="{escape(book.title)}">'
        f"{escape(book.title)}</a></h3>\n"
        f"{_facts(book)}</article></li>"
        for book in books
    )
    return f'<ol class="shelf">\n{pods}\n</ol>'


def pager(pattern: str, page: int, pages: int) -> str:
    """Links to the page before and after; `pattern` holds `{}` where the page's number goes."""
    before = f'<li class="previous"><a href="{pattern.format(page - 1)}">Previous</a></li>'
    after = f'<li class="next"><a href="{pattern.format(page + 1)}">Next →</a></li>'
    return (
        f'<nav><ul class="pager">{before if page > 1 else ""}'
        f'<li class="current">Page {page} of {pages}</li>{after if page < pages else ""}</ul></nav>'
    )


def _categories() -> str:
    links = "\n".join(
        f'<a href="/category/{slug}/page/1">{escape(name)}</a>' for slug, name in words.CATEGORIES
    )
    return f'<nav class="categories">\n{links}\n</nav>'


def front(books: Sequence[Book]) -> bytes:
    return layout(
        "The Patient Spider",
        f"<h1>Books for the patient</h1>\n{_categories()}\n"
        f"<h2>In the window</h2>\n{_shelf(books)}\n"
        '<p>For machines: <a href="/sitemap.xml">sitemap</a>, <a href="/feed.xml">XML</a> and '
        '<a href="/feed.csv">CSV</a> feed, <a href="/api/books?page=1">JSON API</a>.</p>',
    )


def catalogue(books: Iterable[Book], page: int, pages: int) -> bytes:
    return layout(
        f"Catalogue, page {page}",
        f"<h1>Catalogue</h1>\n{_categories()}\n{_shelf(books)}\n"
        f"{pager('/catalogue?page={}', page, pages)}",
    )


def category(slug: str, books: Iterable[Book], page: int, pages: int) -> bytes:
    name = _CATEGORY_NAMES[slug]
    return layout(
        f"{name}, page {page}",
        f'<h1 class="category">{escape(name)}</h1>\n{_shelf(books)}\n'
        f"{pager(f'/category/{slug}/page/{{}}', page, pages)}",
    )


def book(shown: Book, related: Iterable[Book]) -> bytes:
    links = "\n".join(
        f'<li><a class="related" href="/book/{other.number}">{escape(other.title)}</a></li>'
        for other in related
    )
    name = escape(_CATEGORY_NAMES[shown.category])
    first = f"/category/{shown.category}/page/1"
    printed = "" if shown.in_print else '<p class="out-of-print">Out of print.</p>\n'
    return layout(
        shown.title,
        f"""<ul class="breadcrumb"><li><a href="/">Home</a></li>
<li><a href="{first}">{name}</a></li></ul>
<article class="product_page">{_cover(shown)}
<div class="product_main"><h1>{escape(shown.title)}</h1>
<p class="author">by <span>{escape(shown.author)}</span></p>
{_facts(shown)}
{printed}<div id="product_description"><h2>About this book</h2></div>
<p class="description">{escape(shown.description)}</p>
<table class="table">
<tr><th>UPC</th><td>{shown.upc}</td></tr>
<tr><th>Price</th><td>£{shown.price}</td></tr>
<tr><th>Availability</th><td>{shown.stock}</td></tr>
</table></div></article>
<h2>Readers also bought</h2>
<ul class="related">
{links}
</ul>""",
    )


def quotes(shown: Iterable[Quote], pattern: str, page: int, pages: int) -> bytes:
    return layout(
        "Quotes to Scrape",
        f"<h1>Quotes to Scrape</h1>\n{''.join(_quote(quote) for quote in shown)}"
        f"{pager(pattern, page, pages)}",
    )


def author_slug(name: str) -> str:
    """The author's part of a URL: ASCII letters and dashes, as on the tutorial's site."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)


def _quote(quote: Quote) -> str:
    tags = "\n".join(
        f'<a class="tag" href="/quotes/tag/{tag}/page/1/">{tag}</a>' for tag in quote.tags
    )
    return f"""<div class="quote" itemscope itemtype="http://schema.org/CreativeWork">
<span class="text" itemprop="text">{escape(quote.text, quote=False)}</span>
<span>by <small class="author" itemprop="author">{escape(quote.author, quote=False)}</small>
<a href="/quotes/author/{author_slug(quote.author)}/">(about)</a>
</span>
<div class="tags">Tags: <meta class="keywords" itemprop="keywords" content="{",".join(quote.tags)}">
{tags}
</div>
</div>
"""


def author(name: str) -> bytes:
    draw = Draw(f"author:{name}")
    month = draw.pick(_MONTHS)
    born = f"{month} {1 + draw.below(28):02d}, {1850 + draw.below(120)}"
    text = f"{draw.pick(words.OPENINGS)} {draw.pick(words.MIDDLES)}; {draw.pick(words.CLOSINGS)}"
    return layout(
        "Quotes to Scrape",
        f"""<div class="author-details"><h3 class="author-title">{escape(name, quote=False)}</h3>
<p><strong>Born:</strong> <span class="author-born-date">{born}</span>
<span class="author-born-location">in {draw.pick(words.PLACES)}</span></p>
<div class="author-description">{escape(text, quote=False)}</div></div>""",
    )


def login(target: str, *, failed: bool) -> bytes:
    error = '<p class="error">Login failed: the password is shown below.</p>\n' if failed else ""
    return layout(
        "Login",
        f"""<h1>Login</h1>
{error}<form action="/login" method="post">
<input type="hidden" name="next" value="{escape(target)}">
<p><label>User <input type="text" name="username" value=""></label></p>
<p><label>Password <input type="password" name="password" value=""></label></p>
<p><input type="submit" value="Login"></p>
</form>
<p>Any name will do; the password is <code>{PASSWORD}</code>.</p>""",
    )


def account(customer: str, orders: int) -> bytes:
    return layout(
        "Account",
        f'<h1>Account</h1>\n<p>Welcome, <span class="customer">{escape(customer)}</span>.</p>\n'
        f'<p><a class="orders" href="/account/orders?page=1">Your {orders} orders</a> '
        '<a class="logout" href="/logout">Logout</a></p>',
    )


def orders(customer: str, shown: Iterable[Order], page: int, pages: int) -> bytes:
    rows = "\n".join(
        f'<tr class="order"><td><a href="/account/order/{order.number}">Order {order.number}</a>'
        f'</td><td class="total">£{order.total}</td></tr>'
        for order in shown
    )
    return layout(
        "Orders",
        f'<h1>Orders of <span class="customer">{escape(customer)}</span></h1>\n'
        f"<table>\n{rows}\n</table>\n{pager('/account/orders?page={}', page, pages)}",
    )


def order(customer: str, shown: Order, bought: Book) -> bytes:
    return layout(
        f"Order {shown.number}",
        f"""<h1>Order <span class="number">{shown.number}</span></h1>
<p>For <span class="customer">{escape(customer)}</span></p>
<p><span class="quantity">{shown.quantity}</span> of <a class="book" href="/book/{bought.number}">\
{escape(bought.title)}</a></p>
<p>Total <span class="total">£{shown.total}</span></p>
<form action="/account/reviews" method="post">
<input type="hidden" name="book" value="{bought.number}">
<input type="text" name="text"><input type="submit" value="Review"></form>""",
    )


def meta_refresh(target: str) -> bytes:
    head = f'\n<meta http-equiv="refresh" content="0; url={escape(target)}">'
    return layout("Moved", "<p>This page has moved.</p>", head=head)


def oddities(links: Iterable[str]) -> bytes:
    items = "\n".join(
        f'<li><a class="oddity" href="{escape(url)}">{escape(url)}</a></li>' for url in links
    )
    return layout(
        "Oddities",
        f"<h1>Oddities</h1>\n<p>Pages that are slow, broken, missing, moved or strange.</p>\n"
        f"<ul>\n{items}\n</ul>",
    )
