"""Every interleaving there is, of an order of up to three lines, its stock, its payment and what people ask of it.

What was once sent stays on its way for ever: at every moment it may arrive, once more, later than anything else, or
never. So the states that can be reached are those of all delays, duplicates, orders and losses together.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from chassis.errors import AlreadyExists, FailedPrecondition, NotFound
from chassis.money import Money
from order_svc.domain import messages as m
from order_svc.domain.fulfilment import Units
from order_svc.domain.order import Line, Order, OrderPlaced, Status
from order_svc.domain.saga import Decision, ask_again, decide, needs_operator, place

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PENNY = 10**7
MUG = Line("MUG", 2, Money("GBP", 5 * PENNY), "mug", "Mug")
LAMP = Line("LAMP", 1, Money("GBP", 3 * PENNY), "lamp", "Lamp")
POST = Line("POST", 1, Money("GBP", 2 * PENNY), "post", "Postage", untracked=True)

ONE_MUG = (Units(0, 1),)
CANCEL = m.CancelRequested("alice", request_id="c")
CANCEL_ONE = m.CancelRequested("alice", request_id="p", units=ONE_MUG)
SHIP_ONE = m.ShipmentRequested("s1", "s1", "bob", units=ONE_MUG)
SHIP = m.ShipmentRequested("s2", "s2", "bob")
RETURN_ONE = m.ReturnRequested("r1", "bob", True, units=ONE_MUG)
RETURN = m.ReturnRequested("r2", "bob", False)
RETRY = m.RetryRequested("bob", "why not")
ARRIVED = m.DeliveryReported("s1", "bob"), m.DeliveryReported("s2", "bob")

S = Status
# What people may ask, at any moment and in any order, of orders of these lines; and how these may end where stock and
# payment say yes.
SCRIPTS: dict[str, tuple[tuple[Line, ...], tuple[m.Message, ...], set[Status]]] = {
    "called off in part and whole, or too late": (
        (MUG, POST), (CANCEL_ONE, CANCEL, m.DeadlinePassed()), {S.CONFIRMED, S.CANCELLED, S.REJECTED}),
    "shipped while it is called off": (
        (MUG, LAMP, POST), (CANCEL_ONE, SHIP, CANCEL), {S.CONFIRMED, S.CANCELLED, S.SHIPPED}),
    "returned": (
        (MUG, POST), (SHIP, ARRIVED[1], RETURN_ONE, RETURN), {S.CONFIRMED, S.SHIPPED, S.DELIVERED, S.RETURNED}),
    "shipped and returned in parts, the rest called off": (
        (MUG,), (SHIP_ONE, ARRIVED[0], RETURN_ONE, CANCEL),
        {S.CONFIRMED, S.CANCELLED, S.PARTLY_SHIPPED, S.SHIPPED, S.DELIVERED, S.RETURNED}),
    "of nothing in stock": (
        (POST, POST, POST), (CANCEL_ONE, CANCEL, SHIP, ARRIVED[1], RETURN),
        {S.CONFIRMED, S.CANCELLED, S.SHIPPED, S.DELIVERED, S.RETURNED}),
    "looked after by an operator": ((MUG,), (CANCEL_ONE, RETRY), {S.CONFIRMED}),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class World:
    """`refusing`: what payment says no to, for good. Amounts count nanos."""

    order: Order
    refusing: frozenset[str] = frozenset()
    stock: str = ""
    back: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    payment: str = ""
    refunds: tuple[tuple[str, int], ...] = ()
    refused: frozenset[str] = frozenset()
    sent: frozenset[str] = frozenset()
    messages: dict[str, m.Message | m.Command] = field(default_factory=dict, compare=False)

    def key(self) -> tuple[object, ...]:
        o = self.order
        facts = o.status, o.settled, o.stock, o.payment, repr(o.operations), repr(o.shipments), repr(o.refunds)
        return (*facts, self.stock, self.back, self.payment, self.refunds, self.refused, self.sent)

    def sending(self, sent: Iterable[m.Message | m.Command]) -> "World":
        new = {repr(message): message for message in sent}
        return replace(self, sent=frozenset(self.sent | new.keys()), messages={**self.messages, **new})

    def decided(self, decision: Decision) -> "World":
        return replace(self, order=decision.order).sending(decision.commands)

    def captured(self) -> int:
        return self.order.total.nanos if self.payment == "captured" or any(not id for id, _ in self.refunds) else 0

    def held(self) -> int:
        return self.captured() - sum(amount for _, amount in self.refunds)

    def deliver(self, message: m.Message | m.Command) -> "World":
        match message:
            case m.ReserveStock():
                world = replace(self, stock=self.stock or ("refused" if "reserve" in self.refusing else "held"))
                held = world.stock in ("held", "sold")
                return world.sending([m.StockReserved() if held else m.StockRejected(())])
            case m.CommitStock():
                assert self.stock
                world = replace(self, stock="sold" if self.stock == "held" else self.stock)
                return world.sending([m.StockCommitted() if world.stock == "sold" else m.StockReleased()])
            case m.ReleaseStock():
                return replace(self, stock="released").sending([m.StockReleased()])
            case m.RestockStock(operation_id, quantities):
                assert self.stock in ("sold", "released")
                done = self.stock == "released" or operation_id in dict(self.back)
                back = self.back if done else (*self.back, (operation_id, tuple(quantities.items())))
                return replace(self, back=back).sending([m.StockRestocked(operation_id)])
            case m.AuthorizePayment() | m.CapturePayment() | m.VoidPayment() | m.RefundPayment():
                return self._pay(message)
        return self.decided(decide(self.order, message, NOW))

    def _pay(self, command: m.Command) -> "World":
        match command:
            case m.AuthorizePayment():
                declines = "authorise" in self.refusing
                world = replace(self, payment=self.payment or ("declined" if declines else "authorised"))
                if world.payment == "declined":
                    return world.sending([m.PaymentDeclined("no")])
                return world.sending([m.PaymentVoided() if world.payment == "voided" else m.PaymentAuthorized()])
            case m.CapturePayment():
                assert self.payment
                if self.payment == "authorised" and "capture" not in self.refusing:
                    return replace(self, payment="captured").sending([m.PaymentCaptured()])
                done = self.payment == "captured"
                return self.sending([m.PaymentCaptured() if done else m.PaymentCaptureFailed("no")])
            case m.VoidPayment():
                left = self.held() if self.payment == "captured" else 0
                refunds = (*self.refunds, ("", left)) if left else self.refunds
                rest = dict(refunds).get("")
                voided = m.PaymentVoided(Money("GBP", rest) if rest else None)
                return replace(self, payment="voided", refunds=refunds).sending([voided])
            case m.RefundPayment(id, amount):
                assert self.payment in ("captured", "voided")
                known, world = dict(self.refunds), self
                if id not in known and id not in self.refused:
                    if self.payment == "voided" or id in self.refusing or amount.nanos > self.held():
                        world = replace(self, refused=self.refused | {id})
                    else:
                        world = replace(self, refunds=tuple(sorted((*self.refunds, (id, amount.nanos)))))
                given = dict(world.refunds).get(id)
                if given is None:
                    return world.sending([m.PaymentRefundFailed(id, "no")])
                return world.sending([m.PaymentRefunded(id, Money("GBP", given))])
        raise AssertionError(command)

    def check(self) -> None:
        counts = self.order.counts()
        assert counts.cancelled + counts.shipped <= counts.ordered
        assert counts.returned <= counts.delivered <= counts.shipped
        assert self.held() >= 0
        if not self.order.settled:
            return
        if self.order.status in (Status.REJECTED, Status.CANCELLED):
            assert self.stock in ("", "refused", "released")
            assert self.payment in ("", "declined", "voided")
            assert self.held() == 0
            return
        kept = counts.ordered - counts.gone
        assert self.payment == "captured"
        assert self.held() == sum(self.order.lines[n].unit_price.nanos * units for n, units in kept.items())
        assert self.order.refunded.nanos == sum(amount for _, amount in self.refunds)
        assert self.stock == ("sold" if self.order.stock_wanted() else "")
        assert {id: dict(units) for id, units in self.back} == {
            o.operation_id: dict(o.restock) for o in self.order.operations if o.restock
        }

    def end(self) -> "World":
        """Everything new arrives, and what is missing is asked for again, until nothing changes."""
        world, before = self, None
        while before != world.key():
            before = world.key()
            if needs_operator(world.order):
                world = replace(world, refusing=frozenset()).decided(decide(world.order, RETRY, NOW))
            world = world.decided(ask_again(world.order))
            for name in sorted(world.sent):
                world = world.deliver(world.messages[name])
        return world


NO: dict[str, frozenset[str]] = {
    "nothing": frozenset(),
    "reserve": frozenset({"reserve"}),
    "authorise": frozenset({"authorise"}),
    "capture": frozenset({"capture"}),
    "the first refunds": frozenset({"p", "r1"}),
}


@pytest.mark.parametrize("refused", NO)
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_interleaving_keeps_the_books_and_ends_settled(name: str, refused: str) -> None:
    lines, script, statuses = SCRIPTS[name]
    total = Money("GBP", sum(line.total.nanos for line in lines))
    # The deadline is past already: when it is looked at is one of the things that may happen any time.
    placed = OrderPlaced("alice", lines, total, "tok", NOW - timedelta(1))
    decision = place("order", placed, NOW)
    start = World(decision.order, NO[refused]).decided(decision)
    seen, ends, frontier = {start.key()}, set[Status](), deque([start])
    while frontier:
        world = frontier.popleft()
        world.check()
        ended = world.end()
        assert ended.order.settled, ended.order
        ended.check()
        ends.add(ended.order.status)
        for message in (*script, *(world.messages[sent] for sent in world.sent)):
            try:
                after = world.deliver(message)
            except (FailedPrecondition, AlreadyExists, NotFound):
                continue
            if after.key() not in seen:
                seen.add(after.key())
                frontier.append(after)
    if refused in ("nothing", "the first refunds"):
        assert ends == statuses
    else:
        assert ends <= statuses | {Status.CANCELLED, Status.REJECTED}
