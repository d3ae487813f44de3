"""Products by id, as shoppers see them."""

from collections.abc import Mapping, Sequence

from search_svc.adapters.documents import product_from_document
from search_svc.adapters.engine import Engine, translated
from search_svc.adapters.mappings import PRODUCTS
from search_svc.domain.product import Product


class ElasticShownProducts:
    def __init__(self, engine: Engine):
        self._engine = engine

    async def shown(self, product_ids: Sequence[str], category: str) -> Mapping[str, Product]:
        conditions = [{"ids": {"values": list(product_ids)}}, {"term": {"shown": True}}]
        if category:
            conditions.append({"term": {"categories": category}})
        with translated():
            answer = await self._engine.client.search(
                index=PRODUCTS,
                query={"bool": {"filter": conditions}},
                size=len(product_ids),
                track_total_hits=False,
                source_excludes=["text", "rest.description"],
            )
        return {hit["_id"]: product_from_document(hit["_source"]) for hit in answer["hits"]["hits"]}
