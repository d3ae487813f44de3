"""InventoryService: requests checked and mapped to the use cases, answers mapped back."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import grpc
from polymart.inventory.v1 import inventory_service_pb2 as pb
from polymart.inventory.v1 import inventory_service_pb2_grpc, location_pb2, stock_pb2

from chassis.errors import InvalidArgument
from chassis.ids import printable
from chassis.rpc.mask import masked_paths
from chassis.rpc.paging import asked_page
from chassis.rpc.validation import Validator
from inventory_svc.application import levels as stock
from inventory_svc.application.locations import create_location, update_location
from inventory_svc.application.ports import Ledger, Locations, Warehouse
from inventory_svc.application.reservations import restock
from inventory_svc.domain.allocation import Line
from inventory_svc.domain.locations import Location
from inventory_svc.domain.reservations import Restock
from inventory_svc.domain.stock import MAIN, MAX_UNITS, Adjustment, Count, Kind, Settings
from inventory_svc.entrypoints.mapping import (
    availability_value,
    level_message,
    location_message,
    movement_message,
    reservation_message,
)
from inventory_svc.entrypoints.pages import (
    location_position,
    locations_page,
    movement_position,
    movements_page,
    reservation_position,
    reservations_page,
)

_MOST = 2_000
_LONGEST_SKU = 128
_LONGEST_ORDER_ID = 128
_LONGEST_LOCATION = 64
_LONGEST_TEXT = 200
_LOCATION_FIELDS = ("display_name", "priority")


class InventoryServicer(inventory_service_pb2_grpc.InventoryServiceServicer):
    def __init__(self, warehouse: Warehouse, ledger: Ledger, locations: Locations):
        self._warehouse = warehouse
        self._ledger = ledger
        self._locations = locations

    async def SetStock(self, request: pb.SetStockRequest, context: object) -> pb.SetStockResponse:
        check = Validator(request)
        counts = [Count(c.sku, c.on_hand, c.location_id or MAIN) for c in request.counts]
        _check_places(check, "counts", [(c.sku, c.location) for c in counts])
        for index, counted in enumerate(counts):
            path = f"counts[{index}].on_hand"
            check.check(0 <= counted.on_hand <= MAX_UNITS, path, f"must be between 0 and {MAX_UNITS}")
        check.done()
        levels = await stock.set_stock(counts, request_id=request.request_id, warehouse=self._warehouse)
        return pb.SetStockResponse(levels=map(level_message, levels))

    async def AdjustStock(self, request: pb.AdjustStockRequest, context: object) -> pb.AdjustStockResponse:
        check = Validator(request)
        adjustments = [Adjustment(a.sku, a.delta, a.reason, a.location_id or MAIN) for a in request.adjustments]
        _check_places(check, "adjustments", [(a.sku, a.location) for a in adjustments])
        for index, a in enumerate(adjustments):
            path = f"adjustments[{index}]"
            check.check(abs(a.delta) <= MAX_UNITS, f"{path}.delta", f"must be within {MAX_UNITS} of 0")
            _check_text(check, f"{path}.reason", a.reason)
        check.done()
        levels = await stock.adjust_stock(adjustments, request_id=request.request_id, warehouse=self._warehouse)
        return pb.AdjustStockResponse(levels=map(level_message, levels))

    async def ReceiveStock(self, request: pb.ReceiveStockRequest, context: object) -> pb.ReceiveStockResponse:
        check = Validator(request)
        receipts = [Adjustment(r.sku, r.quantity, request.reference, r.location_id or MAIN) for r in request.receipts]
        _check_places(check, "receipts", [(r.sku, r.location) for r in receipts])
        _check_quantities(check, "receipts", [r.delta for r in receipts])
        _check_text(check, "reference", request.reference)
        check.done()
        levels = await stock.adjust_stock(
            receipts, request_id=request.request_id, warehouse=self._warehouse, kind=Kind.RECEIVE
        )
        return pb.ReceiveStockResponse(levels=map(level_message, levels))

    async def RestockStock(self, request: pb.RestockStockRequest, context: object) -> pb.RestockStockResponse:
        check = Validator(request)
        _check_id(check, "order_id", request.order_id, _LONGEST_ORDER_ID)
        _check_places(check, "lines", [(line.sku, MAIN) for line in request.lines])
        _check_quantities(check, "lines", [line.quantity for line in request.lines])
        check.done()
        lines = tuple(Line(line.sku, line.quantity) for line in request.lines)
        command = Restock(request.order_id, request.request_id, lines, request.location_id)
        levels = await restock(command, warehouse=self._warehouse)
        return pb.RestockStockResponse(levels=map(level_message, levels))

    async def ConfigureStock(self, request: pb.ConfigureStockRequest, context: object) -> pb.ConfigureStockResponse:
        check = Validator(request)
        _check_places(check, "settings", [(s.sku, MAIN) for s in request.settings])
        settings = []
        for index, s in enumerate(request.settings):
            for name in ("safety_stock", "low_stock"):
                fine = 0 <= getattr(s, name) <= MAX_UNITS
                check.check(fine, f"settings[{index}].{name}", f"must be between 0 and {MAX_UNITS}")
            safety = s.safety_stock if s.HasField("safety_stock") else None
            settings.append(Settings(s.sku, safety, s.low_stock if s.HasField("low_stock") else None))
        check.done()
        levels = await stock.configure_stock(settings, request_id=request.request_id, warehouse=self._warehouse)
        return pb.ConfigureStockResponse(levels=map(level_message, levels))

    async def GetStock(self, request: pb.GetStockRequest, context: object) -> stock_pb2.StockLevel:
        check = Validator(request)
        check.check(printable(request.sku), "sku", "must be printable")
        check.done()
        return level_message(await stock.get_stock(request.sku, warehouse=self._warehouse))

    async def BatchGetStock(self, request: pb.BatchGetStockRequest, context: object) -> pb.BatchGetStockResponse:
        check = Validator(request)
        check.check(len(request.skus) <= _MOST, "skus", f"must be at most {_MOST}")
        for index, sku in enumerate(request.skus):
            check.check(printable(sku), f"skus[{index}]", "must be printable")
        check.done()
        levels = await stock.batch_get_stock(list(request.skus), warehouse=self._warehouse)
        return pb.BatchGetStockResponse(levels=map(level_message, levels))

    async def StreamAvailability(
        self, request: pb.StreamAvailabilityRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> AsyncIterator[pb.StreamAvailabilityResponse]:
        async for page in stock.every_availability(warehouse=self._warehouse):
            yield pb.StreamAvailabilityResponse(
                availabilities=[
                    pb.SkuAvailability(
                        sku=flip.sku, availability=availability_value(flip.availability), version=flip.version
                    )
                    for flip in page
                ]
            )

    async def ListReservations(
        self, request: pb.ListReservationsRequest, context: object
    ) -> pb.ListReservationsResponse:
        check = Validator(request)
        check.check(printable(request.sku), "sku", "must be printable")
        before = _moment(check, request)
        size, after = asked_page(request, check, reservation_position)
        check.done()
        found = await self._ledger.open_reservations(sku=request.sku, before=before, after=after, limit=size + 1)
        page, token = reservations_page(request, found, size)
        return pb.ListReservationsResponse(reservations=map(reservation_message, page), next_page_token=token)

    async def ListMovements(self, request: pb.ListMovementsRequest, context: object) -> pb.ListMovementsResponse:
        check = Validator(request)
        check.check(printable(request.sku), "sku", "must be printable")
        check.check(printable(request.location_id), "location_id", "must be printable")
        size, below = asked_page(request, check, movement_position)
        check.done()
        found = await self._ledger.movements(request.sku, location=request.location_id, below=below, limit=size + 1)
        page, token = movements_page(request, found, size)
        return pb.ListMovementsResponse(movements=map(movement_message, page), next_page_token=token)

    async def CreateLocation(self, request: pb.CreateLocationRequest, context: object) -> location_pb2.Location:
        check, given = Validator(request), request.location
        _check_id(check, "location.location_id", given.location_id, _LONGEST_LOCATION)
        _check_text(check, "location.display_name", given.display_name)
        check.done()
        location = Location(given.location_id, given.display_name, given.priority)
        return location_message(await create_location(location, locations=self._locations))

    async def UpdateLocation(self, request: pb.UpdateLocationRequest, context: object) -> location_pb2.Location:
        check, given = Validator(request), request.location
        _check_id(check, "location.location_id", given.location_id, _LONGEST_LOCATION)
        _check_text(check, "location.display_name", given.display_name)
        changes: dict[str, str | int] = {}
        try:
            names = masked_paths(request.update_mask, given, _LOCATION_FIELDS)
            changes = {name: getattr(given, name) for name in names}
        except InvalidArgument as error:
            check.add(error.violations)
        check.done()
        location = await update_location(given.location_id, changes, etag=given.etag, locations=self._locations)
        return location_message(location)

    async def ListLocations(self, request: pb.ListLocationsRequest, context: object) -> pb.ListLocationsResponse:
        check = Validator(request)
        size, after = asked_page(request, check, location_position)
        check.done()
        found = await self._locations.page(after=after, limit=size + 1)
        page, token = locations_page(request, found, size)
        return pb.ListLocationsResponse(locations=map(location_message, page), next_page_token=token)


def _check_places(check: Validator, field: str, places: Sequence[tuple[str, str]]) -> None:
    """SKUs and locations of a request's repeated field: each pair once."""
    check.check(len(places) <= _MOST, field, f"must be at most {_MOST}")
    seen: set[tuple[str, str]] = set()
    for index, (sku, location) in enumerate(places):
        path = f"{field}[{index}].sku"
        _check_id(check, path, sku, _LONGEST_SKU)
        _check_id(check, f"{field}[{index}].location_id", location, _LONGEST_LOCATION)
        check.check(not sku or (sku, location) not in seen, path, "must not stand twice")
        seen.add((sku, location))


def _check_quantities(check: Validator, field: str, quantities: Sequence[int]) -> None:
    for index, quantity in enumerate(quantities):
        fine = 0 <= quantity <= MAX_UNITS  # that it isn't 0 is checked as required
        check.check(fine, f"{field}[{index}].quantity", f"must be between 1 and {MAX_UNITS}")


def _check_id(check: Validator, path: str, id: str, longest: int) -> None:
    check.check(len(id) <= longest and printable(id), path, f"must be 1 to {longest} printable characters")


def _check_text(check: Validator, path: str, text: str) -> None:
    fine = len(text) <= _LONGEST_TEXT and printable(text)
    check.check(fine, path, f"must be at most {_LONGEST_TEXT} printable characters")


def _moment(check: Validator, request: pb.ListReservationsRequest) -> datetime | None:
    if not request.HasField("created_before"):
        return None
    try:
        return request.created_before.ToDatetime(UTC)
    except ValueError:
        check.check(False, "created_before", "must be a time between the years 1 and 9999")
        return None
