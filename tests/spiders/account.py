"""A login: session cookie, POSTed forms and JSON, a JSON API, dataclass items, async callbacks.

scrapy runspider account.py -a site=http://127.0.0.1:8000 -O account.jsonl
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import scrapy
from scrapy.http import FormRequest, JsonRequest

REVIEWED = (1, 2)  # orders whose number modulo 5 is one of these get a review


@dataclass
class Order:
    number: int
    customer: str
    book: str
    quantity: int
    total: str


@dataclass
class Review:
    order: int
    customer: str
    characters: int


@dataclass
class Offer:
    upc: str
    title: str
    price: str


@dataclass
class Basket:
    page: int
    books: int
    total: str


class AccountSpider(scrapy.Spider):
    name = "account"
    custom_settings: ClassVar[dict[str, Any]] = {"CONCURRENT_REQUESTS_PER_DOMAIN": 8}

    def __init__(
        self, site: str = "http://127.0.0.1:8000", customer: str = "ada", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.site = site.rstrip("/")
        self.customer = customer

    async def start(self) -> AsyncIterator[Any]:
        yield scrapy.Request(f"{self.site}/account", callback=self.log_in)
        yield scrapy.Request(f"{self.site}/api/books?page=1", callback=self.parse_api)

    def log_in(self, response: Any) -> Iterator[Any]:
        """The account page sent us to the login page; fill its form."""
        fields = {
            field.attrib["name"]: field.attrib["value"]
            for field in response.css("form [type=hidden]")
        }
        yield FormRequest(
            response.urljoin(response.css("form").attrib["action"]),
            formdata={**fields, "username": self.customer, "password": "magic"},
            callback=self.parse_account,
            dont_filter=True,  # it leads back to /account, which has been seen
        )

    def parse_account(self, response: Any) -> Iterator[Any]:
        if not response.css("span.customer"):
            self.logger.error("login failed at %s", response.url)
            return
        yield response.follow(response.css("a.orders")[0], callback=self.parse_orders)

    def parse_orders(self, response: Any) -> Iterator[Any]:
        yield from response.follow_all(css="tr.order a", callback=self.parse_order)
        yield from response.follow_all(css="li.next a", callback=self.parse_orders)

    async def parse_order(self, response: Any) -> AsyncIterator[Any]:
        order = Order(
            number=int(response.css("span.number::text").get("")),
            customer=response.css("span.customer::text").get(""),
            book=response.css("a.book::text").get(""),
            quantity=int(response.css("span.quantity::text").get("")),
            total=response.css("span.total::text").get(""),
        )
        yield order
        if order.number % 5 in REVIEWED:
            yield FormRequest(
                f"{self.site}/account/reviews",
                formdata={
                    "book": response.css("input[name=book]").attrib["value"],
                    # The number keeps reviews of one book apart: which of two equal requests is
                    # dropped would depend on which order's page came first.
                    "text": f"{order.number}: {order.book}, £ well spent, {order.quantity} times.",
                },
                callback=self.parse_review,
                cb_kwargs={"order": order.number},
            )

    def parse_review(self, response: Any, order: int) -> Iterator[Any]:
        review = response.json()
        yield Review(order=order, customer=review["customer"], characters=review["characters"])

    async def parse_api(self, response: Any) -> AsyncIterator[Any]:
        answer = response.json()
        for book in answer["books"]:
            yield Offer(upc=book["upc"], title=book["title"], price=book["price"])
        yield JsonRequest(
            f"{self.site}/api/basket",
            data={"books": [book["id"] for book in answer["books"]]},
            callback=self.parse_basket,
            meta={"page": answer["page"]},
        )
        if answer["next"]:
            yield response.follow(answer["next"], callback=self.parse_api)

    def parse_basket(self, response: Any) -> Iterator[Any]:
        answer = response.json()
        yield Basket(page=response.meta["page"], books=answer["books"], total=answer["total"])
