"""The catalog, asked over gRPC."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from polymart.catalog.v1.catalog_service_pb2 import BatchGetVariantsRequest
from polymart.catalog.v1.product_pb2 import PRODUCT_STATUS_ACTIVE

from chassis.errors import DeadlineExceeded, Unavailable
from chassis.money import Money
from chassis.rpc.client import RpcClient, translated
from order_svc.domain.pricing import Offer

if TYPE_CHECKING:
    from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub

BATCH_GET_VARIANTS = "polymart.catalog.v1.CatalogService/BatchGetVariants"
_TIMEOUT = 2.0


class GrpcCatalog:
    """The port Catalog."""

    def __init__(self, client: RpcClient["CatalogServiceAsyncStub"]):
        self._client = client

    async def offers(self, skus: Collection[str]) -> Sequence[Offer]:
        try:
            with translated("catalog_svc"):
                answer = await self._client.stub.BatchGetVariants(
                    BatchGetVariantsRequest(skus=sorted(skus)), timeout=_TIMEOUT
                )
        except (Unavailable, DeadlineExceeded) as error:
            raise Unavailable(
                f"{len(skus)} SKUs have no known price and the catalog can't be asked",
                reason="CATALOG_UNAVAILABLE",
            ) from error
        return [
            Offer(
                sku=found.variant.sku,
                product_id=found.product_id,
                product_version=found.product_version,
                product_name=found.product_name,
                price=Money.from_proto(found.variant.price),
                untracked=found.variant.untracked,
                tax_class=found.tax_class,
            )
            for found in answer.variants
            if found.product_status == PRODUCT_STATUS_ACTIVE
        ]
