from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from polymart.customer.v1.events_pb2 import CustomerRegistered, EmailVerificationRequested
from polymart.inventory.v1.events_pb2 import StockRanLow
from polymart.order.v1.events_pb2 import (
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderRefunded,
    OrderRejected,
    OrderShipped,
)
from polymart.order.v1.order_pb2 import OrderFailure, OrderLine

from chassis.errors import FailedPrecondition
from chassis.money import Money
from notification_svc.domain.notification import (
    MERCHANT,
    Content,
    Fact,
    Kind,
    LowStock,
    Notification,
    Report,
    Stage,
    latest,
)
from notification_svc.entrypoints.messages import fact_of
from notification_svc.protos import content_from_proto, content_to_proto

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GBP = Money.parse("GBP", "5.10").to_proto()


@st.composite
def deliveries(draw: st.DrawFn) -> list[Report]:
    """What one delivery may report: attempts that begin, the last of which may have ended."""
    attempts = draw(st.integers(1, 4))
    reports = [Report(n, Stage.IN_PROGRESS, start_time=NOW + timedelta(minutes=n)) for n in range(1, attempts + 1)]
    end = draw(st.sampled_from([None, Stage.PROCESSED, Stage.FAILED]))
    if end is Stage.PROCESSED:
        reports.append(Report(attempts, end, message_id="<1@x>", end_time=NOW + timedelta(hours=1)))
    elif end is Stage.FAILED:
        reports.append(Report(attempts, end, failure="no", end_time=NOW + timedelta(hours=1)))
    return reports


@given(st.data(), deliveries())
def test_reports_come_to_the_same_in_any_order_and_number(data: st.DataObject, reports: list[Report]) -> None:
    repeats = data.draw(st.lists(st.sampled_from(reports), max_size=8))
    merged = Report()
    for report in data.draw(st.permutations(reports + repeats)):
        merged = merged.merged(report)
    start = NOW + timedelta(minutes=reports[-1].attempt)
    assert merged == replace(reports[-1], start_time=start)


TIMES = st.none() | st.integers(0, 3).map(lambda minutes: NOW + timedelta(minutes=minutes))
ANY_REPORT = st.builds(
    Report, st.integers(0, 3), st.sampled_from(Stage), st.sampled_from(["", "no"]), st.sampled_from(["", "<1@x>"]),
    st.booleans(), TIMES, TIMES,
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from("ab"), ANY_REPORT), min_size=1), st.data())
def test_batches_can_be_cut_anywhere_and_shuffled(reports: list[tuple[str, Report]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(reports)))
    halves = [*latest(reports[:cut]).items(), *latest(reports[cut:]).items()]
    assert latest(halves) == latest(reports) == latest(data.draw(st.permutations(reports)))


def test_guests_and_customers_without_an_address_are_told_nothing() -> None:
    silent: list[Message] = [
        OrderConfirmed(order_id="o1", total=GBP),
        OrderRejected(order_id="o1", total=GBP),
        OrderCancelled(order_id="o1", total=GBP),
        OrderShipped(order_id="o1", shipment_id="s1"),
        OrderDelivered(order_id="o1", shipment_id="s1"),
        OrderRefunded(order_id="o1", operation_id="r1", amount=GBP, refunded=GBP),
        CustomerRegistered(customer_id="c1"),
    ]
    assert [fact_of(event) for event in silent] == [None] * len(silent)


