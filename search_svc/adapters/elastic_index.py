"""The documents that the projection reads and writes, in Elasticsearch or OpenSearch."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic

from chassis.errors import Internal, Unavailable
from search_svc.adapters.documents import (
    category_from_document,
    category_to_document,
    product_from_document,
    product_to_document,
    sku_from_document,
    sku_to_document,
)
from search_svc.adapters.engine import Engine, is_outage, translated
from search_svc.adapters.mappings import CATEGORIES, PARTS, PRODUCTS
from search_svc.adapters.popularity_documents import POPULARITY, popularity_from_document, popularity_to_document
from search_svc.application.ports import D, DocumentRefused, Documents, IndexMissing, Stored, Write
from search_svc.domain.popularity import PopularityRecord
from search_svc.domain.product import Category, Product, SkuRecord

_BULK_BYTES = 5 * 1024 * 1024


class ElasticDocuments(Generic[D]):
    """Documents behind one alias. Nothing is written to an index that isn't there: the engine would make one up.

    One that `may_be_missing` reads as empty then: whoever makes it looks for all that its documents belong to.
    """

    def __init__(
        self,
        engine: Engine,
        alias: str,
        encode: Callable[[D], dict[str, Any]],
        decode: Callable[[str, Mapping[str, Any]], D],
        *,
        may_be_missing: bool = False,
    ):
        self._engine = engine
        self._alias = alias
        self._encode: Callable[[D], dict[str, Any]] = encode
        self._decode: Callable[[str, Mapping[str, Any]], D] = decode
        self._may_be_missing = may_be_missing

    async def read(self, keys: Sequence[str]) -> Mapping[str, Stored[D]]:
        if not keys:
            return {}
        with translated():
            answer = await self._engine.client.mget(
                index=self._alias, ids=keys, realtime=True, source_excludes=["text"]
            )
        found: dict[str, Stored[D]] = {}
        for item in answer["docs"]:
            if "error" in item and not (self._may_be_missing and _is_missing(item["error"])):
                _raise_for(item["error"])
            if item.get("found"):
                document = self._decode(item["_id"], item["_source"])
                found[item["_id"]] = Stored(document, (item["_seq_no"], item["_primary_term"]))
        return found

    async def write(self, writes: Sequence[Write[D]]) -> set[str]:
        conflicts: set[str] = set()
        refused: list[str] = []
        for body in _bodies(self._lines(writes)):
            try:
                with translated():
                    answer = await self._engine.client.bulk(
                        index=self._alias,
                        operations=body,  # type: ignore[arg-type]  # lines that are JSON already
                        require_alias=True,
                    )
            except Internal as error:
                # An id that is too long spoils the whole request.
                raise DocumentRefused(str(error)) from error
            if not answer["errors"]:
                continue
            for item in answer["items"]:
                (result,) = item.values()
                if result["status"] == 409:
                    conflicts.add(result["_id"])
                elif result["status"] >= 300:
                    refused.append(_refusal(result))
        if refused:
            raise DocumentRefused("; ".join(refused[:3]))
        return conflicts

    def _lines(self, writes: Iterable[Write[D]]) -> Iterator[bytes]:
        for write in writes:
            action: dict[str, Any]
            if write.revision is None:
                action = {"create": {"_id": write.key}}
            else:
                seq_no, term = write.revision
                action = {"index": {"_id": write.key, "if_seq_no": seq_no, "if_primary_term": term}}
            document = self._encode(write.document)
            yield f"{json.dumps(action)}\n{json.dumps(document, ensure_ascii=False)}\n".encode()


class ElasticIndex:
    """The projection's documents in one generation of indices: products, what is known by SKU, and the paths of
    categories. `names` are those that this generation is written by, by kind."""

    def __init__(self, engine: Engine, names: Mapping[str, str]):
        self._engine = engine
        self._products = names[PRODUCTS]
        self.products: Documents[Product] = ElasticDocuments(
            engine, names[PRODUCTS], product_to_document, lambda _, source: product_from_document(source)
        )
        self.skus: Documents[SkuRecord] = ElasticDocuments(engine, names[PARTS], sku_to_document, sku_from_document)
        self.categories: Documents[Category] = ElasticDocuments(
            engine, names[CATEGORIES], category_to_document, category_from_document
        )
        self.popularity: Documents[PopularityRecord] = ElasticDocuments(
            engine, POPULARITY, popularity_to_document, popularity_from_document, may_be_missing=True
        )

    async def behind(self, categories: Sequence[Category], limit: int) -> Sequence[str]:
        older = [
            {
                "bool": {
                    "filter": [
                        {"term": {"category_id": category.category_id}},
                        {"range": {"category_version": {"lt": category.version}}},
                    ]
                }
            }
            for category in categories
        ]
        with translated():
            # What was written before is to be found, so the index is refreshed.
            await self._engine.client.indices.refresh(index=self._products)
            answer = await self._engine.client.search(
                index=self._products,
                query={"bool": {"should": older, "minimum_should_match": 1}},
                size=limit,
                source=False,
                track_total_hits=False,
            )
        return [hit["_id"] for hit in answer["hits"]["hits"]]


def _bodies(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    body: list[bytes] = []
    size = 0
    for line in lines:
        if body and size + len(line) > _BULK_BYTES:
            yield body
            body, size = [], 0
        body.append(line)
        size += len(line)
    if body:
        yield body


def _refusal(result: Mapping[str, Any]) -> str:
    """What is wrong with the document; raises Unavailable or IndexMissing where nothing is."""
    if is_outage(result["status"]):
        raise Unavailable(f"the search engine answers {result['status']} to a write")
    error = result["error"]
    if error["type"] == "index_not_found_exception":
        raise IndexMissing
    return f"{result['_id']}: {error['type']}: {error['reason']}"


def _is_missing(error: Mapping[str, Any]) -> bool:
    return bool(error["type"] == "index_not_found_exception")


def _raise_for(error: Mapping[str, Any]) -> None:
    if _is_missing(error):
        raise IndexMissing
    raise Unavailable(f"the search engine can't read: {error['type']}: {error['reason']}")
