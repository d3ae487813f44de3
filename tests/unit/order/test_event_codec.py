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

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LINE = o.Line("MUG", 2, Money.parse("GBP", "2.555"), "p", "Mug", untracked=False)
POSTAGE = o.Line("POST", 1, Money.parse("GBP", "4"), "q", "Postage", untracked=True)
PLACED = o.OrderPlaced("alice", (LINE, POSTAGE), Money.parse("GBP", "9.11"), "tok", NOW + timedelta(minutes=30))
ORDER = o.Order.begun("00000000-0000-7000-8000-000000000001", PLACED, NOW)
FAILURE = o.Failure(o.FailureReason.CAPTURE_FAILED, "expired")


@pytest.mark.parametrize("kind", get_args(o.Event))
def test_every_event_survives_its_storage(kind: type[o.Event]) -> None:
    event: o.Event
    if kind is o.OrderPlaced:
        event = PLACED
    elif kind in (o.OrderRejected, o.OrderCancelled):
        event = kind(FAILURE)  # type: ignore[call-arg, arg-type]
    else:
        event = kind()  # type: ignore[call-arg]
    message = event_to_proto(event, ORDER, 3)
    assert message.order_version == 3  # type: ignore[attr-defined]
    assert message.DESCRIPTOR.name == kind.__name__
    assert event_from_bytes(kind.__name__, SCHEMA_VERSION, message.SerializeToString()) == event


def test_an_old_event_is_read_through_its_upcasters(monkeypatch: pytest.MonkeyPatch) -> None:
    def failure_reasons_had_other_numbers(data: bytes) -> bytes:
        event = pb.OrderRejected.FromString(data)
        event.failure.reason = order_pb2.ORDER_FAILURE_REASON_PAYMENT_DECLINED
        return event.SerializeToString()

    monkeypatch.setattr(event_codec, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    monkeypatch.setattr(
        event_codec, "UPCASTERS", {("OrderRejected", SCHEMA_VERSION): failure_reasons_had_other_numbers}
    )
    stored = event_to_proto(o.OrderRejected(FAILURE), ORDER, 2).SerializeToString()
    assert event_from_bytes("OrderRejected", SCHEMA_VERSION, stored) == o.OrderRejected(
        o.Failure(o.FailureReason.PAYMENT_DECLINED, "expired")
    )
    assert event_from_bytes("OrderSettled", SCHEMA_VERSION, b"") == o.OrderSettled()


def test_an_event_of_a_newer_release_is_refused() -> None:
    with pytest.raises(ValueError, match="this release knows"):
        upcast("OrderPlaced", SCHEMA_VERSION + 1, b"")
