"""ShipmentService: requests checked and mapped to the use cases, shipments mapped back."""

from typing import Protocol
from uuid import UUID

from polymart.order.v1 import shipment_pb2, shipment_service_pb2_grpc
from polymart.order.v1 import shipment_service_pb2 as pb

from chassis.ids import NewId
from chassis.rpc.paging import PageToken, Position, asked_page, fingerprint
from chassis.rpc.validation import Validator
from order_svc.application.ports import ReadableOrders, ShipmentIndex, WatchedOrders
from order_svc.domain import messages as m
from order_svc.domain.order import Order
from order_svc.domain.requests import shipment_by
from order_svc.entrypoints.changes import ChangeOrder, Context
from order_svc.entrypoints.checks import LONGEST_ID, check_text, check_units
from order_svc.wire import shipment_to_proto, units_from_proto

_LONGEST_NAME = 100


class Orders(ReadableOrders, WatchedOrders, Protocol):
    """All that the servicer needs of the orders' store."""


class ShipmentServicer(shipment_service_pb2_grpc.ShipmentServiceServicer):
    def __init__(self, change: ChangeOrder, orders: Orders, shipments: ShipmentIndex, new_id: NewId):
        self._change = change
        self._orders = orders
        self._shipments = shipments
        self._new_id = new_id

    async def CreateShipment(self, request: pb.CreateShipmentRequest, context: Context) -> shipment_pb2.Shipment:
        check = Validator(request)
        check_units(check, request.lines)
        check_text(check, request.carrier, "carrier", _LONGEST_NAME)
        check_text(check, request.tracking_number, "tracking_number", _LONGEST_NAME)
        check_text(check, request.operator, "operator", LONGEST_ID)
        check.done()
        asked = m.ShipmentRequested(
            request_id=request.request_id,
            shipment_id=self._new_id(),
            by=request.operator,
            units=units_from_proto(request.lines),
            carrier=request.carrier,
            tracking_number=request.tracking_number,
        )
        order = await self._change(request.order_id, asked)
        shipment = shipment_by(order, asked.request_id)
        assert shipment is not None
        return shipment_to_proto(order.order_id, shipment)

    async def MarkShipmentDelivered(
        self, request: pb.MarkShipmentDeliveredRequest, context: Context
    ) -> shipment_pb2.Shipment:
        check = Validator(request)
        check_text(check, request.operator, "operator", LONGEST_ID)
        check.done()
        shipment_id = request.shipment_id
        order_id = await self._shipments.order_of(shipment_id)
        order = await self._change(order_id, m.DeliveryReported(shipment_id, request.operator))
        return shipment_to_proto(order_id, order.shipment(shipment_id))

    async def GetShipment(self, request: pb.GetShipmentRequest, context: Context) -> shipment_pb2.Shipment:
        Validator(request).done()
        shipment_id = request.shipment_id
        order = await self._orders.get(await self._shipments.order_of(shipment_id))
        return shipment_to_proto(order.order_id, order.shipment(shipment_id))

    async def ListShipments(self, request: pb.ListShipmentsRequest, context: Context) -> pb.ListShipmentsResponse:
        check = Validator(request)
        size, before = asked_page(request, check, _position)
        check.done()
        order_id = request.order_id or None
        found = await self._shipments.page(
            order_id=order_id, under_way=request.under_way, before=before, limit=size + 1
        )
        histories = await self._orders.histories({order_id for order_id, _ in found[:size]})
        orders = {order_id: Order.fold(order_id, history) for order_id, history in histories.items()}
        token = ""
        if len(found) > size:
            token = PageToken.encode({"before": found[size - 1][1]}, fingerprint(request))
        shipments = [shipment_to_proto(order, orders[order].shipment(shipment)) for order, shipment in found[:size]]
        return pb.ListShipmentsResponse(shipments=shipments, next_page_token=token)


def _position(token: Position) -> str:
    return str(UUID(str(token["before"])))
