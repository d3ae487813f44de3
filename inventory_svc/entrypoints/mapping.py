"""Stock, reservations, movements and locations as messages of the API."""

from collections.abc import Iterable

from polymart.inventory.v1.location_pb2 import Location as LocationMessage
from polymart.inventory.v1.movement_pb2 import Movement as MovementMessage
from polymart.inventory.v1.movement_pb2 import MovementKind
from polymart.inventory.v1.reservation_pb2 import Allocation as AllocationMessage
from polymart.inventory.v1.reservation_pb2 import Reservation as ReservationMessage
from polymart.inventory.v1.stock_pb2 import Availability as AvailabilityValue
from polymart.inventory.v1.stock_pb2 import LocationStock, StockLevel

from inventory_svc.application.ports import Entry, Reservation
from inventory_svc.domain.allocation import Allocation
from inventory_svc.domain.locations import Location
from inventory_svc.domain.stock import Availability, Level


def availability_value(availability: Availability | None) -> AvailabilityValue.ValueType:
    value: AvailabilityValue.ValueType = AvailabilityValue.Value(f"AVAILABILITY_{availability or 'UNSPECIFIED'}")
    return value


def level_message(level: Level) -> StockLevel:
    message = StockLevel(
        sku=level.sku,
        on_hand=level.on_hand,
        reserved=level.reserved,
        available=level.available,
        availability=availability_value(level.availability),
        availability_version=level.availability_version,
        safety_stock=level.safety_stock,
        low_stock=level.low_stock,
        locations=[
            LocationStock(location_id=location, on_hand=at.on_hand, reserved=at.reserved, available=at.free)
            for location, at in level.at.items()
        ],
    )
    message.update_time.FromDatetime(level.updated_at)
    return message


def reservation_message(reservation: Reservation) -> ReservationMessage:
    message = ReservationMessage(order_id=reservation.order_id, allocations=_allocations(reservation.allocations))
    message.create_time.FromDatetime(reservation.created_at)
    return message


def movement_message(entry: Entry) -> MovementMessage:
    movement = entry.movement
    message = MovementMessage(
        sku=movement.sku,
        location_id=movement.location,
        kind=MovementKind.Value(f"MOVEMENT_KIND_{movement.kind}"),
        on_hand_delta=movement.on_hand,
        reserved_delta=movement.reserved,
        order_id=movement.order_id or "",
        operation_id=movement.operation_id or "",
        reason=movement.reason,
    )
    message.create_time.FromDatetime(entry.at)
    return message


def location_message(location: Location) -> LocationMessage:
    message = LocationMessage(
        location_id=location.location_id,
        display_name=location.display_name,
        priority=location.priority,
        etag=location.etag,
    )
    message.create_time.FromDatetime(location.created_at)
    message.update_time.FromDatetime(location.updated_at)
    return message


def _allocations(allocations: Iterable[Allocation]) -> list[AllocationMessage]:
    return [AllocationMessage(sku=a.sku, location_id=a.location, quantity=a.quantity) for a in allocations]
