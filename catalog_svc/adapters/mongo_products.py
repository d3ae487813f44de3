"""Products as documents of MongoDB, each with the messages that its changes still have to send.

    {"_id": product_id, "version": int64, "etag", "deleted": false, "created", "updated", "name", "description",
     "brand", "category_id", "product_type_id", "status", "tags": […], "media": [{"uri", "alt_text"}],
     "attributes": {name: text | double | bool},
     "variants": [{"sku", "price": {"currency", "nanos": int64}, "list_price": … | null, "eans": […], "name",
                   "untracked", "options": {name: text}, "media": […]}],
     "skus": […], "tax_class", "request": {"id", "fingerprint"},
     "revisions": [{"version", "time", "by", "kind", "changed": […]}], "outbox": […], "pending": true}

A deleted product keeps `_id`, `version`, `deleted: true`, its request, revisions and outbox. `outbox` and `pending`
belong to chassis.outbox.mongo.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import BulkWriteError, DuplicateKeyError

from catalog_svc.adapters.mongo import MAX_UNSENT, OPERATION_TIMEOUT, Document, Mongo, missing_indexes, operation, parts
from catalog_svc.adapters.mongo_documents import (
    CONTENT,
    product_fields,
    product_from,
    revision_from,
    revision_to_document,
    sold_from,
    stored_from,
)
from catalog_svc.adapters.mongo_trial import INDEXES as TRIAL_INDEXES
from catalog_svc.adapters.mongo_trial import MongoTrial
from catalog_svc.application.ports import (
    MAX_REVISIONS,
    Filter,
    Order,
    Position,
    Requested,
    Saved,
    SoldVariant,
)
from catalog_svc.domain.product import (
    Product,
    ProductCreated,
    ProductDeleted,
    ProductEvent,
    Revision,
    Stored,
    identity,
    revision,
)
from catalog_svc.protos import envelope
from chassis.errors import Unavailable
from chassis.ids import uuid7
from chassis.outbox.mongo import MongoOutbox

_STREAM_BATCH = 200
_WRITES_AT_ONCE = 16
_DUPLICATE_KEY = 11000

_STATE: Document = {"outbox": 0, "revisions": 0, "request": 0}

Keys = list[tuple[str, int]]

# get, and the stream with what is deleted.
_BY_ID: Keys = [("_id", ASCENDING)]
_BY_CHANGE: Keys = [("updated", ASCENDING), *_BY_ID]
# holders, variants. Sparse: a deleted product has no `skus`, so it takes no part.
_BY_SKU: Keys = [("skus", ASCENDING)]
# requested. Sparse: most products were created without.
_BY_REQUEST: Keys = [("request.id", ASCENDING)]
# Pages, by id and by time of change in both directions, and the stream: equality on what narrows most (on `deleted`
# where nothing else is asked), then the order, which the range is of too. The other conditions are checked on what that
# finds. `category_id` may be one of several: their scans are merged by the order.
_NARROWING = ("category_id", "product_type_id", "brand", "status", "deleted")
_PAGED_BY: dict[str, Keys] = {
    **{field: [(field, ASCENDING), *_BY_ID] for field in _NARROWING},
    **{f"{field}_by_change": [(field, ASCENDING), *_BY_CHANGE] for field in _NARROWING},
}

_INDEXES = (
    IndexModel(_BY_SKU, name="skus", unique=True, sparse=True),
    IndexModel(_BY_REQUEST, name="request", unique=True, sparse=True),
    *(IndexModel(keys, name=name) for name, keys in _PAGED_BY.items()),
)


class MongoProducts:
    """`Products` in the collection `products`."""

    def __init__(self, mongo: Mongo):
        self._products = mongo.collection("products")
        self._trials = mongo.collection("trials")
        self._writes = asyncio.Semaphore(_WRITES_AT_ONCE)
        self.outbox = MongoOutbox(self._products)

    async def migrate(self) -> None:
        """Make the indexes that are missing."""
        async with operation():
            await self._products.create_indexes(list(_INDEXES))
            await self._trials.create_indexes(list(TRIAL_INDEXES))
        await self.outbox.ensure_index()

    async def missing(self) -> list[str]:
        """The indexes that aren't there."""
        return [
            *await missing_indexes(self._products, [*(index.document["name"] for index in _INDEXES), "pending"]),
            *await missing_indexes(self._trials, [index.document["name"] for index in TRIAL_INDEXES]),
        ]

    @asynccontextmanager
    async def trial(self) -> AsyncGenerator[MongoTrial, None]:
        trial = MongoTrial(self, self._trials, uuid7())
        try:
            yield trial
        finally:
            # Also where the caller is cancelled.
            await asyncio.shield(trial.forget())

    async def get(self, product_ids: Sequence[str]) -> Mapping[str, Stored]:
        return {d["_id"]: stored_from(d) for d in await self._lookup("_id", product_ids, _STATE)}

    async def requested(self, request_id: str) -> Requested | None:
        async with operation():
            document = await self._products.find_one({"request.id": request_id}, {"request": 1})
        return Requested(document["_id"], document["request"]["fingerprint"]) if document else None

    async def holders(self, skus: Sequence[str]) -> Mapping[str, str]:
        documents = await self._lookup("skus", skus, {"skus": 1})
        return {sku: d["_id"] for d in documents for sku in set(d["skus"]).intersection(skus)}

    async def variants(self, skus: Sequence[str]) -> Mapping[str, SoldVariant]:
        wanted = set(skus)
        documents = await self._lookup(
            "skus", skus, {"version": 1, "name": 1, "status": 1, "variants": 1, "tax_class": 1}
        )
        return {v["sku"]: sold_from(d, v) for d in documents for v in d["variants"] if v["sku"] in wanted}

    async def revisions(self, product_id: str) -> Sequence[Revision] | None:
        async with operation():
            document = await self._products.find_one({"_id": product_id}, {"revisions": 1})
        return [revision_from(entry) for entry in reversed(document["revisions"])] if document else None

    async def save(self, events: Sequence[ProductEvent]) -> Sequence[Saved]:
        first = [event for event in events if identity(event)[1] == 1]
        others = [event for event in events if identity(event)[1] > 1]
        outcomes = {**await self._insert(first), **await self._replace(others)}
        self.outbox.nudge()
        return [outcomes[identity(event)[0]] for event in events]

    async def page(self, which: Filter, order: Order, after: Position | None, limit: int) -> Sequence[Product]:
        conditions, categories = _conditions(which), list(which.category_ids)
        if order is Order.BY_ID:
            if after:
                conditions["_id"] = {"$gt": after.product_id}
            return await self._page(conditions, categories, _BY_ID, limit)
        direction, beyond = (ASCENDING, "$gt") if order is Order.OLDEST_CHANGE_FIRST else (DESCENDING, "$lt")
        sort = [(field, direction) for field, _ in _BY_CHANGE]
        if not after:
            return await self._page(conditions, categories, sort, limit)
        # One $or would do, and no index serve it: first the rest of the same moment, then what lies beyond.
        since = conditions.pop("updated", {})
        tied = {**conditions, "updated": after.update_time, "_id": {beyond: after.product_id}}
        found = await self._page(tied, categories, sort, limit)
        if len(found) < limit:
            later = {**conditions, "updated": {**since, beyond: after.update_time}}
            found += await self._page(later, categories, sort, limit - len(found))
        return found

    async def _page(self, query: Document, categories: list[str], sort: Keys, limit: int) -> list[Product]:
        """The first of those in the categories, all if there are none."""
        found: list[Document] = []
        by = sort[0][0]
        for some in parts(categories) or [[]]:
            part = {**query, "category_id": {"$in": some}} if some else query
            if len(found) == limit and not _is_equality(query.get(by)):
                # What lies behind the last so far isn't wanted any more.
                within = "$lte" if sort[0][1] == ASCENDING else "$gte"
                part = {**part, by: _within(query.get(by, {}), within, found[-1][by])}
            narrowest = next(field for field in _NARROWING if field in part)
            index = [(narrowest, ASCENDING), *((field, ASCENDING) for field, _ in sort)]
            async with operation():
                cursor = self._products.find(part, _STATE, max_time_ms=int(OPERATION_TIMEOUT * 1_000))
                found += await cursor.sort(sort).hint(index).limit(limit).to_list(None)
            found.sort(key=lambda d: [d[field] for field, _ in sort], reverse=sort[0][1] == DESCENDING)
            del found[limit:]
        return [product_from(document) for document in found]

    async def stream(self, *, include_deleted: bool = False, after: str = "") -> AsyncGenerator[Sequence[Stored], None]:
        # A query for each batch: a cursor doesn't outlive a reader that rests.
        query: Document = {} if include_deleted else {"deleted": False}
        index = _BY_ID if include_deleted else _PAGED_BY["deleted"]
        while True:
            if after:
                query["_id"] = {"$gt": after}
            async with operation():
                cursor = self._products.find(query, _STATE, max_time_ms=int(OPERATION_TIMEOUT * 1_000))
                documents = await cursor.sort(_BY_ID).hint(index).limit(_STREAM_BATCH).to_list(None)
            if documents:
                yield [stored_from(document) for document in documents]
            if len(documents) < _STREAM_BATCH:
                return
            after = documents[-1]["_id"]

    async def _lookup(self, field: str, keys: Sequence[str], projection: Document) -> Iterable[Document]:
        """Each document once."""
        found: dict[str, Document] = {}
        for part in parts(keys):
            async with operation():
                cursor = self._products.find(
                    {field: {"$in": part}}, projection, max_time_ms=int(OPERATION_TIMEOUT * 1_000)
                )
                documents = await cursor.to_list(None)
            found.update((document["_id"], document) for document in documents)
        return found.values()

    async def _insert(self, events: Sequence[ProductEvent]) -> dict[str, Saved]:
        documents = [
            {
                "_id": identity(event)[0],
                **product_fields(event),
                **_request(event),
                "revisions": [revision_to_document(revision(event))],
                "outbox": self._messages(event),
                "pending": True,
            }
            for event in events
        ]
        outcomes = {document["_id"]: Saved.SAVED for document in documents}
        if not documents:
            return outcomes
        try:
            async with operation():
                await self._products.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failures = error.details["writeErrors"]
            if error.details.get("writeConcernErrors"):
                raise Unavailable(f"MongoDB didn't confirm a write: {error}") from error
            if any(failure["code"] != _DUPLICATE_KEY for failure in failures):
                raise
            for failure in failures:
                outcomes[documents[failure["index"]]["_id"]] = _refused(failure)
        return outcomes

    async def _replace(self, events: Sequence[ProductEvent]) -> dict[str, Saved]:
        outcomes = await asyncio.gather(*map(self._replace_one, events))
        return {identity(event)[0]: outcome for event, outcome in zip(events, outcomes, strict=True)}

    async def _replace_one(self, event: ProductEvent) -> Saved:
        product_id, version = identity(event)
        before = {"_id": product_id, "version": version - 1}
        update: Document = {
            "$set": {**product_fields(event), **_request(event), "pending": True},
            "$push": {
                "outbox": {"$each": self._messages(event)},
                "revisions": {"$each": [revision_to_document(revision(event))], "$slice": -MAX_REVISIONS},
            },
        }
        if isinstance(event, ProductDeleted):
            update["$unset"] = dict.fromkeys(CONTENT, "")
        elif isinstance(event, ProductCreated) and not event.request:
            update["$unset"] = {"request": ""}
        try:
            async with self._writes, operation():
                room = {**before, f"outbox.{MAX_UNSENT - 1}": {"$exists": False}}
                if (await self._products.update_one(room, update)).matched_count:
                    return Saved.SAVED
                unmoved = await self._products.find_one(before, {"_id": 1})
        except DuplicateKeyError as error:
            return _refused(error.details or {})
        return Saved.BACKED_UP if unmoved else Saved.STALE

    def _messages(self, event: ProductEvent) -> list[Document]:
        return self.outbox.embed([envelope(event)])


def _request(event: ProductEvent) -> Document:
    if isinstance(event, ProductCreated) and event.request:
        return {"request": {"id": event.request.id, "fingerprint": event.request.fingerprint}}
    return {}


def _refused(failure: Mapping[str, Any]) -> Saved:
    """What a duplicate key means."""
    return Saved.SKU_TAKEN if "skus" in failure["keyPattern"] else Saved.STALE


def _is_equality(condition: Any) -> bool:
    return condition is not None and not isinstance(condition, dict)


def _within(condition: Document, operator: str, bound: Any) -> Document:
    """The condition and one bound more, whichever is the narrower."""
    narrower = min if operator == "$lte" else max
    return {**condition, operator: narrower(bound, condition.get(operator, bound))}


def _conditions(which: Filter) -> Document:
    """All but the categories."""
    query: Document = {"deleted": False}
    if which.product_type_id:
        query["product_type_id"] = which.product_type_id
    if which.brand:
        query["brand"] = which.brand
    if which.status:
        query["status"] = which.status.value
    if which.updated_since:
        query["updated"] = {"$gte": which.updated_since}
    return query
