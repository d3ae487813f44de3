"""Products as documents of MongoDB, each with the messages that its changes still have to send.

    {"_id": product_id, "version": int64, "etag", "deleted": false, "created", "updated",
     "name", "description", "brand", "category_path": […], "attributes": {name: text | double | bool},
     "variants": [{"sku", "price": {"currency", "nanos": int64}, "eans": […], "name", "untracked"}],
     "skus": […], "outbox": […], "pending": true}

A deleted product keeps `_id`, `version`, `deleted: true`, and its outbox. `outbox` and `pending` belong to
chassis.outbox.mongo.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

from bson import CodecOptions, Int64
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ASCENDING, AsyncMongoClient, IndexModel, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    PyMongoError,
    WriteConcernError,
)

from catalog_svc.application.ports import Saved, SoldVariant
from catalog_svc.domain.product import (
    Details,
    Product,
    ProductDeleted,
    ProductEvent,
    Stored,
    Tombstone,
    Variant,
    identity,
)
from catalog_svc.protos import envelope
from chassis.errors import Unavailable
from chassis.money import Money
from chassis.outbox.mongo import MongoOutbox

Document = dict[str, Any]
Driver = Literal["motor", "pymongo"]

# Messages that one document may hold unsent, so that it stays well below MongoDB's 16 MiB.
MAX_UNSENT = 32

_OPERATION_TIMEOUT = 10.0
# The outbox moves large pages, for which this is the only limit.
_SOCKET_TIMEOUT_MS = 45_000
_SELECTION_TIMEOUT_MS = 2_500
# A longer $in is split: matching one is quadratic in SecantusDB, and harmless to split elsewhere.
_LOOKUP = 100
_STREAM_BATCH = 200
_WRITES_AT_ONCE = 16

_ID_INDEX = [("_id", ASCENDING)]
_INDEXES = (
    # Sparse: a deleted product has no `skus`, so it takes no part.
    IndexModel([("skus", ASCENDING)], name="skus", unique=True, sparse=True),
    IndexModel([("brand", ASCENDING), ("_id", ASCENDING)], name="brand"),
)
_CONTENT = (
    "etag", "created", "updated", "name", "description", "brand", "category_path", "attributes", "variants", "skus",
)  # fmt: skip


class MongoProducts:
    """`Products` in the database that `url` names, "catalog" if it names none. `open` doesn't connect: that happens
    with the first operation, and again whenever the connection was lost."""

    def __init__(self, url: str, driver: Driver = "motor"):
        kind: Any = AsyncIOMotorClient if driver == "motor" else AsyncMongoClient
        self._client = kind(
            url,
            socketTimeoutMS=_SOCKET_TIMEOUT_MS,
            connectTimeoutMS=_SELECTION_TIMEOUT_MS,
            serverSelectionTimeoutMS=_SELECTION_TIMEOUT_MS,
            connect=False,
            appname="catalog_svc",
        )
        # motor's collection has the methods of PyMongo's, as far as they are used here.
        self._products = cast(
            "AsyncCollection[Document]",
            self._client.get_default_database("catalog").get_collection(
                "products",
                codec_options=CodecOptions(tz_aware=True),
                write_concern=WriteConcern("majority", j=True),
            ),
        )
        self._writes = asyncio.Semaphore(_WRITES_AT_ONCE)
        self.outbox = MongoOutbox(self._products)

    async def open(self) -> None:
        """Nothing to do: the driver connects when it is used."""

    async def close(self) -> None:
        closing = self._client.close()
        if inspect.isawaitable(closing):
            await closing

    async def ready(self) -> None:
        """Raises Unavailable unless the server answers."""
        async with _operation():
            await self._products.database.command("ping")

    async def migrate(self) -> None:
        """Make the indexes that are missing."""
        async with _operation():
            await self._products.create_indexes(list(_INDEXES))
        await self.outbox.ensure_index()

    async def check_schema(self) -> None:
        """Raises Unavailable (SCHEMA_PENDING) while an index is missing."""
        async with _operation():
            present = await self._products.index_information()
        names = [*(index.document["name"] for index in _INDEXES), "pending"]
        if missing := [name for name in names if name not in present]:
            raise Unavailable(
                f"the collection lacks the indexes {', '.join(missing)}; run `python -m catalog_svc migrate`",
                reason="SCHEMA_PENDING",
            )

    async def get(self, product_ids: Sequence[str]) -> Mapping[str, Stored]:
        return {d["_id"]: _stored(d) for d in await self._lookup("_id", product_ids, {"outbox": 0})}

    async def holders(self, skus: Sequence[str]) -> Mapping[str, str]:
        documents = await self._lookup("skus", skus, {"skus": 1})
        return {sku: d["_id"] for d in documents for sku in set(d["skus"]).intersection(skus)}

    async def variants(self, skus: Sequence[str]) -> Mapping[str, SoldVariant]:
        wanted = set(skus)
        documents = await self._lookup("skus", skus, {"version": 1, "name": 1, "variants": 1})
        return {
            v["sku"]: SoldVariant(d["_id"], d["version"], d["name"], _variant(v))
            for d in documents
            for v in d["variants"]
            if v["sku"] in wanted
        }

    async def save(self, events: Sequence[ProductEvent]) -> Sequence[Saved]:
        first = [event for event in events if identity(event)[1] == 1]
        others = [event for event in events if identity(event)[1] > 1]
        outcomes = {**await self._insert(first), **await self._replace(others)}
        self.outbox.nudge()
        return [outcomes[identity(event)[0]] for event in events]

    async def page(self, after: str, limit: int, brand: str = "") -> Sequence[Product]:
        query: Document = {"_id": {"$gt": after}, "deleted": False}
        if brand:
            query["brand"] = brand
        async with _operation():
            cursor = self._find(query, {"outbox": 0}).sort(_ID_INDEX).limit(limit)
            if not brand:
                cursor = cursor.hint(_ID_INDEX)
            return [_product(document) for document in await cursor.to_list(None)]

    async def stream(self, *, include_deleted: bool = False) -> AsyncGenerator[Sequence[Stored], None]:
        query: Document = {} if include_deleted else {"deleted": False}
        cursor = self._find(query, {"outbox": 0}).batch_size(_STREAM_BATCH)
        try:
            while True:
                async with _operation():
                    documents = await cursor.to_list(_STREAM_BATCH)
                if not documents:
                    return
                yield [_stored(document) for document in documents]
        finally:
            await cursor.close()

    def _find(self, query: Document, projection: Document) -> AsyncCursor[Document]:
        return self._products.find(query, projection, max_time_ms=int(_OPERATION_TIMEOUT * 1_000))

    async def _lookup(self, field: str, keys: Sequence[str], projection: Document) -> Iterable[Document]:
        """Each document once."""
        found: dict[str, Document] = {}
        for start in range(0, len(keys), _LOOKUP):
            query = {field: {"$in": list(keys[start : start + _LOOKUP])}}
            async with _operation():
                documents = await self._find(query, projection).to_list(None)
            found.update((document["_id"], document) for document in documents)
        return found.values()

    async def _insert(self, events: Sequence[ProductEvent]) -> dict[str, Saved]:
        documents = [
            {"_id": identity(event)[0], **_fields(event), "outbox": self._messages(event), "pending": True}
            for event in events
        ]
        outcomes = {document["_id"]: Saved.SAVED for document in documents}
        if not documents:
            return outcomes
        try:
            async with _operation():
                await self._products.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failures = error.details["writeErrors"]
            if error.details.get("writeConcernErrors"):
                raise Unavailable(f"MongoDB didn't confirm a write: {error}") from error
            if any(failure["code"] != _DUPLICATE_KEY for failure in failures):
                raise
            for failure in failures:
                product_id = documents[failure["index"]]["_id"]
                outcomes[product_id] = Saved.STALE if "_id" in failure["keyPattern"] else Saved.SKU_TAKEN
        return outcomes

    async def _replace(self, events: Sequence[ProductEvent]) -> dict[str, Saved]:
        outcomes = await asyncio.gather(*map(self._replace_one, events))
        return {identity(event)[0]: outcome for event, outcome in zip(events, outcomes, strict=True)}

    async def _replace_one(self, event: ProductEvent) -> Saved:
        product_id, version = identity(event)
        before = {"_id": product_id, "version": version - 1}
        update: Document = {
            "$set": {**_fields(event), "pending": True},
            "$push": {"outbox": {"$each": self._messages(event)}},
        }
        if isinstance(event, ProductDeleted):
            update["$unset"] = dict.fromkeys(_CONTENT, "")
        try:
            async with self._writes, _operation():
                room = {**before, f"outbox.{MAX_UNSENT - 1}": {"$exists": False}}
                if (await self._products.update_one(room, update)).matched_count:
                    return Saved.SAVED
                unmoved = await self._products.find_one(before, {"_id": 1})
        except DuplicateKeyError:
            return Saved.SKU_TAKEN
        return Saved.BACKED_UP if unmoved else Saved.STALE

    def _messages(self, event: ProductEvent) -> list[Document]:
        return self.outbox.embed([envelope(event)])


_DUPLICATE_KEY = 11000


@asynccontextmanager
async def _operation() -> AsyncGenerator[None, None]:
    """Around one operation: a limit to its time, and outages and timeouts as Unavailable."""
    try:
        async with asyncio.timeout(_OPERATION_TIMEOUT):
            yield
    except PyMongoError as error:
        if isinstance(error, ConnectionFailure | WriteConcernError) or error.timeout:
            raise Unavailable(f"MongoDB can't be reached: {error}") from error
        raise
    except TimeoutError as error:
        raise Unavailable(f"MongoDB didn't answer within {_OPERATION_TIMEOUT:.0f} s") from error


def _fields(event: ProductEvent) -> Document:
    """The fields that the event leaves behind, all but `_id` and the outbox."""
    if isinstance(event, ProductDeleted):
        return {"version": Int64(event.version), "deleted": True}
    product, details = event.product, event.product.details
    return {
        "version": Int64(product.version),
        "etag": product.etag,
        "deleted": False,
        "created": product.create_time,
        "updated": product.update_time,
        "name": details.name,
        "description": details.description,
        "brand": details.brand,
        "category_path": list(details.category_path),
        "attributes": {_escaped(name): value for name, value in details.attributes.items()},
        "variants": [
            {
                "sku": variant.sku,
                "price": {"currency": variant.price.currency, "nanos": Int64(variant.price.nanos)},
                "eans": list(variant.eans),
                "name": variant.name,
                "untracked": variant.untracked,
            }
            for variant in details.variants
        ],
        "skus": list(details.skus),
    }


def _stored(document: Document) -> Stored:
    if document["deleted"]:
        return Tombstone(document["_id"], int(document["version"]))
    return _product(document)


def _product(document: Document) -> Product:
    return Product(
        product_id=document["_id"],
        version=int(document["version"]),
        etag=document["etag"],
        create_time=document["created"],
        update_time=document["updated"],
        details=Details(
            name=document["name"],
            description=document["description"],
            brand=document["brand"],
            category_path=tuple(document["category_path"]),
            attributes={_unescaped(name): value for name, value in document["attributes"].items()},
            variants=tuple(map(_variant, document["variants"])),
        ),
    )


def _variant(document: Document) -> Variant:
    price = document["price"]
    return Variant(
        sku=document["sku"],
        price=Money(price["currency"], int(price["nanos"])),
        eans=tuple(document["eans"]),
        name=document["name"],
        untracked=document["untracked"],
    )


# Dots and dollars mean something in a query or an update, and a NUL ends a BSON key.
_ESCAPES = {"%": "%25", ".": "%2E", "$": "%24", "\0": "%00"}


def _escaped(name: str) -> str:
    for character, escape in _ESCAPES.items():
        name = name.replace(character, escape)
    return name


def _unescaped(name: str) -> str:
    for character, escape in reversed(_ESCAPES.items()):
        name = name.replace(escape, character)
    return name
