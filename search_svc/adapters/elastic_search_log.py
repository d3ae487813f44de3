"""What was searched for, in an index of its own: a document for each day, process and text.

Each document has one writer, which knows its whole count: so nothing is lost between replicas, and a write that is sent
twice changes nothing. Rebuilds of the product index leave it as it is.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from hashlib import blake2b
from typing import Any

from chassis.errors import Unavailable
from search_svc.adapters.engine import Engine, translated
from search_svc.application.ports import IndexMissing
from search_svc.domain.suggestion import SearchedText

ALIAS = "product-searches"
_NAME = f"{ALIAS}-1-000001"
_BULK = 1_000
_DAYS = 400
_MAPPINGS = {
    "day": {"type": "keyword"},
    "text": {"type": "keyword"},
    "searches": {"type": "long"},
    "without_hits": {"type": "long"},
}


class ElasticSearchLog:
    """`writer` is this process's own, never used again."""

    def __init__(self, engine: Engine, writer: str):
        self._engine = engine
        self._writer = writer

    async def write(self, day: date, counts: Mapping[str, SearchedText]) -> None:
        entries = list(counts.values())
        for begin in range(0, len(entries), _BULK):
            lines = [line for entry in entries[begin : begin + _BULK] for line in self._lines(day, entry)]
            if await self._missing(lines):
                await self._engine.create_index(_NAME, _MAPPINGS, ALIAS)
                if await self._missing(lines):
                    raise IndexMissing("the log of searches is missing")

    async def read(self, since: date, *, without_hits: bool, most: int) -> Sequence[SearchedText]:
        conditions: list[dict[str, Any]] = [{"range": {"day": {"gte": since.isoformat()}}}]
        if without_hits:
            conditions.append({"range": {"without_hits": {"gt": 0}}})
        order = [{"without_hits" if without_hits else "searches": "desc"}, {"_key": "asc"}]
        sums = {name: {"sum": {"field": name}} for name in ("searches", "without_hits")}
        terms = {"field": "text", "size": most, "order": order}
        try:
            with translated():
                answer = await self._engine.client.search(
                    index=ALIAS,
                    query={"bool": {"filter": conditions}},
                    aggregations={"texts": {"terms": terms, "aggregations": sums}},
                    size=0,
                    track_total_hits=False,
                )
        except IndexMissing:
            return []
        return [
            SearchedText(bucket["key"], *(int(bucket[name]["value"]) for name in sums))
            for bucket in answer["aggregations"]["texts"]["buckets"]
        ]

    async def forget(self, before: date, most: int) -> None:
        try:
            # Deleted is what the last refresh saw.
            with translated():
                await self._engine.client.indices.refresh(index=ALIAS)
            await self._drop(before.isoformat())
            left, days = await self._entries()
            for day, count in days:
                if left <= most:
                    return
                await self._drop(day, inclusive=True)
                left -= count
        except IndexMissing:
            return

    async def _drop(self, day: str, *, inclusive: bool = False) -> None:
        with translated():
            await self._engine.client.delete_by_query(
                index=ALIAS, query={"range": {"day": {"lte" if inclusive else "lt": day}}}, conflicts="proceed"
            )

    async def _entries(self) -> tuple[int, list[tuple[str, int]]]:
        """How many entries there are, and how many of each day, the oldest first."""
        terms = {"field": "day", "size": _DAYS, "order": {"_key": "asc"}}
        with translated():
            await self._engine.client.indices.refresh(index=ALIAS)
            answer = await self._engine.client.search(
                index=ALIAS, aggregations={"days": {"terms": terms}}, size=0, track_total_hits=False
            )
        days = [(bucket["key"], bucket["doc_count"]) for bucket in answer["aggregations"]["days"]["buckets"]]
        return sum(count for _, count in days), days

    def _lines(self, day: date, entry: SearchedText) -> list[bytes]:
        key = blake2b(entry.text.encode(), digest_size=16).hexdigest()
        document = {
            "day": day.isoformat(),
            "text": entry.text,
            "searches": entry.searches,
            "without_hits": entry.without_hits,
        }
        action = {"index": {"_id": f"{day.isoformat()} {self._writer} {key}"}}
        return [json.dumps(action).encode(), json.dumps(document).encode()]

    async def _missing(self, lines: Sequence[bytes]) -> bool:
        """Whether the index is missing, so that nothing was written. Raises Unavailable."""
        try:
            with translated():
                answer = await self._engine.client.bulk(
                    index=ALIAS,
                    operations=lines,  # type: ignore[arg-type]  # lines that are JSON already
                    require_alias=True,
                )
        except IndexMissing:
            return True
        errors = [item["index"]["error"]["type"] for item in answer["items"] if "error" in item["index"]]
        if "index_not_found_exception" in errors:
            return True
        if errors:
            raise Unavailable(f"the search engine can't log what was searched: {errors[0]}")
        return False
