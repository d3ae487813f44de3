"""polymart.catalog.v1.CatalogService over the use cases."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from polymart.catalog.v1 import catalog_service_pb2 as messages
from polymart.catalog.v1 import product_pb2
from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceServicer

from catalog_svc.application import products as use_cases
from catalog_svc.application.importing import Answer, Outcome, Row, import_products
from catalog_svc.application.ports import Products
from catalog_svc.application.products import Change
from catalog_svc.domain.product import FIELDS, Details, id_violations, size_violations, violations
from catalog_svc.entrypoints.batches import batches
from catalog_svc.protos import product_message, read_details, sold_variant_message, state_message
from chassis.clock import Clock
from chassis.errors import InvalidArgument, ResourceExhausted, Violation
from chassis.ids import NewId
from chassis.rpc.mask import masked_paths
from chassis.rpc.paging import PageToken, asked_page, fingerprint
from chassis.rpc.validation import Validator

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
M = TypeVar("M", bound=Message)

MAX_PRODUCTS = 500
MAX_SKUS = 2_000
IMPORT_BATCH = 300
# What gRPC clients take by default is 4 MiB.
_ANSWER_BYTES = 4_000_000
_CHUNK_BYTES = 1_000_000

_OUTCOMES = {
    Outcome.CREATED: messages.IMPORT_OUTCOME_CREATED,
    Outcome.UPDATED: messages.IMPORT_OUTCOME_UPDATED,
    Outcome.UNCHANGED: messages.IMPORT_OUTCOME_UNCHANGED,
    Outcome.REJECTED: messages.IMPORT_OUTCOME_REJECTED,
}


class CatalogServicer(CatalogServiceServicer):
    def __init__(self, *, products: Products, clock: Clock, new_id: NewId):
        self._products = products
        self._clock = clock
        self._new_id = new_id

    async def CreateProduct(self, request: messages.CreateProductRequest, context: Context) -> product_pb2.Product:
        validator, given = Validator(request), request.product
        details, faults = _read(given)
        if request.HasField("product"):
            validator.add([*_given_id(given), *faults], "product.")
        validator.done()
        product = await use_cases.create_product(
            given.product_id, details, products=self._products, clock=self._clock, new_id=self._new_id
        )
        return product_message(product)

    async def GetProduct(self, request: messages.GetProductRequest, context: Context) -> product_pb2.Product:
        Validator(request).done()
        return product_message(await use_cases.get_product(request.product_id, products=self._products))

    async def BatchGetProducts(
        self, request: messages.BatchGetProductsRequest, context: Context
    ) -> messages.BatchGetProductsResponse:
        validator = Validator(request)
        _at_most(validator, request.product_ids, "product_ids", MAX_PRODUCTS)
        validator.done()
        found = await use_cases.batch_get_products(request.product_ids, products=self._products)
        return _sendable(messages.BatchGetProductsResponse(products=map(product_message, found)))

    async def UpdateProduct(self, request: messages.UpdateProductRequest, context: Context) -> product_pb2.Product:
        # What isn't to be changed may be missing, so nothing in the product is required as such.
        validator, given = Validator(request, shallow=["product"]), request.product
        try:
            fields = masked_paths(request.update_mask, given, FIELDS)
        except InvalidArgument as error:
            validator.add(error.violations)
            fields = [field for field in FIELDS if field in request.update_mask.paths]
        details, faults = read_details(given)
        faults = [fault for fault in faults if _top(fault.field) in fields]
        if request.HasField("product"):
            faults += id_violations(given.product_id, "product_id")
        validator.add([*faults, *violations(details, fields)], "product.")
        validator.done()
        change = Change(given.product_id, details, fields, given.etag)
        product = await use_cases.update_product(
            change, products=self._products, clock=self._clock, new_id=self._new_id
        )
        return product_message(product)

    async def DeleteProduct(self, request: messages.DeleteProductRequest, context: Context) -> Empty:
        Validator(request).done()
        await use_cases.delete_product(request.product_id, request.etag, products=self._products)
        return Empty()

    async def ListProducts(
        self, request: messages.ListProductsRequest, context: Context
    ) -> messages.ListProductsResponse:
        validator = Validator(request)
        size, after = asked_page(request, validator, lambda token: str(token["after"]))
        validator.done()
        page, more = await use_cases.list_products(after or "", size, request.brand, products=self._products)
        # Large products make a page shorter than was asked for.
        fitting = next(_chunks(map(product_message, page), _ANSWER_BYTES), [])
        token = ""
        if more or len(fitting) < len(page):
            token = PageToken.encode({"after": fitting[-1].product_id}, fingerprint(request))
        return messages.ListProductsResponse(products=fitting, next_page_token=token)

    async def BatchGetVariants(
        self, request: messages.BatchGetVariantsRequest, context: Context
    ) -> messages.BatchGetVariantsResponse:
        validator = Validator(request)
        _at_most(validator, request.skus, "skus", MAX_SKUS)
        validator.done()
        found = await use_cases.batch_get_variants(request.skus, products=self._products)
        return _sendable(messages.BatchGetVariantsResponse(variants=map(sold_variant_message, found)))

    async def StreamProducts(
        self, request: messages.StreamProductsRequest, context: Context
    ) -> AsyncIterator[messages.StreamProductsResponse]:
        async with aclosing(self._products.stream(include_deleted=request.include_deleted)) as stream:
            async for stored in stream:
                for states in _chunks(map(state_message, stored), _CHUNK_BYTES):
                    yield messages.StreamProductsResponse(states=states)

    async def ImportProducts(
        self, request_iterator: AsyncIterator[messages.ImportProductsRequest], context: Context
    ) -> AsyncIterator[messages.ImportProductsResponse]:
        rows = (_row(request) async for request in request_iterator)
        async with aclosing(batches(rows, IMPORT_BATCH)) as taken:
            async for batch in taken:
                answers = await import_products(batch, products=self._products, clock=self._clock, new_id=self._new_id)
                yield messages.ImportProductsResponse(results=map(_import_result, answers))


def _read(given: product_pb2.Product) -> tuple[Details, list[Violation]]:
    """A whole product as given, and all that is wrong with it."""
    details, faults = read_details(given)
    return details, [*faults, *violations(details), *size_violations(details)]


def _given_id(given: product_pb2.Product) -> list[Violation]:
    return id_violations(given.product_id, "product_id") if given.product_id else []


def _row(request: messages.ImportProductsRequest) -> Row:
    given = request.product
    details, faults = _read(given)
    faults = [*_given_id(given), *faults]
    if faults:
        # Its answer needs nothing more of it.
        return Row(request.row, "", Details(), faults)
    return Row(request.row, given.product_id or details.skus[0], details)


def _import_result(answer: Answer) -> messages.ImportResult:
    return messages.ImportResult(
        row=answer.row,
        product_id=answer.product_id,
        outcome=_OUTCOMES[answer.outcome],
        violations=[
            messages.ImportViolation(field=fault.field, description=fault.description) for fault in answer.violations
        ],
    )


def _top(field: str) -> str:
    """The top-level field of a path such as `variants[0].price`."""
    return field.partition("[")[0].partition(".")[0]


def _at_most(validator: Validator, items: Sequence[str], field: str, maximum: int) -> None:
    validator.check(len(items) <= maximum, field, f"has {len(items)}, over {maximum}")


def _sendable(answer: M) -> M:
    if answer.ByteSize() > _ANSWER_BYTES:
        raise ResourceExhausted("the answer would be too large; ask for fewer", reason="ANSWER_TOO_LARGE")
    return answer


def _chunks(items: Iterable[M], most: int) -> Iterator[list[M]]:
    """The messages in order, as many together as have `most` bytes at most, each chunk at least one."""
    chunk: list[M] = []
    size = 0
    for item in items:
        length = item.ByteSize() + 8
        if chunk and size + length > most:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length
    if chunk:
        yield chunk
