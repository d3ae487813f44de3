"""What is stored can be read back, also when it was stored by an older release."""

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from polymart.order.v1 import events_pb2 as pb
from polymart.order.v1 import order_pb2

from chassis.money import Money
from order_svc.adapters import event_codec
from order_svc.adapters.event_codec import SCHEMA_VERSION, event_from_bytes, event_to_proto, upcast
from order_svc.domain import order as o
from order_svc.domain.fulfilment import Units
from order_svc.domain.totals import Destination, Shipping, Totals
from order_svc.wire import totals_to_proto

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GBP_004 = Money.parse("GBP", "0.04")
LINE = o.Line("MUG", 2, Money.parse("GBP", "2.555"), "p", "Mug", untracked=False)
POSTAGE = o.Line("POST", 1, Money.parse("GBP", "4"), "q", "Postage", untracked=True)
TAXED = o.Line("NIB", 7, Money.parse("GBP", "0.005"), "r", "Nib", False, GBP_004, Money.parse("GBP", "0.01"), 200_000)
PLACED = o.OrderPlaced(
    "alice",
    (LINE, POSTAGE, TAXED),
    Money.parse("GBP", "14.10"),
    "tok",
    NOW + timedelta(minutes=30),
    Shipping(Money.parse("GBP", "4.20"), Money.parse("GBP", "0.84")),
    Destination("GB", "NIR"),
)
ORDER = o.Order.begun("00000000-0000-7000-8000-000000000001", PLACED, NOW)
SHIPPED = ORDER.after(o.OrderShipped("s1", "r3", (Units(0, 1),), "Post", "T-1", "bob"), NOW)
FAILURE = o.Failure(o.FailureReason.CAPTURE_FAILED, "expired")


UNITS = (Units(0, 1), Units(1, 1))
BACK = Money.parse("GBP", "2.555")
EVENTS: tuple[o.Event, ...] = (
    PLACED,
    o.OrderStockReserved(),
    o.OrderConfirmed(),
    o.OrderStockCommitted(),
    o.OrderPaymentCaptured(),
    o.OrderRejected(FAILURE),
    o.OrderCancelled(FAILURE, "alice", "r1"),
    o.OrderStockReleased(),
    o.OrderPaymentVoided(),
    o.OrderPaymentVoided(BACK),
    o.OrderSettled(),
    o.OrderLinesCancelled("r2", UNITS, BACK, "alice", "too many"),
    o.OrderShipped("s1", "r3", UNITS, "Post", "T-1", "bob"),
    o.OrderDelivered("s1", "bob"),
    o.OrderLinesReturned("r4", UNITS, BACK, True, "bob", "broken"),
    o.OrderStockRestocked("r4"),
    o.OrderRefunded("r4", BACK),
    o.OrderRefundFailed("r4", "the card is gone"),
    o.OrderRetried("bob", "asked the bank"),
)


def test_every_event_is_tried() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(o.Event))


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_survives_its_storage(event: o.Event) -> None:
    kind = type(event)
    message = event_to_proto(event, SHIPPED, 3)
    assert message.order_version == 3  # type: ignore[attr-defined]
    assert message.DESCRIPTOR.name == kind.__name__
    assert event_from_bytes(kind.__name__, SCHEMA_VERSION, message.SerializeToString()) == event


def test_an_order_stored_before_there_were_charges_has_none() -> None:
    """As schema 1 had it: no totals, no tax, a line's total to the last nano."""
    total = Money.parse("GBP", "9.11")
    old = pb.OrderPlaced(
        customer_id="alice",
        lines=[
            order_pb2.OrderLine(
                sku="MUG",
                quantity=2,
                unit_price=LINE.unit_price.to_proto(),
                line_total=Money.parse("GBP", "5.11").to_proto(),
                product_name="Mug",
                product_id="p",
            ),
            order_pb2.OrderLine(
                sku="POST",
                quantity=1,
                unit_price=POSTAGE.unit_price.to_proto(),
                line_total=POSTAGE.unit_price.to_proto(),
                product_name="Postage",
                product_id="q",
                untracked=True,
            ),
        ],
        total=total.to_proto(),
        payment_token="tok",
    )
    event = event_from_bytes("OrderPlaced", 1, old.SerializeToString())
    assert isinstance(event, o.OrderPlaced)
    assert (event.lines, event.total, event.shipping, event.destination) == ((LINE, POSTAGE), total, None, None)
    nothing = Money("GBP", 0)
    for kind in ("OrderPlaced", "OrderConfirmed"):
        shown = getattr(pb, kind).FromString(upcast(kind, 1, old.SerializeToString()))
        assert shown.totals == totals_to_proto(Totals(total, nothing, nothing, nothing))


@pytest.mark.parametrize(
    ("reason", "customer", "by"),
    [
        (order_pb2.ORDER_FAILURE_REASON_CANCELLED_BY_CUSTOMER, "alice", "alice"),
        (order_pb2.ORDER_FAILURE_REASON_CANCELLED_BY_CUSTOMER, "", "guest"),
        (order_pb2.ORDER_FAILURE_REASON_CAPTURE_FAILED, "alice", "payment_svc"),
    ],
)
def test_a_cancellation_of_the_first_schema_says_who_it_was_by(
    reason: order_pb2.OrderFailureReason, customer: str, by: str
) -> None:
    failure = order_pb2.OrderFailure(reason=reason, message="why")
    stored = pb.OrderCancelled(order_id="o", customer_id=customer, failure=failure, order_version=2)
    event = event_from_bytes("OrderCancelled", 1, stored.SerializeToString())
    assert isinstance(event, o.OrderCancelled)
    assert (event.by, event.failure.message) == (by, "why")


def test_an_old_event_is_read_through_its_upcasters(monkeypatch: pytest.MonkeyPatch) -> None:
    def failure_reasons_had_other_numbers(data: bytes) -> bytes:
        event = pb.OrderRejected.FromString(data)
        event.failure.reason = order_pb2.ORDER_FAILURE_REASON_PAYMENT_DECLINED
        return event.SerializeToString()

    monkeypatch.setattr(event_codec, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    upcasters = {("OrderRejected", SCHEMA_VERSION): failure_reasons_had_other_numbers}
    monkeypatch.setattr(event_codec, "UPCASTERS", upcasters)
    stored = event_to_proto(o.OrderRejected(FAILURE), ORDER, 2).SerializeToString()
    assert event_from_bytes("OrderRejected", SCHEMA_VERSION, stored) == o.OrderRejected(
        o.Failure(o.FailureReason.PAYMENT_DECLINED, "expired")
    )
    assert event_from_bytes("OrderSettled", SCHEMA_VERSION, b"") == o.OrderSettled()


def test_an_event_of_a_newer_release_is_refused() -> None:
    with pytest.raises(ValueError, match="this release knows"):
        upcast("OrderPlaced", SCHEMA_VERSION + 1, b"")
