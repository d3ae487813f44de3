"""What a person writes about an order, and what a person sees of it."""

from datetime import UTC, datetime
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.json_format import Parse
from polymart.order.v1.order_pb2 import ORDER_STATUS_CONFIRMED, Order, OrderUnits
from polymart.order.v1.order_service_pb2 import OrderWait, StuckOrder
from polymart.order.v1.shipment_pb2 import Shipment
from rich.table import Table

from chassis.messaging.dead_letters import DeadLetter
from chassis.money import Money
from ops.clients import Terminal
from ops.dlq import show_letters
from ops.lifecycle import show_shipments, show_stuck
from ops.orders import order_line, print_json, show_orders


@pytest.mark.parametrize(
    ("text", "sku", "quantity"), [("a", "a", 1), ("a=3", "a", 3), ("a=b=3", "a=b", 3), ("a=-1", "a", -1)]
)
def test_a_line_is_a_sku_and_a_quantity(text: str, sku: str, quantity: int) -> None:
    assert order_line(text) == (sku, quantity)


@pytest.mark.parametrize("quantity", ["", "few", "²", "1.5", "--1", "9999999999"])
def test_what_is_no_quantity_is_named(quantity: str) -> None:
    with pytest.raises(ValueError, match="the quantity after = must be a whole number"):
        order_line(f"a={quantity}")


def order(**changes: Any) -> Order:
    made = Order(
        order_id=str(uuid4()),
        customer_id="uk-17850",
        status=ORDER_STATUS_CONFIRMED,
        settled=True,
        total=Money.parse("GBP", "12345.67").to_proto(),
    )
    made.place_time.FromDatetime(datetime(2026, 8, 1, 12, 13, 14, tzinfo=UTC))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def on_paper(width: int = 80) -> Terminal:
    return Terminal(width=width, file=StringIO(), highlight=False)


def shown(terminal: Terminal) -> str:
    assert isinstance(terminal.file, StringIO)
    return terminal.file.getvalue()


def test_a_list_of_orders_shows_whole_ids_on_80_columns() -> None:
    orders = [order(), order(settled=False), order(customer_id="a-customer-of-a-very-long-name")]
    terminal = on_paper()
    show_orders(terminal, orders)
    text = shown(terminal)
    for one in orders:
        assert one.order_id in text
    assert text.count("CONFIRMED…") == 1
    assert "08-01 12:13" in text
    folded = "".join(line[49:57].split(" ")[0] for line in text.splitlines())
    assert folded.endswith("a-customer-of-a-very-long-name")


def test_lists_of_shipments_and_of_stuck_orders_show_whole_ids_on_80_columns() -> None:
    shipment = Shipment(
        shipment_id=str(UUID(int=1)), order_id=str(UUID(int=2)), units=[OrderUnits(line_number=1, quantity=2)]
    )
    for of_one_order, told in ((True, "2 of line 1"), (False, str(UUID(int=2)))):
        terminal = on_paper()
        show_shipments(terminal, [shipment], of_one_order=of_one_order)
        assert str(UUID(int=1)) in shown(terminal)
        assert told in shown(terminal)
    terminal = on_paper()
    waits = [OrderWait(step="restock", command="RestockStock"), OrderWait(step="refund", failure="no \x1b[31m money")]
    show_stuck(terminal, [StuckOrder(order=order(order_id=str(UUID(int=3))), waits=waits)])
    assert str(UUID(int=3)) in shown(terminal)
    assert "restock" in shown(terminal)
    assert "\x1b[31m" not in shown(terminal)


def test_a_list_of_dead_letters_cuts_nothing_on_80_columns() -> None:
    letter = DeadLetter(
        sequence=12345,
        subject="evt.inventory.x",
        headers={"ce-type": "polymart.inventory.v1.StockReservationFailed"},
        data=b"",
        error="ValueError: something that takes a good many words to say",
        deliveries=10,
        consumer="notification_svc--customers",
        at=datetime(2026, 8, 1, 12, 13, 14, tzinfo=UTC),
    )
    terminal = on_paper()
    show_letters(terminal, [letter])
    assert "…" not in shown(terminal)
    assert "12345" in shown(terminal)


def test_text_is_shown_as_it_is_and_cannot_command_the_terminal() -> None:
    terminal = on_paper()
    table = Table("name", title="\x1b[2J")
    table.add_row("smart :smiley: phone\x1b]0;owned\x07\x9b1m")
    terminal.print(table)
    terminal.print("✗ \x1b[31mred", markup=False, style="red")
    text = shown(terminal)
    assert "smart :smiley: phone\\x1b]0;owned\\x07\\x9b1m" in text
    assert "✗ \\x1b[31mred" in text
    assert not {"\x1b", "\x07", "\x9b"} & {*text}


def test_json_is_what_the_message_says(capsys: pytest.CaptureFixture[str]) -> None:
    said = order(customer_id="smart :smiley: [red]phone " + "x" * 200)
    print_json(said)
    assert Parse(capsys.readouterr().out, Order()) == said