def test_each_shipment_and_each_refund_of_an_order_is_told() -> None:
    line = OrderLine(sku="MUG", product_name="Mug", quantity=2, line_total=GBP)
    names = {"order_id": "o1", "customer_id": "ada"}
    events: list[Message] = [
        OrderShipped(shipment_id="s1", lines=[line], carrier="Post", tracking_number="T-1", **names),
        OrderShipped(shipment_id="s2", lines=[line], **names),
        OrderDelivered(shipment_id="s1", lines=[line], **names),
        OrderRefunded(operation_id="r1", amount=GBP, refunded=GBP, **names),
        OrderRefunded(operation_id="r2", amount=GBP, refunded=GBP, **names),
    ]
    facts = [fact for event in events if (fact := fact_of(event))]
    assert [fact.kind for fact in facts] == [
        Kind.ORDER_SHIPPED, Kind.ORDER_SHIPPED, Kind.ORDER_DELIVERED, Kind.ORDER_REFUNDED, Kind.ORDER_REFUNDED,
    ]  # fmt: skip
    assert len({Notification.about(fact, now=NOW).notification_id for fact in facts}) == 5
    assert {(fact.customer_id, fact.content.order_id) for fact in facts} == {("ada", "o1")}
    first, refund = facts[0].content, facts[3].content
    assert [line.product_name for line in first.lines] == ["Mug"]
    assert (first.carrier, first.tracking_number, refund.refund, refund.total) == (
        "Post", "T-1", Money.parse("GBP", "5.10"), Money.parse("GBP", "5.10"),
    )  # fmt: skip
    for fact in facts:
        assert content_from_proto(content_to_proto(fact.content)) == fact.content


def test_a_confirmation_shows_the_first_ten_lines() -> None:
    lines = [OrderLine(sku=f"s{n}", quantity=2, line_total=GBP) for n in range(12)]
    lines[0].product_name = "White Hanging Heart"
    fact = fact_of(OrderConfirmed(order_id="o1", customer_id="c1", lines=lines, total=GBP))
    assert fact is not None
    assert fact.content.line_count == 12
    names = [line.product_name for line in fact.content.lines]
    assert names == [
        "White Hanging Heart",
        *(f"s{n}" for n in range(1, 10)),
    ]
    assert content_from_proto(content_to_proto(fact.content)) == fact.content


def test_the_same_fact_has_the_same_id_and_another_one_another() -> None:
    failure = OrderFailure(message="It is sold out")
    rejected = fact_of(OrderRejected(order_id="o1", customer_id="c1", total=GBP, failure=failure))
    cancelled = fact_of(OrderCancelled(order_id="o1", customer_id="c1", total=GBP, failure=failure))
    assert rejected is not None
    assert cancelled is not None
    assert (rejected.kind, rejected.content.failure) == (Kind.ORDER_REJECTED, "It is sold out")
    ids = [Notification.about(fact, now=NOW).notification_id for fact in (rejected, cancelled, rejected)]
    assert ids[0] == ids[2] != ids[1]


def test_every_flip_to_low_is_a_fact_of_its_own_for_the_merchant() -> None:
    facts = [fact_of(StockRanLow(sku="MUG", available=n, low_stock=5, version=v)) for n, v in ((3, 2), (3, 2), (1, 4))]
    assert [fact.customer_id for fact in facts if fact] == [MERCHANT] * 3
    ids = [Notification.about(fact, now=NOW).notification_id for fact in facts if fact]
    assert ids[0] == ids[1] != ids[2]
    assert facts[2] is not None
    assert facts[2].content.low_stock == LowStock("MUG", 1, 5)
    assert content_from_proto(content_to_proto(facts[2].content)) == facts[2].content


def test_a_verification_passes_its_secret_on_as_it_came() -> None:
    event = EmailVerificationRequested(customer_id="c1", verification_id="v1", personal_data=b"sealed")
    event.expire_time.FromDatetime(NOW)
    fact = fact_of(event)
    assert fact is not None
    assert (fact.content.personal_data, fact.content.expire_time) == (b"sealed", NOW)
    assert content_from_proto(content_to_proto(fact.content)) == fact.content


def test_only_what_failed_is_retried_and_then_it_is_new_in_its_next_attempt() -> None:
    fact = Fact(Kind.WELCOME, "c1", Content(), "c1")
    for stage in Stage:
        notification = replace(Notification.about(fact, now=NOW), report=Report(3, stage, "no", end_time=NOW))
        if stage is Stage.FAILED:
            assert notification.retried(now=NOW).report == Report(4)
        else:
            with pytest.raises(FailedPrecondition):
                notification.retried(now=NOW)
