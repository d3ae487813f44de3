"""Commands that no order could mean."""

from collections.abc import Sequence

import pytest
from google.protobuf.message import Message
from polymart.inventory.v1.commands_pb2 import CommitStock, ReleaseStock, ReservationLine, ReserveStock, RestockStock

from chassis.errors import InvalidArgument
from chassis.messaging.envelope import Envelope
from chassis.postgres import Transaction
from inventory_svc.application.ports import Book
from inventory_svc.entrypoints.messages import reactions


def no_book(tx: Transaction, messages: Sequence[Envelope]) -> Book:
    raise AssertionError("nothing is to be written")


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        (ReserveStock(order_id="o", lines=[ReservationLine(sku="A\0", quantity=1)]), ["lines[0].sku"]),
        (ReserveStock(order_id="o\0", lines=[ReservationLine(sku="A")]), ["order_id", "lines[0].quantity"]),
        (CommitStock(order_id="o\0"), ["order_id"]),
        (ReleaseStock(), ["order_id"]),
        (
            RestockStock(order_id="o", operation_id="r\0", lines=[ReservationLine(sku="A", quantity=1)]),
            ["operation_id"],
        ),
    ],
)
async def test_what_no_store_takes_is_refused_before_it_is_tried(command: Message, fields: list[str]) -> None:
    message = Envelope.new(command, aggregate_id="o", source="order_svc")
    with pytest.raises(InvalidArgument) as caught:
        await reactions(no_book)[type(command)]([message], tx=None)  # type: ignore[arg-type]
    assert [violation.field for violation in caught.value.violations] == fields
