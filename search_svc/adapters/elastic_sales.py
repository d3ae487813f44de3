"""The orders of the window in Elasticsearch or OpenSearch, and the popularity of products beside them.

Two indices of their own, apart from the generations of the product index: orders mean the same to all of them.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elasticsearch import BadRequestError, ConflictError

from search_svc.adapters.elastic_index import ElasticDocuments
from search_svc.adapters.engine import Engine, translated
from search_svc.adapters.popularity_documents import (
    POPULARITY,
    SALES,
    SALES_MAPPINGS,
    sale_from_document,
    sale_to_document,
)
from search_svc.application.ports import Documents, IndexMissing, Units
from search_svc.domain.popularity import Sale

Clause = dict[str, Any]

_LEASE = "lease"
_PAGE = 1_000


class ElasticSales:
    def __init__(self, engine: Engine):
        self._engine = engine
        self.orders: Documents[Sale] = ElasticDocuments(engine, SALES, sale_to_document, sale_from_document)

    async def units(self, since: int) -> Units:
        return Units(await self._sums("product_id", since), await self._sums("sku", since))

    async def _sums(self, field: str, since: int) -> dict[str, int]:
        """Page by page over all values, so that none is left out or counted roughly."""
        counted = {
            "bool": {
                "filter": [{"range": {"confirmed": {"gte": since}}}],
                "must_not": [{"exists": {"field": "cancelled"}}],
            }
        }
        units = {"units": {"sum": {"field": "lines.units"}}}
        found: dict[str, int] = {}
        async for bucket in self._values(SALES, f"lines.{field}", counted, nested="lines", aggregations=units):
            found[bucket["key"]["value"]] = int(bucket["units"]["value"])
        return found

    async def popular(self) -> Sequence[str]:
        above = {"range": {"value": {"gt": 0}}}
        return [bucket["key"]["value"] async for bucket in self._values(POPULARITY, "product_id", above)]

    async def _values(
        self, alias: str, field: str, query: Clause, *, nested: str = "", aggregations: Clause | None = None
    ) -> AsyncIterator[Mapping[str, Any]]:
        """Every value of a field, each with its aggregations."""
        pages: dict[str, Any] = {"size": _PAGE, "sources": [{"value": {"terms": {"field": field}}}]}
        while True:
            asked: Clause = {"values": {"composite": pages, "aggregations": aggregations or {}}}
            if nested:
                asked = {"nested": {"nested": {"path": nested}, "aggregations": asked}}
            with translated():
                answer = await self._engine.client.search(
                    index=alias, size=0, track_total_hits=False, query=query, aggregations=asked
                )
            found = answer["aggregations"]
            values = (found["nested"] if nested else found)["values"]
            for bucket in values["buckets"]:
                yield bucket
            if len(values["buckets"]) < _PAGE:
                return
            pages["after"] = values["after_key"]

    async def forget(self, before: int) -> None:
        old = {"range": {"confirmed": {"lt": before}}}
        never_heard_of = {"bool": {"must_not": [{"exists": {"field": "confirmed"}}]}}
        only_cancelled = {"bool": {"filter": [{"range": {"cancelled": {"lt": before}}}, never_heard_of]}}
        with translated():
            # What was changed meanwhile is dropped the next time.
            await self._engine.client.delete_by_query(
                index=SALES,
                query={"bool": {"should": [old, only_cancelled], "minimum_should_match": 1}},
                conflicts="proceed",
            )

    async def refresh(self) -> None:
        with translated():
            await self._engine.client.indices.refresh(index=[SALES, POPULARITY])

    async def prepare(self) -> bool:
        with translated():
            answer = await self._engine.client.indices.get(
                index=[*SALES_MAPPINGS], ignore_unavailable=True, allow_no_indices=True
            )
        there = {alias for index in answer.body.values() for alias in index.get("aliases", {})}
        missing = [alias for alias in SALES_MAPPINGS if alias not in there]
        for alias in missing:
            await self._create(alias)
        return bool(missing)

    async def _create(self, alias: str) -> None:
        settings = {"number_of_shards": 1, "auto_expand_replicas": "0-1", "refresh_interval": "1s"}
        mappings = {"dynamic": "strict", "properties": SALES_MAPPINGS[alias]}
        name = f"{alias}-000001"
        with translated():
            try:
                # One call makes index and alias, so that whoever comes first wins.
                await self._engine.client.indices.create(
                    index=name, aliases={alias: {}}, settings=settings, mappings=mappings
                )
            except BadRequestError as error:
                if error.error != "resource_already_exists_exception":
                    raise
                # Somebody came first, or the index has lost its alias.
                await self._engine.client.indices.put_alias(index=name, name=alias)

    async def take(self, holder: str, seconds: float) -> bool:
        lease = await self._lease()
        if lease and lease.holder != holder and lease.until > time.time():
            return False
        filled = lease is not None and lease.filled
        return await self._write_lease(_Lease(holder, time.time() + seconds, filled), lease)

    async def renew(self, holder: str, seconds: float) -> bool:
        lease = await self._lease()
        if lease is None or lease.holder != holder:
            return False
        return await self._write_lease(_Lease(holder, time.time() + seconds, lease.filled), lease)

    async def filled(self) -> bool:
        lease = await self._lease()
        return lease is not None and lease.filled

    async def complete(self, holder: str) -> bool:
        lease = await self._lease()
        if lease is None or lease.holder != holder:
            return False
        return await self._write_lease(_Lease(holder, lease.until, True), lease)

    async def _lease(self) -> "_Lease | None":
        with translated():
            answer = await self._engine.client.mget(index=SALES, ids=[_LEASE])
        (found,) = answer["docs"]
        if "error" in found:
            raise IndexMissing
        if not found["found"]:
            return None
        return _Lease(**found["_source"], revision=(found["_seq_no"], found["_primary_term"]))

    async def _write_lease(self, lease: "_Lease", old: "_Lease | None") -> bool:
        revision: dict[str, Any] = {"op_type": "create"}
        if old and old.revision:
            revision = {"if_seq_no": old.revision[0], "if_primary_term": old.revision[1]}
        document = {"holder": lease.holder, "until": lease.until, "filled": lease.filled}
        with translated():
            try:
                await self._engine.client.index(
                    index=SALES, id=_LEASE, document=document, require_alias=True, **revision
                )
            except ConflictError:
                return False
        return True


@dataclass(frozen=True, slots=True)
class _Lease:
    """`until` is in seconds since 1970."""

    holder: str
    until: float
    filled: bool
    revision: tuple[int, int] | None = None
