"""Positions of the lists' pages, as tokens and back. Reading a token that holds none raises."""

from collections.abc import Sequence
from datetime import UTC, datetime

from polymart.inventory.v1 import inventory_service_pb2 as pb

from chassis.rpc.paging import PageToken, Position, fingerprint, number_in, text_in
from inventory_svc.application.ports import Entry, Reservation
from inventory_svc.domain.locations import Location

Request = pb.ListReservationsRequest | pb.ListMovementsRequest | pb.ListLocationsRequest

# An order may have a thousand lines, and an answer 4 MB.
MOST_ALLOCATIONS = 10_000


def reservation_position(at: Position) -> tuple[datetime, str]:
    return datetime.fromisoformat(text_in(at, "at")).astimezone(UTC), text_in(at, "order")


def movement_position(at: Position) -> int:
    return number_in(at, "below", 2**63)


def location_position(at: Position) -> tuple[int, str]:
    return number_in(at, "priority", 2**31), text_in(at, "id")


def reservations_page(
    request: pb.ListReservationsRequest, found: Sequence[Reservation], size: int
) -> tuple[Sequence[Reservation], str]:
    """Those of `found` that fit on a page, one at least, and the token of the next."""
    fitting, allocations = 0, 0
    for reservation in found[:size]:
        allocations += len(reservation.allocations)
        if fitting and allocations > MOST_ALLOCATIONS:
            break
        fitting += 1
    page = found[:fitting]
    last = {"at": page[-1].created_at.isoformat(), "order": page[-1].order_id} if page else {}
    return page, _token(request, last, more=len(found) > fitting)


def movements_page(request: pb.ListMovementsRequest, found: Sequence[Entry], size: int) -> tuple[Sequence[Entry], str]:
    page = found[:size]
    return page, _token(request, {"below": page[-1].id} if page else {}, more=len(found) > size)


def locations_page(
    request: pb.ListLocationsRequest, found: Sequence[Location], size: int
) -> tuple[Sequence[Location], str]:
    page = found[:size]
    last: Position = {"priority": page[-1].priority, "id": page[-1].location_id} if page else {}
    return page, _token(request, last, more=len(found) > size)


def _token(request: Request, last: Position, *, more: bool) -> str:
    return PageToken.encode(last, fingerprint(request)) if more else ""
