"""Events as the messages they are published as."""

from collections.abc import Iterable

from google.protobuf.message import Message
from polymart.inventory.v1 import events_pb2, stock_pb2
from polymart.inventory.v1.reservation_pb2 import Allocation as AllocationMessage

from inventory_svc.domain.allocation import Allocation
from inventory_svc.domain.reservations import Committed, Event, Rejected, Released, Reserved, Restocked
from inventory_svc.domain.stock import AvailabilityChanged, RanLow


def message(event: Event) -> tuple[str, Message]:
    """The aggregate's id and the message an event is published as."""
    match event:
        case Reserved(order_id, allocations):
            return order_id, events_pb2.StockReserved(order_id=order_id, allocations=_allocations(allocations))
        case Rejected(order_id, shortages):
            return order_id, events_pb2.StockRejected(
                order_id=order_id,
                shortages=[events_pb2.Shortage(sku=s.sku, wanted=s.wanted, available=s.available) for s in shortages],
            )
        case Committed(order_id):
            return order_id, events_pb2.StockCommitted(order_id=order_id)
        case Released(order_id):
            return order_id, events_pb2.StockReleased(order_id=order_id)
        case Restocked(order_id, operation_id, allocations):
            return order_id, events_pb2.StockRestocked(
                order_id=order_id, operation_id=operation_id, allocations=_allocations(allocations)
            )
        case AvailabilityChanged(sku, availability, version):
            value = stock_pb2.Availability.Value(f"AVAILABILITY_{availability}")
            return sku, events_pb2.StockAvailabilityChanged(sku=sku, availability=value, version=version)
        case RanLow(sku, available, low_stock, version):
            return sku, events_pb2.StockRanLow(sku=sku, available=available, low_stock=low_stock, version=version)


def _allocations(allocations: Iterable[Allocation]) -> list[AllocationMessage]:
    return [AllocationMessage(sku=a.sku, location_id=a.location, quantity=a.quantity) for a in allocations]
