"""A store of products as it would be: what a trial saves lies in a collection of its own, over what the store has.

    trials   {"_id": {"trial", "product_id"}, "trial", "at", …the fields of a product}

A trial deletes its documents when it ends; MongoDB those of one that died, a day later.
"""

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pymongo import ASCENDING, IndexModel, ReplaceOne

from catalog_svc.adapters.mongo import Collection, Document, operation, parts
from catalog_svc.adapters.mongo_documents import product_fields, stored_from
from catalog_svc.application.ports import Saved, Shelf
from catalog_svc.domain.product import ProductEvent, Stored, identity
from chassis.errors import Unavailable

_DAY = 24 * 60 * 60

INDEXES = (
    # holders, and the end of a trial.
    IndexModel([("trial", ASCENDING), ("skus", ASCENDING)], name="trial"),
    IndexModel([("at", ASCENDING)], name="at", expireAfterSeconds=_DAY),
)


class MongoTrial:
    """`Shelf` over another, for one caller."""

    def __init__(self, below: Shelf, trials: Collection, trial: str):
        self._below = below
        self._trials = trials
        self._trial = trial
        self._used = False

    async def get(self, product_ids: Sequence[str]) -> Mapping[str, Stored]:
        return {**await self._below.get(product_ids), **await self._saved(product_ids)}

    async def holders(self, skus: Sequence[str]) -> Mapping[str, str]:
        below = await self._below.holders(skus)
        replaced = await self._saved(list({*below.values()}))
        found = {sku: holder for sku, holder in below.items() if holder not in replaced}
        for part in parts(skus):
            query = {"trial": self._trial, "skus": {"$in": part}}
            async with operation():
                documents = await self._trials.find(query, {"skus": 1}).to_list(None)
            found |= {sku: d["_id"]["product_id"] for d in documents for sku in set(d["skus"]).intersection(part)}
        return found

    async def save(self, events: Sequence[ProductEvent]) -> Sequence[Saved]:
        at, self._used = datetime.now(UTC), True
        writes = [
            ReplaceOne({"_id": key}, {"_id": key, "trial": self._trial, "at": at, **product_fields(event)}, upsert=True)
            for event in events
            for key in [self._key(identity(event)[0])]
        ]
        async with operation():
            await self._trials.bulk_write(writes, ordered=False)
        return [Saved.SAVED] * len(events)

    async def forget(self) -> None:
        if not self._used:
            return
        with contextlib.suppress(Unavailable):  # the index does it, later
            async with operation():
                await self._trials.delete_many({"trial": self._trial})

    async def _saved(self, product_ids: Sequence[str]) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for part in parts(product_ids):
            query = {"_id": {"$in": [self._key(product_id) for product_id in part]}}
            async with operation():
                documents = await self._trials.find(query).to_list(None)
            found |= {d["_id"]["product_id"]: stored_from({**d, "_id": d["_id"]["product_id"]}) for d in documents}
        return found

    def _key(self, product_id: str) -> Document:
        return {"trial": self._trial, "product_id": product_id}
