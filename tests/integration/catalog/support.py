"""What the tests of catalog_svc share."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.type.money_pb2 import Money
from grpc_status import rpc_status
from polymart.catalog.v1.product_pb2 import Product, Variant

from catalog_svc.adapters.mongo_products import MongoProducts
from catalog_svc.adapters.mongo_taxonomy import MongoTaxonomy
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats
from chassis.service import RunningService
from tests.conftest import until

if TYPE_CHECKING:
    from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub
    from polymart.catalog.v1.taxonomy_service_pb2_grpc import TaxonomyServiceAsyncStub

STREAM = "EVT_CATALOG"


TOKEN_KEY = "a key of the tests, of enough characters"


@dataclass
class Catalog:
    """A running service, a stub for it, and its store."""

    service: RunningService
    stub: "CatalogServiceAsyncStub"
    taxonomy: "TaxonomyServiceAsyncStub"
    store: MongoProducts
    categories: MongoTaxonomy
    nats: Nats

    async def published(self) -> list[Message]:
        """The events on the stream, once all paths are told and the outboxes are empty."""
        await until(self._relayed)
        return [envelope.payload for envelope in await events(self.nats)]

    async def _relayed(self) -> bool:
        untold = (await self.categories.tree()).untold()
        backlogs = [await store.outbox.backlog() for store in (self.store, self.categories)]
        return not untold and not any(backlog.entries for backlog in backlogs)


async def events(nats: Nats) -> list[Envelope]:
    state = (await nats.js.stream_info(STREAM)).state
    messages = [await nats.js.get_msg(STREAM, seq) for seq in range(state.first_seq or 1, state.last_seq + 1)]
    return [Envelope.decode(m.subject or "", m.headers, m.data or b"") for m in messages]


def faults(error: grpc.aio.AioRpcError) -> tuple[str, str, set[str]]:
    """Code, reason and violated fields of a failure."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    reason, fields = "", set()
    for detail in status.details:
        info, bad = ErrorInfo(), BadRequest()
        if detail.Unpack(info):
            assert info.domain == "polymart"
            reason = info.reason
        elif detail.Unpack(bad):
            fields = {violation.field for violation in bad.field_violations}
    return error.code().name, reason, fields


async def refusal(call: Awaitable[object]) -> tuple[str, str, set[str]]:
    """How a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return faults(failure.value)


def product(product_id: str, *skus: str, name: str = "Mug", **fields: object) -> Product:
    price = Money(currency_code="GBP", units=2, nanos=550_000_000)
    variants = [Variant(sku=sku, price=price) for sku in skus or (product_id,)]
    return Product(product_id=product_id, name=name, variants=variants, **fields)  # type: ignore[arg-type]
