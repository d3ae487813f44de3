"""What order_svc and notification_svc know of a customer, asked over gRPC page by page."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from polymart.notification.v1.notification_pb2 import Notification
from polymart.notification.v1.notification_service_pb2 import ListNotificationsRequest
from polymart.order.v1.order_pb2 import Order
from polymart.order.v1.order_service_pb2 import GetOrderRequest, ListOrdersRequest

from chassis.errors import FailedPrecondition
from chassis.rpc.client import RpcClient, translated

if TYPE_CHECKING:
    from polymart.notification.v1.notification_service_pb2_grpc import NotificationServiceAsyncStub
    from polymart.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub

_PAGE = 100


class GrpcRecords:
    """OtherRecords (application.ports). A client that is None isn't configured."""

    def __init__(
        self,
        orders: "RpcClient[OrderServiceAsyncStub] | None",
        notifications: "RpcClient[NotificationServiceAsyncStub] | None",
    ):
        self._orders = orders
        self._notifications = notifications

    async def orders(self, customer_id: str) -> AsyncIterator[Order]:
        if self._orders is None:
            raise _unknown("order_svc", "POLYMART_ORDER_ADDRESS")
        request = ListOrdersRequest(customer_id=customer_id, page_size=_PAGE)
        while True:
            with translated("order_svc"):
                page = await self._orders.stub.ListOrders(request)
            for summary in page.orders:
                with translated("order_svc"):
                    yield await self._orders.stub.GetOrder(GetOrderRequest(order_id=summary.order_id))
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def notifications(self, customer_id: str) -> AsyncIterator[Notification]:
        if self._notifications is None:
            raise _unknown("notification_svc", "POLYMART_NOTIFICATION_ADDRESS")
        request = ListNotificationsRequest(customer_id=customer_id, page_size=_PAGE)
        while True:
            with translated("notification_svc"):
                page = await self._notifications.stub.ListNotifications(request)
            for notification in page.notifications:
                yield notification
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def _unknown(service: str, setting: str) -> FailedPrecondition:
    return FailedPrecondition(f"customer_svc isn't told where {service} is ({setting})", reason="EXPORT_NOT_CONFIGURED")
