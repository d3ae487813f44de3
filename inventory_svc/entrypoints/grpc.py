"""InventoryService: requests checked and mapped to the use cases, levels mapped back."""

from collections.abc import AsyncIterator, Sequence

import grpc
from polymart.inventory.v1 import inventory_service_pb2 as pb
from polymart.inventory.v1 import inventory_service_pb2_grpc, stock_pb2

from chassis.ids import printable
from chassis.rpc.validation import Validator
from inventory_svc.application import levels as stock
from inventory_svc.application.ports import Warehouse
from inventory_svc.domain.stock import MAX_UNITS, Adjustment, Level

_MOST = 2_000
_LONGEST_SKU = 128
_LONGEST_REASON = 200


class InventoryServicer(inventory_service_pb2_grpc.InventoryServiceServicer):
    def __init__(self, warehouse: Warehouse):
        self._warehouse = warehouse

    async def SetStock(self, request: pb.SetStockRequest, context: object) -> pb.SetStockResponse:
        check = Validator(request)
        _check_skus(check, "counts", [c.sku for c in request.counts])
        for index, counted in enumerate(request.counts):
            path = f"counts[{index}].on_hand"
            check.check(0 <= counted.on_hand <= MAX_UNITS, path, f"must be between 0 and {MAX_UNITS}")
        check.done()
        levels = await stock.set_stock(
            {c.sku: c.on_hand for c in request.counts},
            request_id=request.request_id,
            warehouse=self._warehouse,
        )
        return pb.SetStockResponse(levels=map(_level, levels))

    async def AdjustStock(self, request: pb.AdjustStockRequest, context: object) -> pb.AdjustStockResponse:
        check = Validator(request)
        _check_skus(check, "adjustments", [a.sku for a in request.adjustments])
        for index, a in enumerate(request.adjustments):
            path = f"adjustments[{index}]"
            check.check(abs(a.delta) <= MAX_UNITS, f"{path}.delta", f"must be within {MAX_UNITS} of 0")
            check.check(
                len(a.reason) <= _LONGEST_REASON and printable(a.reason),
                f"{path}.reason",
                f"must be at most {_LONGEST_REASON} printable characters",
            )
        check.done()
        levels = await stock.adjust_stock(
            [Adjustment(a.sku, a.delta, a.reason) for a in request.adjustments],
            request_id=request.request_id,
            warehouse=self._warehouse,
        )
        return pb.AdjustStockResponse(levels=map(_level, levels))

    async def GetStock(self, request: pb.GetStockRequest, context: object) -> stock_pb2.StockLevel:
        check = Validator(request)
        check.check(printable(request.sku), "sku", "must be printable")
        check.done()
        return _level(await stock.get_stock(request.sku, warehouse=self._warehouse))

    async def BatchGetStock(self, request: pb.BatchGetStockRequest, context: object) -> pb.BatchGetStockResponse:
        check = Validator(request)
        check.check(len(request.skus) <= _MOST, "skus", f"must be at most {_MOST}")
        for index, sku in enumerate(request.skus):
            check.check(printable(sku), f"skus[{index}]", "must be printable")
        check.done()
        levels = await stock.batch_get_stock(list(request.skus), warehouse=self._warehouse)
        return pb.BatchGetStockResponse(levels=map(_level, levels))

    async def StreamAvailability(
        self, request: pb.StreamAvailabilityRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> AsyncIterator[pb.StreamAvailabilityResponse]:
        async for page in stock.every_level(warehouse=self._warehouse):
            yield pb.StreamAvailabilityResponse(
                availabilities=[
                    pb.SkuAvailability(
                        sku=level.sku, availability=_availability(level), version=level.availability_version
                    )
                    for level in page
                ]
            )


def _check_skus(check: Validator, field: str, skus: Sequence[str]) -> None:
    check.check(len(skus) <= _MOST, field, f"must be at most {_MOST}")
    seen: set[str] = set()
    for index, sku in enumerate(skus):
        path = f"{field}[{index}].sku"
        check.check(
            len(sku) <= _LONGEST_SKU and printable(sku),
            path,
            f"must be 1 to {_LONGEST_SKU} printable characters",
        )
        check.check(not sku or sku not in seen, path, "must not stand twice")
        seen.add(sku)


def _availability(level: Level) -> stock_pb2.Availability.ValueType:
    value: stock_pb2.Availability.ValueType = stock_pb2.Availability.Value(
        f"AVAILABILITY_{level.availability or 'UNSPECIFIED'}"
    )
    return value


def _level(level: Level) -> stock_pb2.StockLevel:
    message = stock_pb2.StockLevel(
        sku=level.sku,
        on_hand=level.on_hand,
        reserved=level.reserved,
        available=level.available,
        availability=_availability(level),
        availability_version=level.availability_version,
    )
    message.update_time.FromDatetime(level.updated_at)
    return message
