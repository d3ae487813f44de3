"""The catalog and the inventory, read in full over their streams."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog
from polymart.catalog.v1.catalog_service_pb2 import ProductState, StreamProductsRequest
from polymart.catalog.v1.taxonomy_service_pb2 import ListCategoriesRequest
from polymart.inventory.v1.inventory_service_pb2 import SkuAvailability as SkuAvailabilityMessage
from polymart.inventory.v1.inventory_service_pb2 import StreamAvailabilityRequest

from chassis.rpc.client import RpcClient, translated
from search_svc.domain.product import Category, Product, SkuAvailability
from search_svc.protos import availability_from_proto, category_from_proto, product_from_proto, tombstone

if TYPE_CHECKING:  # the stubs know classes that the generated modules don't have
    from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub
    from polymart.catalog.v1.taxonomy_service_pb2_grpc import TaxonomyServiceAsyncStub
    from polymart.inventory.v1.inventory_service_pb2_grpc import InventoryServiceAsyncStub

log = structlog.get_logger(__name__)

# Large chunks: an engine's work is by the request as much as by the document.
_CHUNK = 1_000


class GrpcSources:
    """What can't be read as a product or an availability is left out, and said."""

    def __init__(
        self,
        catalog: "RpcClient[CatalogServiceAsyncStub]",
        taxonomy: "RpcClient[TaxonomyServiceAsyncStub]",
        inventory: "RpcClient[InventoryServiceAsyncStub]",
    ):
        self._catalog = catalog
        self._taxonomy = taxonomy
        self._inventory = inventory

    async def products(self, token: str = "") -> AsyncIterator[tuple[Sequence[Product], str]]:
        chunk: list[Product] = []
        request = StreamProductsRequest(include_deleted=True, resume_token=token)
        with translated("catalog_svc"):
            async for response in self._catalog.stub.StreamProducts(request):
                chunk.extend(_products(response.states))
                token = response.resume_token
                if len(chunk) >= _CHUNK:
                    yield chunk, token
                    chunk = []
        if chunk:
            yield chunk, token

    async def categories(self) -> AsyncIterator[Sequence[Category]]:
        request = ListCategoriesRequest(page_size=500)
        while True:
            with translated("catalog_svc"):
                page = await self._taxonomy.stub.ListCategories(request)
            yield [category_from_proto(message) for message in page.categories]
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def availability(self) -> AsyncIterator[Mapping[str, SkuAvailability]]:
        chunk: dict[str, SkuAvailability] = {}
        with translated("inventory_svc"):
            async for response in self._inventory.stub.StreamAvailability(StreamAvailabilityRequest()):
                chunk.update(_availability(response.availabilities))
                if len(chunk) >= _CHUNK:
                    yield chunk
                    chunk = {}
        if chunk:
            yield chunk


def _products(states: Sequence[ProductState]) -> Iterator[Product]:
    for state in states:
        if state.deleted:
            yield tombstone(state.product.product_id, state.product.version)
            continue
        try:
            yield product_from_proto(state.product)
        except ValueError as error:
            log.error("left out of the index", product_id=state.product.product_id, error=str(error))


def _availability(messages: Sequence[SkuAvailabilityMessage]) -> Iterator[tuple[str, SkuAvailability]]:
    for message in messages:
        try:
            yield message.sku, availability_from_proto(message.availability, message.version)
        except ValueError as error:
            log.error("left out of the index", sku=message.sku, error=str(error))
