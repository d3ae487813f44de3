"""The local price list in PostgreSQL."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import asyncpg

from chassis.money import Money
from chassis.postgres import Postgres, Transaction
from order_svc.application.ports import ProductState
from order_svc.domain.pricing import Offer

_OFFERS = """
SELECT product_id, sku, product_version, product_name, currency, price_nanos, untracked, tax_class
FROM prices WHERE sku = ANY ($1::text[])
"""

# Locks the product's row whether or not it changes, so that an event and an answer of the catalog take turns. Read
# by separate statements afterwards: each sees what the one it waited for has committed.
_ADVANCE = """
INSERT INTO products (product_id, version)
SELECT * FROM unnest($1::text[], $2::bigint[]) AS new (product_id, version) ORDER BY product_id
ON CONFLICT (product_id) DO UPDATE SET version = excluded.version WHERE products.version < excluded.version
RETURNING product_id, version
"""
_FORGET = """
DELETE FROM prices USING unnest($1::text[], $2::bigint[]) AS new (product_id, version)
WHERE prices.product_id = new.product_id AND prices.product_version <= new.version
"""
_INSERT = """
INSERT INTO prices (product_id, sku, product_version, product_name, currency, price_nanos, untracked, tax_class)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::boolean[],
    $8::text[])
ON CONFLICT (product_id, sku) DO NOTHING
"""
_REMEMBER = """
WITH known AS (
    INSERT INTO products (product_id, version) SELECT DISTINCT id, 0 FROM unnest($1::text[]) AS id ORDER BY id
    ON CONFLICT (product_id) DO UPDATE SET version = products.version RETURNING product_id, version
)
INSERT INTO prices (product_id, sku, product_version, product_name, currency, price_nanos, untracked, tax_class)
SELECT new.* FROM known JOIN unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[],
    $7::boolean[], $8::text[]) AS new (product_id, sku, product_version, product_name, currency,
    price_nanos, untracked, tax_class)
    ON known.product_id = new.product_id AND known.version <= new.product_version
ON CONFLICT (product_id, sku) DO UPDATE SET product_version = excluded.product_version,
    product_name = excluded.product_name, currency = excluded.currency, price_nanos = excluded.price_nanos,
    untracked = excluded.untracked, tax_class = excluded.tax_class
WHERE prices.product_version < excluded.product_version
"""


class PostgresPrices:
    """The ports PriceList and PriceUpdates."""

    def __init__(self, db: Postgres):
        self._db = db

    async def offers(self, skus: Collection[str]) -> Mapping[str, Offer]:
        found: dict[str, list[Offer]] = defaultdict(list)
        for row in await self._db.fetch(_OFFERS, list(skus)):
            found[row["sku"]].append(_offer(row))
        # A SKU in two products has just moved: only the catalog knows which of them has it now.
        return {sku: offers[0] for sku, offers in found.items() if len(offers) == 1}

    async def remember(self, offers: Sequence[Offer]) -> None:
        if offers:
            await self._db.execute(_REMEMBER, *_columns(offers))

    async def replace(self, products: Sequence[ProductState], *, tx: Transaction) -> None:
        rows = await tx.fetch(_ADVANCE, [p.product_id for p in products], [p.version for p in products])
        if not rows:
            return
        newer = {row["product_id"]: row["version"] for row in rows}
        await tx.execute(_FORGET, list(newer), list(newer.values()))
        offers = [offer for product in products if product.product_id in newer for offer in product.offers]
        if offers:
            await tx.execute(_INSERT, *_columns(offers))


def _columns(offers: Iterable[Offer]) -> tuple[list[object], ...]:
    rows = [
        (
            o.product_id,
            o.sku,
            o.product_version,
            o.product_name,
            o.price.currency,
            o.price.nanos,
            o.untracked,
            o.tax_class,
        )
        for o in offers
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))


def _offer(row: asyncpg.Record) -> Offer:
    return Offer(
        sku=row["sku"],
        product_id=row["product_id"],
        product_version=row["product_version"],
        product_name=row["product_name"],
        price=Money(row["currency"], row["price_nanos"]),
        untracked=row["untracked"],
        tax_class=row["tax_class"],
    )
