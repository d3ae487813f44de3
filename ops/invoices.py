"""Real invoices as products, stock, customers and orders.

Each StockCode becomes a product and each price it was sold at a variant of it, so that an order's total is its
invoice's to the penny. Ids and SKUs carry the prefix `uk-`: some codes equal the SKU of an unrelated product.
"""

import csv
import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby, islice
from pathlib import Path

from polymart.catalog.v1.product_pb2 import Product, Variant
from polymart.customer.v1.customer_pb2 import Customer

from chassis.money import Money

PREFIX = "uk-"
CURRENCY = "GBP"
# Codes that stand for a service or a charge; all others are goods (see data/NOTICE.md for the file).
SERVICES = frozenset({"POST", "C2", "DOT", "M", "D", "S", "B", "AMAZONFEE", "BANK CHARGES", "CRUK", "PADS"})


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line of the file; `price` is None where it has none."""

    code: str
    description: str
    quantity: int
    price: Decimal | None
    customer: str
    country: str
    time: datetime

    @property
    def sku(self) -> str:
        return sku(self.code, self.price or Decimal(0))

    @property
    def tracked(self) -> bool:
        return self.code not in SERVICES and not self.code.startswith(("gift_", "DCGS"))


@dataclass(frozen=True, slots=True)
class Invoice:
    number: str
    lines: tuple[InvoiceLine, ...]

    @property
    def cancellation(self) -> bool:
        return self.number.startswith("C")

    @property
    def correction(self) -> bool:
        """A note that stock was found or lost: no price, no customer, any sign."""
        return not self.cancellation and all(line.price is None for line in self.lines)

    @property
    def customer_id(self) -> str:
        """Empty for a guest."""
        return f"{PREFIX}{self.lines[0].customer}" if self.lines[0].customer else ""

    @property
    def total(self) -> Decimal:
        return sum((line.quantity * (line.price or Decimal(0)) for line in self.lines), Decimal(0))


@dataclass(slots=True)
class Goods:
    """A StockCode: its most frequent description and the prices it was sold at, the most frequent first."""

    code: str
    descriptions: Counter[str] = field(default_factory=Counter)
    prices: Counter[Decimal] = field(default_factory=Counter)
    tracked: bool = True

    @property
    def product_id(self) -> str:
        return f"{PREFIX}{self.code}"

    @property
    def name(self) -> str:
        return self.descriptions.most_common(1)[0][0] if self.descriptions else self.code


# What a product may have.
_MOST_VARIANTS = 200


def sku(code: str, price: Decimal) -> str:
    """Pennies, and what is finer where a price is."""
    return f"{PREFIX}{code}@{price.normalize() if price != round(price, 2) else round(price, 2)}"


def products(goods: Iterable[Goods]) -> Iterator[Product]:
    """Each with a variant for each price; a code of more prices than a product may have is several products."""
    for item in goods:
        prices = sorted(item.prices)
        for part, first in enumerate(range(0, len(prices), _MOST_VARIANTS), 1):
            yield Product(
                product_id=item.product_id if part == 1 else f"{item.product_id}-{part}",
                name=item.name,
                variants=[
                    Variant(
                        sku=sku(item.code, price),
                        price=Money.parse(CURRENCY, str(price)).to_proto(),
                        untracked=not item.tracked,
                    )
                    for price in prices[first : first + _MOST_VARIANTS]
                ],
            )


def stream(path: Path) -> Iterator[Invoice]:
    """The invoices in the file's order, one at a time. One whose lines don't stand together comes in several parts.

    Raises ValueError naming the invoice of a malformed line.
    """
    for number, lines in groupby(_rows(path), key=lambda row: row[0]):
        yield Invoice(number, tuple(line for _, line in lines))


def read(path: Path, limit: int | None = None) -> list[Invoice]:
    """The first `limit` invoices in the file's order. Raises ValueError naming the line of a malformed one."""
    grouped: dict[str, list[InvoiceLine]] = {}
    for number, line in _rows(path):
        if limit is not None and number not in grouped and len(grouped) == limit:
            break
        grouped.setdefault(number, []).append(line)
    return [Invoice(number, tuple(lines)) for number, lines in islice(grouped.items(), limit)]


def _rows(path: Path) -> Iterator[tuple[str, InvoiceLine]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                yield row["InvoiceNo"], _line(row)
            except (ArithmeticError, ValueError, TypeError) as error:
                raise ValueError(f"{path.name}: invoice {row.get('InvoiceNo')}: {error}") from error


def _line(row: dict[str, str]) -> InvoiceLine:
    price = Decimal(row["UnitPrice"])
    return InvoiceLine(
        code=row["StockCode"].strip(),
        description=row["Description"].strip(),
        quantity=int(row["Quantity"]),
        price=price or None,
        customer=row["CustomerID"].removesuffix(".0"),
        country=row["Country"].strip(),
        time=datetime.fromisoformat(row["InvoiceDate"]).replace(tzinfo=UTC),
    )


def goods(orders: Iterable[Invoice]) -> dict[str, Goods]:
    """What the orders bought, by code."""
    found: dict[str, Goods] = {}
    for invoice in orders:
        for line in invoice.lines:
            item = found.setdefault(line.code, Goods(line.code, tracked=line.tracked))
            if line.description:
                item.descriptions[line.description] += 1
            if line.price is not None:
                item.prices[line.price] += 1
    return found


def customer(invoice: Invoice) -> Customer:
    """Whose invoice it is; not for a guest's."""
    number = invoice.customer_id.removeprefix(PREFIX)
    return Customer(
        customer_id=invoice.customer_id,
        display_name=f"Customer {number}",
        email=f"customer-{number}@shop.example",
        country=invoice.lines[0].country,
    )


def demand(orders: Iterable[Invoice]) -> Counter[str]:
    """Units ordered of each tracked SKU."""
    units: Counter[str] = Counter()
    for invoice in orders:
        for line in invoice.lines:
            if line.tracked:
                units[line.sku] += line.quantity
    return units
