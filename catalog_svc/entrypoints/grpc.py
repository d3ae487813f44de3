"""polymart.catalog.v1.CatalogService over the use cases."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from polymart.catalog.v1 import catalog_service_pb2 as messages
from polymart.catalog.v1 import product_pb2
from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceServicer

from catalog_svc.application import products as use_cases
from catalog_svc.application.importing import Answer, Importer, Outcome, Row
from catalog_svc.application.ports import Filter, Order, Position, Products, Taxonomy
from catalog_svc.application.products import Change, New, Question
from catalog_svc.domain.category import path_violations
from catalog_svc.domain.edits import Edit, parse, touches
from catalog_svc.domain.product import FIELDS, Details, Product, Request, identity, to_the_millisecond
from catalog_svc.domain.rules import id_violations, size_violations, violations
from catalog_svc.entrypoints.batches import batches
from catalog_svc.entrypoints.requests import Context, actor
from catalog_svc.protos import (
    STATUS_OF,
    product_message,
    read_details,
    revision_message,
    sold_variant_message,
    state_message,
)
from chassis.clock import Clock
from chassis.consistency import METADATA, ConsistencyToken
from chassis.errors import InvalidArgument, ResourceExhausted, Violation
from chassis.ids import NewId
from chassis.rpc.paging import PageToken, asked_page, fingerprint, number_in, text_in
from chassis.rpc.validation import Validator

M = TypeVar("M", bound=Message)

MAX_PRODUCTS = 500
MAX_SKUS = 2_000
IMPORT_BATCH = 300
# What the store takes well within the time of one operation, and a replica holds of each import.
_IMPORT_BYTES = 8_000_000
# What gRPC clients take by default is 4 MiB.
_ANSWER_BYTES = 4_000_000
_CHUNK_BYTES = 1_000_000
# Of one row, whose answer has to fit as well.
_MAX_FAULTS = 2_000

_OUTCOMES = {
    Outcome.CREATED: messages.IMPORT_OUTCOME_CREATED,
    Outcome.UPDATED: messages.IMPORT_OUTCOME_UPDATED,
    Outcome.UNCHANGED: messages.IMPORT_OUTCOME_UNCHANGED,
    Outcome.REJECTED: messages.IMPORT_OUTCOME_REJECTED,
}
_ORDERS = {
    messages.PRODUCT_ORDER_UNSPECIFIED: Order.BY_ID,
    messages.PRODUCT_ORDER_ID: Order.BY_ID,
    messages.PRODUCT_ORDER_UPDATE_TIME: Order.OLDEST_CHANGE_FIRST,
    messages.PRODUCT_ORDER_UPDATE_TIME_DESC: Order.LATEST_CHANGE_FIRST,
}


class CatalogServicer(CatalogServiceServicer):
    """`token_key` signs the tokens of pages and streams, and the consistency tokens that writes are answered with."""

    def __init__(self, *, products: Products, taxonomy: Taxonomy, clock: Clock, new_id: NewId, token_key: str):
        self._products = products
        self._taxonomy = taxonomy
        self._clock = clock
        self._new_id = new_id
        self._token_key = token_key

    async def CreateProduct(self, request: messages.CreateProductRequest, context: Context) -> product_pb2.Product:
        validator, given = Validator(request), request.product
        details, faults = _read(given)
        if request.HasField("product"):
            validator.add([*_given_id(given), *faults], "product.")
        validator.done()
        new = New(given.product_id, details, _request(request), actor(context))
        product = await use_cases.create_product(
            new, products=self._products, taxonomy=self._taxonomy, clock=self._clock, new_id=self._new_id
        )
        self._written(product.product_id, product.version, context)
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
        edits = _edits(request, validator)
        details, unread = read_details(given)
        whole = {edit.field for edit in edits if not edit.key}
        faults = [fault for fault in unread if touches(edits, details, fault)]
        if request.HasField("product"):
            faults += id_violations(given.product_id, "product_id")
        validator.add([*faults, *violations(details, [field for field in FIELDS if field in whole])], "product.")
        validator.done()
        change = Change(given.product_id, details, edits, given.etag, actor(context))
        product = await use_cases.update_product(
            change, products=self._products, taxonomy=self._taxonomy, clock=self._clock, new_id=self._new_id
        )
        self._written(product.product_id, product.version, context)
        return product_message(product)

    async def DeleteProduct(self, request: messages.DeleteProductRequest, context: Context) -> Empty:
        Validator(request).done()
        event = await use_cases.delete_product(
            request.product_id, request.etag, actor(context), products=self._products, clock=self._clock
        )
        self._written(*identity(event), context)
        return Empty()

    def _written(self, product_id: str, version: int, context: Context) -> None:
        """Tell the caller what a search has to wait for to see this."""
        token = ConsistencyToken(product_id, version).encode(self._token_key)
        context.set_trailing_metadata(((METADATA, token),))

    async def ListProductRevisions(
        self, request: messages.ListProductRevisionsRequest, context: Context
    ) -> messages.ListProductRevisionsResponse:
        Validator(request).done()
        revisions = await use_cases.product_revisions(request.product_id, products=self._products)
        return messages.ListProductRevisionsResponse(revisions=map(revision_message, revisions))

    async def ListProducts(
        self, request: messages.ListProductsRequest, context: Context
    ) -> messages.ListProductsResponse:
        question, size, after = _question(request, self._token_key)
        page, more = await use_cases.list_products(
            question, after, size, products=self._products, taxonomy=self._taxonomy
        )
        # Large products make a page shorter than was asked for.
        fitting = next(_chunks(map(product_message, page), _ANSWER_BYTES), [])
        token = ""
        if more or len(fitting) < len(page):
            token = _token(page[len(fitting) - 1], fingerprint(request), self._token_key)
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
        made_for = f"stream {request.include_deleted}"
        try:
            position = PageToken.decode(request.resume_token, made_for, self._token_key)
            after = text_in(position, "after") if position else ""
        except (InvalidArgument, KeyError, TypeError, ValueError) as error:
            fault = Violation("resume_token", "is not a token of an earlier stream of the same request")
            raise InvalidArgument([fault]) from error
        async with aclosing(self._products.stream(include_deleted=request.include_deleted, after=after)) as stream:
            async for stored in stream:
                for states in _chunks(map(state_message, stored), _CHUNK_BYTES):
                    token = PageToken.encode({"after": states[-1].product.product_id}, made_for, self._token_key)
                    yield messages.StreamProductsResponse(states=states, resume_token=token)

    async def ImportProducts(
        self, request_iterator: AsyncIterator[messages.ImportProductsRequest], context: Context
    ) -> AsyncIterator[messages.ImportProductsResponse]:
        requests = batches(request_iterator, IMPORT_BATCH, _IMPORT_BYTES, messages.ImportProductsRequest.ByteSize)
        async with self._products.trial() as trial, aclosing(requests) as taken:
            importer = Importer(self._products, trial, self._taxonomy, self._clock, self._new_id, actor(context))
            async for batch in taken:
                answers = await importer.store([_row(request) for request in batch])
                for results in _chunks(map(_import_result, answers), _CHUNK_BYTES):
                    yield messages.ImportProductsResponse(results=results)


def _read(given: product_pb2.Product) -> tuple[Details, list[Violation]]:
    """A whole product as given, and all that is wrong with it."""
    details, faults = read_details(given)
    return details, [*faults, *violations(details), *size_violations(details)]


def _given_id(given: product_pb2.Product) -> list[Violation]:
    return id_violations(given.product_id, "product_id") if given.product_id else []


def _request(request: messages.CreateProductRequest) -> Request | None:
    if not request.request_id:
        return None
    asked = request.product.SerializeToString(deterministic=True)
    return Request(request.request_id, sha256(asked).hexdigest())


def _edits(request: messages.UpdateProductRequest, validator: Validator) -> list[Edit]:
    """What the mask names, its faults left with the validator."""
    paths = request.update_mask.paths
    if not paths:
        populated = {field.name for field, _ in request.product.ListFields()}
        return [Edit(field) for field in FIELDS if field in populated]
    if list(paths) == ["*"]:
        return [Edit(field) for field in FIELDS]
    edits: list[Edit] = []
    for position, path in enumerate(paths):
        try:
            edits.append(parse(path))
        except ValueError as error:
            validator.check(False, f"update_mask.paths[{position}]", str(error))
    return edits


def _question(request: messages.ListProductsRequest, token_key: str) -> tuple[Question, int, Position | None]:
    """What is asked, how many of it, and where the earlier page ended. Raises InvalidArgument."""
    validator, wanted = Validator(request), request.filter
    validator.check(not wanted.status or wanted.status in STATUS_OF, "filter.status", "is not a known status")
    validator.check(request.order in _ORDERS, "order", "is not a known order")
    size, after = asked_page(request, validator, _position, key=token_key)
    since = None
    if wanted.HasField("updated_since"):
        since = _moment(wanted.updated_since)
        validator.check(since is not None, "filter.updated_since", "is not a time")
    validator.done()
    which = Filter(
        product_type_id=wanted.product_type_id,
        brand=wanted.brand,
        status=STATUS_OF.get(wanted.status),
        updated_since=since,
    )
    return Question(wanted.category_id, which, _ORDERS[request.order]), size, after


def _moment(message: Timestamp) -> datetime | None:
    """The time, rounded up to the millisecond that is kept; None for one that can't be."""
    try:
        return to_the_millisecond(message.ToDatetime(UTC) + timedelta(microseconds=999))
    except (ValueError, OverflowError):
        return None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _token(last: Product, made_for: str, key: str) -> str:
    at = (last.update_time - _EPOCH) // timedelta(milliseconds=1)
    return PageToken.encode({"after": last.product_id, "at": at}, made_for, key)


