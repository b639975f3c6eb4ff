"""Owns what the shop sells: every book, quote and order, computed from its number and the seed.

Runs in the demo site's process. Nothing is stored, so a catalogue of a million books costs nothing
until it is asked for, and two processes with the same seed serve the same bytes.

How the links lie matters to tests that compare runs. A crawl of `/catalogue?page=1`, of its books
and of their related books meets each book at one depth only, however the answers are ordered: a
book on listing page `p` is found at depth `p`, because a related link leads to an earlier listing
page (to the same one on page 1), and an out-of-print book, which no listing shows, is linked from
books of one listing page only.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from vscrapy_magic.demo import words

PER_PAGE = 20  # books on a page of the catalogue and of the JSON API
PER_CATEGORY_PAGE = 10
QUOTES = 100
PER_QUOTES_PAGE = 10
ORDERS = 100  # of every customer
PER_ORDERS_PAGE = 10
OUT_OF_PRINT_SHARE = 10  # one book of so many is in no listing
OUT_OF_PRINT_STRIDE = (
    8  # listed books per out-of-print book that is linked from two of them; divides no page
)
BOOK_CACHE = 4096  # books kept computed


@dataclass(frozen=True, slots=True)
class Book:
    """One book; `related` are the numbers of the books that its page links to."""

    number: int
    title: str
    author: str
    category: str
    price_pence: int
    stock: int
    rating: int
    upc: str
    description: str
    in_print: bool
    related: tuple[int, ...]

    @property
    def price(self) -> str:
        return f"{self.price_pence // 100}.{self.price_pence % 100:02d}"


@dataclass(frozen=True, slots=True)
class Quote:
    """One saying, shaped like those of the Scrapy tutorial."""

    text: str
    author: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """One line of a customer's history."""

    number: int
    book: int
    quantity: int
    total_pence: int

    @property
    def total(self) -> str:
        return f"{self.total_pence // 100}.{self.total_pence % 100:02d}"


class Draw:
    """Numbers that depend on the seed and a name only; each call takes the next one."""

    def __init__(self, name: str) -> None:
        self._state = int.from_bytes(blake2b(name.encode(), digest_size=32).digest(), "big")

    def below(self, bound: int) -> int:
        self._state, number = divmod(self._state, bound)
        return number

    def pick(self, choices: tuple[str, ...]) -> str:
        return choices[self.below(len(choices))]


class Catalogue:
    """The shop's data.

    Args:
        size: how many books there are, numbered from 1; one in ten of them is out of print.
        seed: another seed, other titles, prices and links.
        related: how many related books a page links to, where there are so many.
    """

    def __init__(self, size: int, *, seed: int, related: int) -> None:
        self.size = size
        self.listed = size - size // OUT_OF_PRINT_SHARE
        self._seed = seed
        self._related = related
        self.book = lru_cache(BOOK_CACHE)(self._book)

    @property
    def page_count(self) -> int:
        return -(-self.listed // PER_PAGE) or 1

    def page(self, page: int) -> list[Book]:
        first = (page - 1) * PER_PAGE + 1
        last = min(first + PER_PAGE - 1, self.listed)
        return [self.book(number) for number in range(first, last + 1)]

    def category_page_count(self, slug: str) -> int:
        return -(-len(self._category(slug)) // PER_CATEGORY_PAGE) or 1

    def category_page(self, slug: str, page: int) -> list[Book]:
        first = (page - 1) * PER_CATEGORY_PAGE
        return [self.book(n) for n in self._category(slug)[first : first + PER_CATEGORY_PAGE]]

    def _category(self, slug: str) -> range:
        index = [known for known, _ in words.CATEGORIES].index(slug)
        return range(index + 1, self.listed + 1, len(words.CATEGORIES))

    def _book(self, number: int) -> Book:
        draw = Draw(f"{self._seed}:book:{number}")
        in_print = number <= self.listed
        # An out-of-print book has no stock; of the others one in eight has none either.
        stock = 0 if draw.below(8) == 0 or not in_print else 1 + draw.below(40)
        return Book(
            number=number,
            title=f"The {draw.pick(words.ADJECTIVES)} {draw.pick(words.NOUNS)} "
            f"of {draw.pick(words.PLACES)}",
            author=draw.pick(words.AUTHORS),
            category=words.CATEGORIES[(number - 1) % len(words.CATEGORIES)][0],
            price_pence=499 + draw.below(5500),
            stock=stock,
            rating=1 + draw.below(5),
            upc=f"{draw.below(16**10):010x}{number:06x}",
            description=f"{draw.pick(words.OPENINGS)} {draw.pick(words.MIDDLES)}; "
            f"{draw.pick(words.CLOSINGS)}",
            in_print=in_print,
            related=self._related_to(number),
        )

    def _related_to(self, number: int) -> tuple[int, ...]:
        """Numbers of the linked books; the module's docstring says why these and no others."""
        index = number - 1
        out_of_print = self.size - self.listed
        if index >= self.listed:
            parent = (index - self.listed) * OUT_OF_PRINT_STRIDE
            reach = (parent // PER_PAGE + 1) * PER_PAGE
        else:
            reach = max(index // PER_PAGE, 1) * PER_PAGE
        reach = min(reach, self.listed)
        found: dict[int, None] = {}
        nth, place = divmod(index, OUT_OF_PRINT_STRIDE)
        if index < self.listed and place < 2 and nth < out_of_print:
            found[self.listed + 1 + nth] = None
        draw_round = 0
        while len(found) < min(self._related, reach - 1) and draw_round < self._related * 4:
            draw = Draw(f"{self._seed}:related:{number}:{draw_round}")
            other = 1 + draw.below(reach)
            if other != number:
                found[other] = None
            draw_round += 1
        return tuple(found)

    def quotes(self, tag: str | None = None) -> list[Quote]:
        every = [self._quote(index) for index in range(QUOTES)]
        return every if tag is None else [quote for quote in every if tag in quote.tags]

    def _quote(self, index: int) -> Quote:
        draw = Draw(f"{self._seed}:quote:{index}")
        # Subject and predicate together never repeat within a hundred quotes.
        subject = words.QUOTE_SUBJECTS[index % len(words.QUOTE_SUBJECTS)]
        turn = index // len(words.QUOTE_SUBJECTS) + index + self._seed
        predicate = words.QUOTE_PREDICATES[turn % len(words.QUOTE_PREDICATES)]
        tags = tuple(dict.fromkeys(draw.pick(words.TAGS) for _ in range(1 + draw.below(4))))
        return Quote(text=f"“{subject} {predicate}.”", author=draw.pick(words.AUTHORS), tags=tags)

    def order(self, customer: str, number: int) -> Order:
        draw = Draw(f"{self._seed}:order:{customer}:{number}")
        book = 1 + draw.below(self.size)
        quantity = 1 + draw.below(3)
        return Order(number, book, quantity, self.book(book).price_pence * quantity)
