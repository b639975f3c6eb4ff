"""Owns the part of the demo site that needs a login: account, orders, reviews.

Runs in the demo site's process. A session cookie is computed from the customer's name, so it means
the same after the site was started again; two customers are two sessions.
"""

import re
from hashlib import blake2b

from vscrapy_magic.demo import pages
from vscrapy_magic.demo.answers import (
    JSON,
    Handler,
    NotFoundError,
    not_allowed,
    number_in,
    page_count,
    redirect,
)
from vscrapy_magic.demo.catalogue import ORDERS, PER_ORDERS_PAGE, Catalogue
from vscrapy_magic.demo.connection import Reply, Request
from vscrapy_magic.demo.feeds import json_bytes

COOKIE = "session"
ACCOUNT = "/account"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Customers:
    """Handlers that know who asks."""

    def __init__(self, catalogue: Catalogue, *, seed: int) -> None:
        self._catalogue = catalogue
        self._seed = seed

    @property
    def live(self) -> dict[str, Handler]:
        return {"login": self._login, "logout": self._logout, "account": self._account}

    def _session(self, customer: str) -> str:
        key = blake2b(f"{self._seed}:session:{customer}".encode(), digest_size=8).hexdigest()
        return f"{customer}.{key}"

    def _customer(self, request: Request) -> str | None:
        session = request.cookies.get(COOKIE, "")
        customer = session.partition(".")[0]
        return customer if customer and session == self._session(customer) else None

    def _login(self, request: Request) -> Reply:
        if request.method != "POST":
            return Reply(pages.login(request.query.get("next", ACCOUNT), failed=False))
        form = request.form
        customer = form.get("username", "")
        target = form.get("next", ACCOUNT)
        if form.get("password") != pages.PASSWORD or not _NAME.fullmatch(customer):
            return Reply(pages.login(target, failed=True))
        local = target.startswith(ACCOUNT) and target.isascii() and target.isprintable()
        cookie = f"{COOKIE}={self._session(customer)}; Path=/; HttpOnly"
        return redirect(target if local else ACCOUNT, cookie=cookie)

    def _logout(self, _request: Request) -> Reply:
        return redirect("/login", cookie=f"{COOKIE}=; Path=/; Max-Age=0")

    def _account(self, request: Request) -> Reply:
        customer = self._customer(request)
        if customer is None:
            return redirect(f"/login?next={request.path}")
        match request.segments[1:]:
            case ():
                return Reply(pages.account(customer, ORDERS))
            case ("orders",):
                return self._orders(customer, request)
            case ("order", text):
                order = self._catalogue.order(customer, number_in(text, ORDERS))
                return Reply(pages.order(customer, order, self._catalogue.book(order.book)))
            case ("reviews",):
                return self._review(customer, request)
        raise NotFoundError

    def _orders(self, customer: str, request: Request) -> Reply:
        count = page_count(ORDERS, PER_ORDERS_PAGE)
        page = number_in(request.query.get("page", "1"), count)
        first = (page - 1) * PER_ORDERS_PAGE + 1
        numbers = range(first, min(first + PER_ORDERS_PAGE, ORDERS + 1))
        shown = [self._catalogue.order(customer, number) for number in numbers]
        return Reply(pages.orders(customer, shown, page, count))

    def _review(self, customer: str, request: Request) -> Reply:
        if request.method != "POST":
            return not_allowed(request, "POST")
        form = request.form
        book = number_in(form.get("book", ""), self._catalogue.size)
        review = {"customer": customer, "book": book, "characters": len(form.get("text", ""))}
        return Reply(json_bytes(review), content_type=JSON)