def _position(token: Mapping[str, str | int]) -> Position:
    return Position(text_in(token, "after"), _EPOCH + timedelta(milliseconds=number_in(token, "at")))


def _row(request: messages.ImportProductsRequest) -> Row:
    given, path = request.product, tuple(request.category_path)
    details, faults = _read(given)
    faults = [*_given_id(given), *faults, *path_violations(path, "category_path")]
    if path and given.category_id:
        faults.append(Violation("category_path", "must not be given beside category_id"))
    if faults:
        # Its answer needs nothing more of it.
        return Row(request.row, "", Details(), faults)
    return Row(
        request.row,
        given.product_id or details.skus[0],
        details,
        category_path=path,
        create_category=request.unknown_category != messages.UNKNOWN_CATEGORY_REJECT,
        validate_only=request.validate_only,
    )


def _import_result(answer: Answer) -> messages.ImportResult:
    told = [*answer.violations[:_MAX_FAULTS]]
    if more := len(answer.violations) - len(told):
        told.append(Violation("", f"and {more:,} more"))
    return messages.ImportResult(
        row=answer.row,
        product_id=answer.product_id,
        outcome=_OUTCOMES[answer.outcome],
        violations=[messages.ImportViolation(field=fault.field, description=fault.description) for fault in told],
    )


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
