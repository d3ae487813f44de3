"""Bad input gets a clear error that names every fault, at every service."""

from uuid import uuid4

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status
from polymart.catalog.v1 import catalog_service_pb2 as catalog
from polymart.catalog.v1.product_pb2 import Product, Variant
from polymart.customer.v1.customer_pb2 import Customer
from polymart.customer.v1.customer_service_pb2 import CreateCustomerRequest, GetCustomerRequest, UpdateCustomerRequest
from polymart.inventory.v1 import inventory_service_pb2 as inventory
from polymart.notification.v1.notification_service_pb2 import GetNotificationRequest
from polymart.order.v1 import order_service_pb2 as ordering
from polymart.payment.v1.payment_service_pb2 import GetPaymentRequest, RefundPaymentRequest
from polymart.search.v1.search_service_pb2 import AttributeFilter, PriceRange, SearchFilter, SearchProductsRequest

from tests.e2e.shop import TIMEOUT, Shop


def details(error: grpc.aio.AioRpcError) -> tuple[str, set[str]]:
    """The reason, and the fields with a violation."""
    status = rpc_status.from_call(error)
    assert status is not None
    reason, fields = "", set()
    for detail in status.details:
        info, bad = ErrorInfo(), BadRequest()
        if detail.Unpack(info):
            assert info.domain == "polymart"
            reason = info.reason
        elif detail.Unpack(bad):
            fields = {violation.field for violation in bad.field_violations}
    return reason, fields


BAD = {
    "order": (
        lambda c: c.orders.PlaceOrder,
        ordering.PlaceOrderRequest(
            request_id="7", lines=[ordering.PlaceOrderLine(quantity=1), ordering.PlaceOrderLine(sku="x", quantity=-1)]
        ),
        {"request_id", "payment_token", "lines[0].sku", "lines[1].quantity"},
    ),
    "product": (
        lambda c: c.catalog.CreateProduct,
        catalog.CreateProductRequest(product=Product(variants=[Variant(sku="a"), Variant(eans=["12"])])),
        {
            "product.name", "product.variants[0].price", "product.variants[1].sku", "product.variants[1].price",
            "product.variants[1].eans[0]",
        },
    ),
    "stock": (
        lambda c: c.inventory.AdjustStock,
        inventory.AdjustStockRequest(adjustments=[inventory.StockAdjustment(), inventory.StockAdjustment(sku="a")]),
        {"request_id", "adjustments[0].sku"}
        | {f"adjustments[{index}].{field}" for index in (0, 1) for field in ("delta", "reason")},
    ),
    "refund": (
        lambda c: c.payments.RefundPayment,
        RefundPaymentRequest(request_id="7"),
        {"request_id", "payment_id", "amount"},
    ),
    "customer": (
        lambda c: c.customers.CreateCustomer,
        CreateCustomerRequest(customer=Customer(email="nowhere", display_name="x" * 201, country="y" * 101)),
        {"customer.email", "customer.display_name", "customer.country"},
    ),
    "search": (
        lambda c: c.search.SearchProducts,
        SearchProductsRequest(
            text="x" * 257,
            filter=SearchFilter(attributes=[AttributeFilter()], price=PriceRange()),
            attribute_facets=[str(n) for n in range(11)],
        ),
        {
            "text", "filter.attributes[0].name", "filter.attributes[0].values", "filter.price.currency_code",
            "attribute_facets",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_every_bad_field_has_a_violation(shop: Shop, name: str) -> None:
    method, request, fields = BAD[name]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await method(shop.clients)(request, timeout=TIMEOUT)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(refused.value)[1] == fields


UNKNOWN = {
    "product": (lambda c: c.catalog.GetProduct, catalog.GetProductRequest(product_id="nothing")),
    "stock": (lambda c: c.inventory.GetStock, inventory.GetStockRequest(sku="nothing")),
    "order": (lambda c: c.orders.GetOrder, ordering.GetOrderRequest(order_id=str(uuid4()))),
    "history": (lambda c: c.orders.GetOrderHistory, ordering.GetOrderHistoryRequest(order_id=str(uuid4()))),
    "payment": (lambda c: c.payments.GetPayment, GetPaymentRequest(payment_id=str(uuid4()))),
    "customer": (lambda c: c.customers.GetCustomer, GetCustomerRequest(customer_id="nobody")),
    "notification": (
        lambda c: c.notifications.GetNotification, GetNotificationRequest(notification_id=str(uuid4())),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
async def test_an_unknown_id_is_not_found(shop: Shop, name: str) -> None:
    method, request = UNKNOWN[name]
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await method(shop.clients)(request, timeout=TIMEOUT)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    assert details(missing.value)[0]


async def test_a_stale_etag_is_aborted(shop: Shop) -> None:
    customer = await shop.customer()
    for code, etag in ((None, ""), (grpc.StatusCode.ABORTED, "stale")):
        request = UpdateCustomerRequest(customer=Customer(customer_id=customer, country="Norway", etag=etag))
        if code is None:
            await shop.clients.customers.UpdateCustomer(request, timeout=TIMEOUT)
            continue
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await shop.clients.customers.UpdateCustomer(request, timeout=TIMEOUT)
        assert (refused.value.code(), details(refused.value)[0]) == (code, "STALE_ETAG")


async def test_an_unknown_sku_is_named_by_its_line(shop: Shop) -> None:
    (sku,) = await shop.product()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await shop.place(sku, "no-such-sku", "nor-this")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(refused.value)[1] == {"lines[1].sku", "lines[2].sku"}


async def test_a_call_without_a_deadline_is_refused(shop: Shop) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await shop.clients.customers.GetCustomer(GetCustomerRequest(customer_id="x"))
    assert details(refused.value)[0] == "DEADLINE_REQUIRED"
