"""Carts in PostgreSQL."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg

from chassis.money import Money
from chassis.postgres import Postgres, Transaction
from order_svc.domain.cart import Cart, CartLine
from order_svc.domain.totals import Destination

_ADD = """
INSERT INTO carts (cart_id, customer_id, country, region, version, create_time, update_time, expire_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
# In one statement, so that a reader without a lock sees the lines of one version.
_FIND = """
SELECT carts.*, place, sku, quantity, currency, price_nanos, product_id, product_name
FROM carts LEFT JOIN cart_lines USING (cart_id) WHERE cart_id = $1 ORDER BY place
"""
# The lines are read by the next statement: this one's snapshot may be older than its lock.
_LOCK = "SELECT FROM carts WHERE cart_id = $1 FOR UPDATE"
_SAVE = """
UPDATE carts SET customer_id = $2, country = $3, region = $4, version = $5, update_time = $6, expire_time = $7,
    order_id = $8
WHERE cart_id = $1
"""
_REMOVE = "DELETE FROM cart_lines WHERE cart_id = $1 AND sku = ANY ($2::text[])"
_SET = """
INSERT INTO cart_lines (cart_id, place, sku, quantity, currency, price_nanos, product_id, product_name)
SELECT $1, (SELECT coalesce(max(place), 0) FROM cart_lines WHERE cart_id = $1) + number, sku, quantity, currency,
    price_nanos, product_id, product_name
FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::text[]) WITH ORDINALITY
    AS new (sku, quantity, currency, price_nanos, product_id, product_name, number)
ON CONFLICT (cart_id, sku) DO UPDATE SET quantity = excluded.quantity, currency = excluded.currency,
    price_nanos = excluded.price_nanos, product_id = excluded.product_id, product_name = excluded.product_name
"""
_DROP = """
DELETE FROM carts WHERE cart_id IN (
    SELECT cart_id FROM carts WHERE expire_time <= $1 ORDER BY expire_time LIMIT $2 FOR UPDATE SKIP LOCKED
)
"""


class PostgresCarts:
    """The port Carts."""

    def __init__(self, db: Postgres):
        self._db = db

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with self._db.transaction() as tx:
            yield tx

    async def add(self, cart: Cart) -> None:
        times = (cart.create_time, cart.update_time, cart.expire_time)
        await self._db.execute(_ADD, cart.cart_id, cart.customer_id, *_place(cart), cart.version, *times)

    async def find(self, cart_id: str) -> Cart | None:
        return _cart(await self._db.fetch(_FIND, cart_id))

    async def locked(self, cart_id: str, *, tx: Transaction) -> Cart | None:
        await tx.execute(_LOCK, cart_id)
        return _cart(await tx.fetch(_FIND, cart_id))

    async def save(self, before: Cart, after: Cart, *, tx: Transaction) -> None:
        id = after.cart_id
        times = (after.update_time, after.expire_time)
        await tx.execute(_SAVE, id, after.customer_id, *_place(after), after.version, *times, after.order_id or None)
        if gone := before.lines.keys() - after.lines.keys():
            await tx.execute(_REMOVE, id, list(gone))
        if changed := [line for sku, line in after.lines.items() if before.lines.get(sku) != line]:
            await tx.execute(_SET, id, *_columns(changed))

    async def drop_expired(self, now: datetime, *, limit: int) -> int:
        return int((await self._db.execute(_DROP, now, limit)).rpartition(" ")[2])


def _place(cart: Cart) -> tuple[str, str]:
    return (cart.destination.country, cart.destination.region) if cart.destination else ("", "")


def _columns(lines: Iterable[CartLine]) -> tuple[list[object], ...]:
    rows = [(x.sku, x.quantity, x.price.currency, x.price.nanos, x.product_id, x.product_name) for x in lines]
    return tuple(list(column) for column in zip(*rows, strict=True))


def _cart(rows: list[asyncpg.Record]) -> Cart | None:
    if not rows:
        return None
    first = rows[0]
    return Cart(
        cart_id=str(first["cart_id"]),
        customer_id=first["customer_id"],
        destination=Destination(first["country"], first["region"]) if first["country"] else None,
        create_time=first["create_time"],
        update_time=first["update_time"],
        expire_time=first["expire_time"],
        lines={row["sku"]: _line(row) for row in rows if row["sku"] is not None},
        version=first["version"],
        order_id=str(first["order_id"] or ""),
    )


def _line(row: asyncpg.Record) -> CartLine:
    price = Money(row["currency"], row["price_nanos"])
    return CartLine(row["sku"], row["quantity"], price, row["product_id"], row["product_name"])
