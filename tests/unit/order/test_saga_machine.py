"""The saga among a model of stock and a model of payments, over a network that loses nothing and promises nothing else.

Messages are delivered in any order, any number of times; whoever handles one may crash before its commit (nothing
happened), after it (the message comes again), or between publishing and forgetting (it is published again). There is
no inbox here: the decisions themselves must not mind.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chassis.errors import FailedPrecondition
from chassis.money import Money
from order_svc.domain import messages as m
from order_svc.domain.order import FailureReason, Line, Order, OrderPlaced, Recorded, Status
from order_svc.domain.saga import Decision, decide, place

START = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = timedelta(minutes=30)
SKUS = ("MUG", "LAMP")


@dataclass
class Stock:
    """Goal commands: after a release nothing is ever held for that order again."""

    on_hand: Counter[str]
    state: dict[str, str] = field(default_factory=dict)
    lines: dict[str, dict[str, int]] = field(default_factory=dict)

    def handle(self, order_id: str, command: m.Command) -> m.Reply:
        state = self.state.get(order_id, "")
        match command:
            case m.ReserveStock(quantities):
                if not state:
                    short = [m.Shortage(s, q, self.free(s)) for s, q in quantities.items() if q > self.free(s)]
                    self.state[order_id] = state = "refused" if short else "held"
                    self.lines[order_id] = quantities
                return m.StockReserved() if state in ("held", "sold") else m.StockRejected(())
            case m.CommitStock():
                if state == "held":
                    self.state[order_id] = state = "sold"
                return m.StockCommitted() if state == "sold" else m.StockReleased()
            case m.ReleaseStock():
                self.state[order_id] = "released"
                return m.StockReleased()
        raise AssertionError(command)

    def free(self, sku: str) -> int:
        gone = sum(self.lines[o].get(sku, 0) for o, state in self.state.items() if state in ("held", "sold"))
        return self.on_hand[sku] - gone


@dataclass
class Payments:
    """Goal commands: after a void no money is ever held for that payment again."""

    accepts: dict[str, bool] = field(default_factory=dict)
    captures: dict[str, bool] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)

    def handle(self, payment_id: str, command: m.Command) -> m.Reply:
        state = self.state.get(payment_id, "")
        match command:
            case m.AuthorizePayment():
                if not state:
                    self.state[payment_id] = state = "authorised" if self.accepts[payment_id] else "declined"
                if state == "voided":
                    return m.PaymentVoided()
                return m.PaymentDeclined("no") if state == "declined" else m.PaymentAuthorized()
            case m.CapturePayment():
                if state == "authorised" and self.captures[payment_id]:
                    self.state[payment_id] = state = "captured"
                return m.PaymentCaptured() if state == "captured" else m.PaymentCaptureFailed("expired")
            case m.VoidPayment():
                self.state[payment_id] = "voided"
                return m.PaymentVoided()
        raise AssertionError(command)


Sent = tuple[str, m.Command | m.Reply]


class SagaMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.orders: dict[str, Order] = {}
        self.histories: dict[str, list[Recorded]] = {}
        self.payments = Payments()
        self.outboxes: dict[str, list[Sent]] = {"order": [], "stock": [], "payment": []}
        self.network: list[Sent] = []

    @initialize(mugs=st.integers(0, 4), lamps=st.integers(0, 4), seed=st.integers(0, 1_000_000))
    def fill_the_warehouse(self, mugs: int, lamps: int, seed: int) -> None:
        self.seed = seed
        self.stock = Stock(Counter(MUG=mugs, LAMP=lamps))

    @precondition(lambda self: len(self.orders) < 4)
    @rule(
        wanted=st.lists(st.tuples(st.sampled_from((*SKUS, "POST")), st.integers(1, 3)), min_size=1, max_size=3),
        accepted=st.booleans(),
        captured=st.booleans(),
    )
    def place(self, wanted: list[tuple[str, int]], accepted: bool, captured: bool) -> None:
        order_id = f"order-{len(self.orders)}"
        lines = tuple(
            Line(sku, quantity, Money("GBP", 10), sku, sku, untracked=sku == "POST") for sku, quantity in wanted
        )
        total = Money("GBP", sum(line.total.nanos for line in lines))
        self.payments.accepts[order_id], self.payments.captures[order_id] = accepted, captured
        event = OrderPlaced("", lines, total, "tok", self.now + PATIENCE)
        self.commit(place(order_id, event, self.now))

    def commit(self, decision: Decision) -> None:
        order = decision.order
        history = self.histories.setdefault(order.order_id, [])
        for event in decision.events:
            history.append(Recorded(len(history) + 1, self.now, event))
        self.orders[order.order_id] = order
        self.outboxes["order"].extend((order.order_id, command) for command in decision.commands)

    @rule(service=st.sampled_from(["order", "stock", "payment"]), which=st.integers(0, 50), crash=st.booleans())
    def relay(self, service: str, which: int, crash: bool) -> None:
        outbox = self.outboxes[service]
        if outbox:
            which %= len(outbox)
            self.network.append(outbox[which])
            if not crash:
                outbox.pop(which)

    @rule(which=st.integers(0, 50), crash=st.sampled_from(["", "", "before commit", "after commit"]))
    def deliver(self, which: int, crash: str) -> None:
        if not self.network:
            return
        which %= len(self.network)
        message = self.network[which]
        if crash != "before commit":
            self.handle(message)
            if not crash:
                self.network.pop(which)

    def handle(self, sent: Sent) -> None:
        order_id, message = sent
        match message:
            case m.ReserveStock() | m.CommitStock() | m.ReleaseStock():
                self.outboxes["stock"].append((order_id, self.stock.handle(order_id, message)))
            case m.AuthorizePayment() | m.CapturePayment() | m.VoidPayment():
                self.outboxes["payment"].append((order_id, self.payments.handle(order_id, message)))
            case _:
                self.commit(decide(self.orders[order_id], message, self.now))

    @rule(seed=st.integers(0, 1_000_000))
    def all_that_is_under_way_arrives(self, seed: int) -> None:
        self.arrive(Random(seed))

    def arrive(self, random: Random) -> None:
        for outbox in self.outboxes.values():
            self.network.extend(outbox)
            outbox.clear()
        batch, self.network = self.network, []
        random.shuffle(batch)
        for message in batch:
            self.handle(message)

    @rule(which=st.integers(0, 3))
    def cancel(self, which: int) -> None:
        if order := self.orders.get(f"order-{which}"):
            try:
                self.commit(decide(order, m.CancelRequested(), self.now))
            except FailedPrecondition:
                assert order.status is Status.CONFIRMED

    @rule(minutes=st.integers(1, 40))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        for order in list(self.orders.values()):
            self.commit(decide(order, m.DeadlinePassed(), self.now))

    @invariant()
    def an_order_is_the_fold_of_its_events(self) -> None:
        for order_id, order in self.orders.items():
            assert Order.fold(order_id, self.histories[order_id]) == order
            assert order.version == len(self.histories[order_id])

    @invariant()
    def nothing_is_sold_twice(self) -> None:
        for sku in SKUS if self.orders else ():
            assert self.stock.free(sku) >= 0

    def teardown(self) -> None:
        """Everybody is back: what is under way gets there, once more in any order."""
        random = Random(self.seed)
        while self.network or any(self.outboxes.values()):
            self.arrive(random)
        for order_id, order in self.orders.items():
            assert order.settled, order
            stock, payment = self.stock.state.get(order_id, ""), self.payments.state.get(order_id, "")
            if order.status is Status.CONFIRMED:
                assert payment == "captured"
                assert stock == ("sold" if order.stock_wanted() else "")
            else:
                assert order.failure is not None
                assert stock in ("", "refused", "released")
                assert payment in ("", "declined", "voided")
                if order.failure.reason is FailureReason.CAPTURE_FAILED:
                    assert not self.payments.captures[order_id]


SagaMachine.TestCase.settings = settings(
    max_examples=50, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
test_every_order_settles_and_nothing_stays_held = SagaMachine.TestCase


@pytest.mark.parametrize("seed", range(300))
def test_whatever_the_weather(seed: int) -> None:
    """The same machine driven by plain chance, which goes deeper than a search that prefers small examples."""
    random = Random(seed)
    machine = SagaMachine()
    machine.fill_the_warehouse(random.randint(0, 6), random.randint(0, 6), seed)
    for _ in range(80):
        match random.choices(("place", "relay", "deliver", "cancel", "time"), (4, 30, 30, 1, 0.3))[0]:
            case "place" if len(machine.orders) < 4:
                wanted = [(random.choice((*SKUS, "POST")), random.randint(1, 2)) for _ in range(random.randint(1, 3))]
                machine.place(wanted, random.random() < 0.8, random.random() < 0.6)
            case "relay":
                machine.relay(random.choice(("order", "stock", "payment")), random.randrange(50), random.random() < 0.2)
            case "deliver":
                machine.deliver(random.randrange(50), random.choice(("", "", "", "before commit", "after commit")))
            case "cancel":
                machine.cancel(random.randrange(4))
            case "time":
                machine.time_passes(random.randint(1, 40))
        machine.an_order_is_the_fold_of_its_events()
        machine.nothing_is_sold_twice()
    machine.teardown()
