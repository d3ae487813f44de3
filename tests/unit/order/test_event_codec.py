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

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LINE = o.Line("MUG", 2, Money.parse("GBP", "2.555"), "p", "Mug", untracked=False)
POSTAGE = o.Line("POST", 1, Money.parse("GBP", "4"), "q", "Postage", untracked=True)
PLACED = o.OrderPlaced("alice", (LINE, POSTAGE), Money.parse("GBP", "9.11"), "tok", NOW + timedelta(minutes=30))
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
