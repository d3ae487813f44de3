"""The orders of the window in Elasticsearch or OpenSearch, and the popularity of products beside them.

Two indices of their own, apart from the generations of the product index: orders mean the same to all of them.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from elasticsearch import ConflictError

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
# An engine gives 65,536 at most.
_PAGE = 10_000
_UNITS = {"units": {"sum": {"field": "lines.units"}}}


class ElasticSales:
    """`page`: values of an aggregation at a time. Each page costs as much as the first, so a large one is best."""

    def __init__(self, engine: Engine, *, page: int = _PAGE):
        self._engine = engine
        self._page = page
        self.orders: Documents[Sale] = ElasticDocuments(engine, SALES, sale_to_document, sale_from_document)

    async def units(self, since: int) -> Units:
        counted = {
            "bool": {
                "filter": [{"range": {"confirmed": {"gte": since}}}],
                "must_not": [{"exists": {"field": "cancelled"}}],
            }
        }
        fields = {"by_product": "lines.product_id", "by_sku": "lines.sku"}
        found: dict[str, dict[str, int]] = {name: {} for name in fields}
        async for name, bucket in self._values(SALES, fields, counted, nested="lines", aggregations=_UNITS):
            found[name][bucket["key"]["value"]] = int(bucket["units"]["value"])
        return Units(**found)

    async def popular(self) -> Sequence[str]:
        above = {"range": {"value": {"gt": 0}}}
        return [bucket["key"]["value"] async for _, bucket in self._values(POPULARITY, {"ids": "product_id"}, above)]

    async def _values(
        self,
        alias: str,
        fields: Mapping[str, str],
        query: Clause,
        *,
        nested: str = "",
        aggregations: Clause | None = None,
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Every value of each field, by the field's name here, with its aggregations: page by page, so that none is
        left out or counted roughly."""
        pages: dict[str, Clause] = {
            name: {"size": self._page, "sources": [{"value": {"terms": {"field": field}}}]}
            for name, field in fields.items()
        }
        while pages:
            asked: Clause = {
                name: {"composite": page, "aggregations": aggregations or {}} for name, page in pages.items()
            }
            if nested:
                asked = {"nested": {"nested": {"path": nested}, "aggregations": asked}}
            with translated():
                answer = await self._engine.client.search(
                    index=alias, size=0, track_total_hits=False, query=query, aggregations=asked
                )
            found = answer["aggregations"]["nested"] if nested else answer["aggregations"]
            for name in list(pages):
                for bucket in found[name]["buckets"]:
                    yield name, bucket
                if len(found[name]["buckets"]) < self._page:
                    del pages[name]
                else:
                    pages[name]["after"] = found[name]["after_key"]

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
        name = f"{alias}-000001"
        if not await self._engine.create_index(name, SALES_MAPPINGS[alias], alias):
            # Somebody came first, or the index has lost its alias.
            with translated():
                await self._engine.client.indices.put_alias(index=name, name=alias)

    async def take(self, holder: str, seconds: float) -> bool:
        lease = await self._lease()
        if lease and lease.holder != holder and lease.until > time.time():
            return False
        return await self._write_lease(replace(lease or _Lease(), holder=holder, until=time.time() + seconds))

    async def renew(self, holder: str, seconds: float) -> bool:
        return await self._change_lease(holder, until=time.time() + seconds)

    async def filled(self) -> bool:
        lease = await self._lease()
        return lease is not None and lease.filled

    async def complete(self, holder: str) -> bool:
        return await self._change_lease(holder, filled=True)

    async def computed(self, holder: str, since: int) -> bool:
        return await self._change_lease(holder, since=since)

    async def since(self) -> int:
        """Since when products show what was sold; 0 before they do. Raises IndexMissing, Unavailable."""
        lease = await self._lease()
        return lease.since if lease else 0

    async def _change_lease(self, holder: str, **changes: Any) -> bool:
        lease = await self._lease()
        if lease is None or lease.holder != holder:
            return False
        return await self._write_lease(replace(lease, **changes))

    async def _lease(self) -> "_Lease | None":
        with translated():
            answer = await self._engine.client.mget(index=SALES, ids=[_LEASE])
        (found,) = answer["docs"]
        if "error" in found:
            raise IndexMissing
        if not found["found"]:
            return None
        return _Lease(**found["_source"], revision=(found["_seq_no"], found["_primary_term"]))

    async def _write_lease(self, lease: "_Lease") -> bool:
        """Over the revision it was read at, or where there is none yet."""
        revision: dict[str, Any] = {"op_type": "create"}
        if lease.revision:
            revision = {"if_seq_no": lease.revision[0], "if_primary_term": lease.revision[1]}
        document = {"holder": lease.holder, "until": lease.until, "filled": lease.filled, "since": lease.since}
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
    """`until` is in seconds since 1970, `since` in milliseconds."""

    holder: str = ""
    until: float = 0
    filled: bool = False
    since: int = 0
    revision: tuple[int, int] | None = None
