"""Which versions of products the engine has, and which of them its searches see."""

from collections.abc import Mapping, Set

from search_svc.adapters.engine import Engine, translated
from search_svc.adapters.indices import Indices
from search_svc.adapters.mappings import PRODUCTS
from search_svc.application.ports import IndexMissing


class ElasticVisibility:
    def __init__(self, engine: Engine, indices: Indices):
        self._engine = engine
        self._indices = indices

    async def searched(self) -> str:
        return await self._indices.name()

    async def written(self, product_ids: Set[str]) -> Mapping[str, int]:
        with translated():
            answer = await self._engine.client.mget(
                index=PRODUCTS, ids=sorted(product_ids), realtime=True, source_includes=["version"]
            )
        if any("error" in item for item in answer["docs"]):
            raise IndexMissing
        return {item["_id"]: item["_source"]["version"] for item in answer["docs"] if item["found"]}

    async def shown(self, product_ids: Set[str]) -> Mapping[str, int]:
        with translated():
            answer = await self._engine.client.search(
                index=PRODUCTS,
                query={"terms": {"product_id": sorted(product_ids)}},
                size=len(product_ids),
                source_includes=["version"],
                track_total_hits=False,
            )
        return {hit["_id"]: hit["_source"]["version"] for hit in answer["hits"]["hits"]}

    async def refresh_shown(self) -> None:
        with translated():
            await self._engine.client.indices.refresh(index=PRODUCTS)
