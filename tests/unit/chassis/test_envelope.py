from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polymart.order.v1.events_pb2 import OrderConfirmed
from polymart.order.v1.order_pb2 import OrderLine

from chassis.ids import sequential_ids
from chassis.messaging.envelope import Envelope, Undecodable
from chassis.outbox.port import OutboxEntry

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ID = sequential_ids()()


def confirmed(order_id: str = "o-1") -> OrderConfirmed:
    return OrderConfirmed(order_id=order_id)


def decoded(envelope: Envelope, **headers: str) -> Envelope:
    return Envelope.decode(envelope.subject, {**envelope.headers(), **headers}, envelope.data)


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])))
def test_survives_the_wire_whatever_the_aggregate_id(aggregate_id: str) -> None:
    sent = Envelope.new(confirmed(), aggregate_id=aggregate_id, source="order_svc", now=NOW)
    assert decoded(sent) == sent
    assert all(value.isascii() and value.isprintable() for value in sent.headers().values())
    assert len(sent.subject.split(".")) == 5


def test_headers_are_cloudevents_in_binary_mode() -> None:
    envelope = Envelope.new(confirmed(), aggregate_id="o 1", source="order_svc", now=NOW, id=ID)
    assert envelope.subject == "evt.order.order.OrderConfirmed.o=201"
    assert envelope.headers() == {
        "ce-specversion": "1.0",
        "ce-id": ID,
        "ce-source": "/order_svc",
        "ce-type": "polymart.order.v1.OrderConfirmed",
        "ce-subject": "o%201",
        "ce-time": "2026-01-02T03:04:05.678901+00:00",
        "ce-dataschema": "proto:polymart.order.v1.OrderConfirmed",
        "content-type": "application/protobuf",
        "Nats-Msg-Id": ID,
        "Polymart-Correlation-Id": ID,
    }


def test_what_a_message_causes_carries_its_trace_and_correlation() -> None:
    first = Envelope.new(confirmed(), aggregate_id="o-1", source="order_svc").within("00-aa-bb-01")
    second = Envelope.new(confirmed(), aggregate_id="o-1", source="payment_svc", cause=first)
    third = Envelope.new(confirmed(), aggregate_id="o-1", source="order_svc", cause=decoded(second))
    assert (second.correlation_id, second.causation_id) == (first.id, first.id)
    assert (third.correlation_id, third.causation_id) == (first.id, second.id)
    assert third.traceparent == "00-aa-bb-01"


def test_a_type_that_nobody_declared_is_not_published() -> None:
    with pytest.raises(KeyError):
        Envelope.new(OrderLine(), aggregate_id="o-1", source="order_svc")


@pytest.mark.parametrize(
    ("headers", "data"),
    [
        ({"ce-type": "polymart.order.v1.Nonsense"}, b""),
        ({"ce-id": "not-a-uuid"}, b""),
        ({"ce-time": "yesterday"}, b""),
        ({}, b"\xff\xff\xff"),
    ],
)
def test_what_cannot_be_read_is_undecodable(headers: dict[str, str], data: bytes) -> None:
    envelope = Envelope.new(confirmed(), aggregate_id="o-1", source="order_svc")
    with pytest.raises(Undecodable):
        Envelope.decode(envelope.subject, {**envelope.headers(), **headers}, data)


@pytest.mark.parametrize("missing", ["ce-id", "ce-type", "ce-subject", "ce-source", "ce-time"])
def test_a_missing_header_is_undecodable(missing: str) -> None:
    envelope = Envelope.new(confirmed(), aggregate_id="o-1", source="order_svc")
    headers = envelope.headers()
    del headers[missing]
    with pytest.raises(Undecodable, match=missing):
        Envelope.decode(envelope.subject, headers, envelope.data)


def test_an_id_is_the_same_however_it_is_spelt() -> None:
    """Stores give it back in lower case; what they then call fresh must be found again."""
    envelope = Envelope.new(confirmed(), aggregate_id="o-1", source="order_svc")
    assert decoded(envelope, **{"ce-id": envelope.id.upper()}) == envelope


def test_no_headers_at_all_is_undecodable() -> None:
    with pytest.raises(Undecodable):
        Envelope.decode("evt.order.order.OrderConfirmed.o-1", None, b"")


def test_an_entry_is_what_will_be_published() -> None:
    envelope = Envelope.new(confirmed(), aggregate_id="o-1", source="order_svc", id=ID)
    entry = OutboxEntry.of(envelope)
    assert Envelope.decode(entry.subject, entry.headers, entry.data) == envelope
