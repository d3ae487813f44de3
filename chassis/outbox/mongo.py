"""The outbox inside the documents themselves, so that one atomic write holds a change and its messages.

A document that has something to publish looks like this, and is found by a partial index on `pending`:

    {"_id": …, …, "pending": true, "outbox": [{"id", "subject", "aggregate_id", "headers", "data", "at"}, …]}

Writers append to `outbox` (`$push` with `$each`, or the whole document when they insert it) and set `pending`
in the same update. The relay touches these two fields alone, never a version or an etag.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo import ReturnDocument, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConnectionFailure, DuplicateKeyError

from chassis.errors import Unavailable
from chassis.messaging.envelope import Envelope
from chassis.outbox.port import LEASE, PAGE_BYTES, Backlog, OutboxEntry

Document = dict[str, Any]
DocumentCollection = AsyncIOMotorCollection[Document] | AsyncCollection[Document]

_COUNTED_AT_MOST = 10_000
_BATCH = 100


@dataclass(frozen=True, slots=True)
class _EmbeddedEntry(OutboxEntry):
    document: object


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ConnectionFailure as error:
        raise Unavailable(f"MongoDB can't be reached: {error}") from error


class MongoOutbox:
    """The outbox of one collection, of motor or of PyMongo's own async client."""

    def __init__(self, collection: DocumentCollection):
        self._collection = collection
        self._leases: DocumentCollection = collection.database["leases"]
        self._nudge: Callable[[], None] = lambda: None

    async def ensure_index(self) -> None:
        with _translated():
            await self._collection.create_index(
                [("pending", 1)], name="pending", partialFilterExpression={"pending": True}
            )

    def embed(self, envelopes: Sequence[Envelope]) -> list[Document]:
        """The elements for a document's `outbox` array; the write must also set `pending` to true."""
        now = time.time()
        return [
            {
                "id": envelope.id,
                "subject": envelope.subject,
                "aggregate_id": envelope.aggregate_id,
                "headers": envelope.headers(),
                "data": envelope.data,
                "at": now,
            }
            for envelope in envelopes
        ]

    def nudge(self) -> None:
        """To be called after a write with messages, for the relay not to wait until its next poll."""
        self._nudge()

    def on_added(self, nudge: Callable[[], None]) -> None:
        self._nudge = nudge

    async def lease(self, holder: str, duration: timedelta = LEASE) -> bool:
        # By the server's clock, in milliseconds, whatever the holders' say. A lease that isn't there yet has no expiry,
        # which is less than any number.
        now = {"$toLong": "$$NOW"}
        free = {"$or": [{"$eq": ["$holder", holder]}, {"$lt": ["$expires_at", now]}]}
        until = {"$add": [now, round(duration.total_seconds() * 1000)]}
        taken = {
            "holder": {"$cond": [free, holder, "$holder"]},
            "expires_at": {"$cond": [free, until, "$expires_at"]},
        }
        try:
            with _translated():
                lease = await self._leases.find_one_and_update(
                    {"_id": self._collection.name}, [{"$set": taken}], upsert=True, return_document=ReturnDocument.AFTER
                )
        except DuplicateKeyError:  # another made it at the same time
            return False
        return lease is not None and lease["holder"] == holder

    async def release(self, holder: str) -> None:
        with _translated():
            await self._leases.delete_one({"_id": self._collection.name, "holder": holder})

    async def pending(self, limit: int, skip: Collection[str] = ()) -> Sequence[OutboxEntry]:
        """The entries of whole documents."""
        query: Document = {"pending": True}
        if skip:
            query["outbox.aggregate_id"] = {"$nin": list(skip)}
        entries: list[OutboxEntry] = []
        size = 0
        with _translated():
            # Several batches to a page, for the server not to send all of it at once.
            cursor = self._collection.find(query, {"outbox": 1}).limit(limit).batch_size(_BATCH)
            async for document in cursor:
                for e in document["outbox"]:
                    entries.append(
                        _EmbeddedEntry(
                            e["id"], e["aggregate_id"], e["subject"], e["headers"], e["data"], document["_id"]
                        )
                    )
                    size += len(e["data"])
                if len(entries) >= limit or size >= PAGE_BYTES:
                    await cursor.close()
                    break
        return entries

    async def remove(self, published: Sequence[OutboxEntry]) -> None:
        by_document: dict[object, list[str]] = {}
        for entry in published:
            assert isinstance(entry, _EmbeddedEntry)
            by_document.setdefault(entry.document, []).append(entry.id)
        if not by_document:
            return
        with _translated():
            # Mostly an outbox holds what was published and nothing more: then one update does it.
            result = await self._collection.bulk_write(
                [_empty(document, ids) for document, ids in by_document.items()], ordered=False
            )
            if result.matched_count == len(by_document):
                return
            documents = {"_id": {"$in": list(by_document)}}
            ids = [entry.id for entry in published]
            await self._collection.update_many(documents, {"$pull": {"outbox": {"id": {"$in": ids}}}})
            await self._collection.update_many(
                {**documents, "pending": True, "outbox": {"$size": 0}}, {"$unset": {"pending": ""}}
            )

    async def backlog(self) -> Backlog:
        """Counts the entries of up to 10,000 documents."""
        with _translated():
            found = self._collection.find({"pending": True}, {"_id": 0, "outbox.at": 1})
            documents = await found.limit(_COUNTED_AT_MOST).to_list(None)
        times = [entry["at"] for document in documents for entry in document["outbox"]]
        return Backlog(len(times), max(0.0, time.time() - min(times)) if times else 0.0)


def _empty(document: object, ids: Sequence[str]) -> UpdateOne:
    exactly: Document = {f"outbox.{position}.id": id for position, id in enumerate(ids)}
    return UpdateOne(
        {"_id": document, **exactly, f"outbox.{len(ids)}": {"$exists": False}},
        {"$set": {"outbox": []}, "$unset": {"pending": ""}},
    )
