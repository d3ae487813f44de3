"""The life of a payment: every cell of the table, then crashes between any two steps."""

from collections import Counter
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chassis.errors import FailedPrecondition
from chassis.money import Money
from payment_svc.domain.ledger import Account, Entry, entries_of
from payment_svc.domain.life import Change, decide, react, resolve, settle
from payment_svc.domain.payments import (
    VOIDS_REFUND,
    Approved,
    Asked,
    Attempt,
    AttemptState,
    Authorize,
    Authorized,
    Capture,
    Captured,
    CaptureFailed,
    Command,
    Declined,
    Event,
    Name,
    Operation,
    Outcome,
    Payment,
    Refund,
    Refunded,
    RefundFailed,
    Refused,
    Status,
    Void,
    Voided,
)

PRICE = Money("GBP", 12_340_000_000)
PART, REST = Money("GBP", 5_000_000_000), Money("GBP", 7_340_000_000)
AUTHORIZE, CAPTURE, VOID = Authorize("p", PRICE, "tok"), Capture("p"), Void("p")
REFUND, ALL = Refund("p", "r", PART), Refund("p", "all", PRICE)
YES, NO = Approved("ref"), Refused("no")
AUTHORIZED, DECLINED, CAPTURED = Authorized("p", PRICE), Declined("p", "no"), Captured("p", PRICE)
CAPTURE_FAILED, VOIDED = CaptureFailed("p", "no"), Voided("p")
REFUNDED, UNREFUNDED = Refunded("p", "r", PART), RefundFailed("p", "r", "no")
NOTHING_CAPTURED = RefundFailed("p", "r", "nothing was captured")

A, C, V = (Operation.AUTHORIZE, ""), (Operation.CAPTURE, ""), (Operation.VOID, "")
R, W = (Operation.REFUND, "r"), VOIDS_REFUND

Happening = Command | tuple[Name, Outcome]
BOUGHT: list[Happening] = [AUTHORIZE, (A, YES), CAPTURE, (C, YES)]
HISTORIES: dict[Status, list[list[Happening]]] = {
    Status.NEW: [[]],
    Status.AUTHORIZING: [[AUTHORIZE]],
    Status.DECLINED: [[AUTHORIZE, (A, NO)], [AUTHORIZE, VOID, (A, NO)]],
    Status.AUTHORIZED: [[AUTHORIZE, (A, YES)]],
    Status.CAPTURING: [[AUTHORIZE, (A, YES), CAPTURE]],
    Status.CAPTURED: [BOUGHT],
    Status.CAPTURE_FAILED: [[AUTHORIZE, (A, YES), CAPTURE, (C, NO)]],
    Status.VOIDING: [
        [AUTHORIZE, VOID],
        [AUTHORIZE, VOID, (A, YES)],
        [AUTHORIZE, (A, YES), VOID],
        [AUTHORIZE, (A, YES), VOID, (V, NO)],
        [AUTHORIZE, (A, YES), CAPTURE, VOID],
        [AUTHORIZE, (A, YES), CAPTURE, VOID, (C, YES)],
        [*BOUGHT, VOID, (W, NO)],
    ],
    Status.VOIDED: [
        [VOID],
        [AUTHORIZE, (A, YES), VOID, (V, YES)],
        [AUTHORIZE, VOID, (A, YES), (V, YES)],
    ],
}
GONE = CaptureFailed("p", "the payment was voided")
TOO_LATE = RefundFailed("p", "r", "the payment was voided")
# What is answered at once (None: nothing yet), and the status after; an error's class where it is refused.
TABLE: dict[Status, list[tuple[Command, Event | type[Exception] | None, Status]]] = {
    Status.NEW: [
        (AUTHORIZE, None, Status.AUTHORIZING),
        (CAPTURE, FailedPrecondition, Status.NEW),
        (REFUND, FailedPrecondition, Status.NEW),
        (VOID, VOIDED, Status.VOIDED),
    ],
    Status.AUTHORIZING: [
        (AUTHORIZE, None, Status.AUTHORIZING),
        (CAPTURE, FailedPrecondition, Status.AUTHORIZING),
        (REFUND, FailedPrecondition, Status.AUTHORIZING),
        (VOID, None, Status.VOIDING),
    ],
    Status.DECLINED: [
        (AUTHORIZE, DECLINED, Status.DECLINED),
        (CAPTURE, CAPTURE_FAILED, Status.DECLINED),
        (REFUND, NOTHING_CAPTURED, Status.DECLINED),
        (VOID, VOIDED, Status.DECLINED),
    ],
    Status.AUTHORIZED: [
        (AUTHORIZE, AUTHORIZED, Status.AUTHORIZED),
        (CAPTURE, None, Status.CAPTURING),
        (REFUND, FailedPrecondition, Status.AUTHORIZED),
        (VOID, None, Status.VOIDING),
    ],
    Status.CAPTURING: [
        (AUTHORIZE, AUTHORIZED, Status.CAPTURING),
        (CAPTURE, None, Status.CAPTURING),
        (REFUND, None, Status.CAPTURING),
        (VOID, None, Status.VOIDING),
    ],
    Status.CAPTURED: [
        (AUTHORIZE, AUTHORIZED, Status.CAPTURED),
        (CAPTURE, CAPTURED, Status.CAPTURED),
        (REFUND, None, Status.CAPTURED),
        (VOID, None, Status.VOIDING),
    ],
    Status.CAPTURE_FAILED: [
        (AUTHORIZE, AUTHORIZED, Status.CAPTURE_FAILED),
        (CAPTURE, CAPTURE_FAILED, Status.CAPTURE_FAILED),
        (REFUND, NOTHING_CAPTURED, Status.CAPTURE_FAILED),
        (VOID, None, Status.VOIDING),
    ],
    Status.VOIDING: [
        (AUTHORIZE, None, Status.VOIDING),
        (CAPTURE, GONE, Status.VOIDING),
        (REFUND, TOO_LATE, Status.VOIDING),
        (VOID, None, Status.VOIDING),
    ],
    Status.VOIDED: [
        (AUTHORIZE, VOIDED, Status.VOIDED),
        (CAPTURE, GONE, Status.VOIDED),
        (REFUND, TOO_LATE, Status.VOIDED),
        (VOID, VOIDED, Status.VOIDED),
    ],
}


def after(history: list[Happening]) -> Payment:
    payment = Payment("p")
    for happening in history:
        if isinstance(happening, tuple):
            payment, _ = resolve(payment, *happening)
        else:
            payment, _ = react(payment, happening)
    return payment


@pytest.mark.parametrize(
    ("history", "command", "answer", "status"),
    [
        pytest.param(history, command, answer, status, id=f"{type(command).__name__} when {before}-{n}")
        for before, cells in TABLE.items()
        for command, answer, status in cells
        for n, history in enumerate(HISTORIES[before])
    ],
)
def test_every_cell(
    history: list[Happening], command: Command, answer: Event | type[Exception] | None, status: Status
) -> None:
    payment = after(history)
    if isinstance(answer, type):
        with pytest.raises(answer):
            react(payment, command)
        return
    changed, events = react(payment, command)
    assert (changed.status, events) == (status, (answer,) if answer else ())


P, D, N = AttemptState.PENDING, AttemptState.APPROVED, AttemptState.UNNEEDED
ALL_BACK = Voided("p", PRICE)


@pytest.mark.parametrize(
    ("history", "name", "outcome", "answers", "status", "states"),
    [
        ([AUTHORIZE], A, YES, [AUTHORIZED], Status.AUTHORIZED, {}),
        ([AUTHORIZE], A, NO, [DECLINED], Status.DECLINED, {}),
        ([AUTHORIZE, VOID], A, YES, [], Status.VOIDING, {V: P}),
        ([AUTHORIZE, VOID], A, NO, [VOIDED], Status.DECLINED, {V: N}),
        ([AUTHORIZE, (A, YES), CAPTURE], C, YES, [CAPTURED], Status.CAPTURED, {}),
        ([AUTHORIZE, (A, YES), CAPTURE], C, NO, [CAPTURE_FAILED], Status.CAPTURE_FAILED, {}),
        ([AUTHORIZE, (A, YES), CAPTURE, VOID], C, YES, [], Status.VOIDING, {V: N, W: P}),
        ([AUTHORIZE, (A, YES), CAPTURE, VOID], C, NO, [], Status.VOIDING, {V: P}),
        ([AUTHORIZE, (A, YES), VOID], V, YES, [VOIDED], Status.VOIDED, {V: D}),
        ([AUTHORIZE, (A, YES), VOID], V, NO, [], Status.VOIDING, {V: P}),
        ([*BOUGHT, VOID], W, YES, [ALL_BACK], Status.VOIDED, {V: N, W: D}),
        ([*BOUGHT, VOID], W, NO, [], Status.VOIDING, {V: N, W: P}),
        ([*BOUGHT, REFUND], R, YES, [REFUNDED], Status.CAPTURED, {R: D}),
        ([*BOUGHT, REFUND], R, NO, [UNREFUNDED], Status.CAPTURED, {R: AttemptState.REFUSED}),
        ([*BOUGHT, REFUND, VOID], R, YES, [REFUNDED], Status.VOIDING, {R: D, V: N, W: P}),
        ([*BOUGHT, REFUND, VOID], R, NO, [UNREFUNDED], Status.VOIDING, {V: N, W: P}),
        ([*BOUGHT, REFUND, VOID, (R, YES)], W, YES, [Voided("p", REST)], Status.VOIDED, {W: D}),
        ([AUTHORIZE, (A, YES), CAPTURE, REFUND], C, YES, [CAPTURED], Status.CAPTURED, {R: P}),
        ([AUTHORIZE, (A, YES), CAPTURE, REFUND], C, NO, [CAPTURE_FAILED, NOTHING_CAPTURED],
         Status.CAPTURE_FAILED, {R: AttemptState.REFUSED}),
        ([AUTHORIZE, (A, YES), CAPTURE, REFUND, VOID], C, NO, [NOTHING_CAPTURED], Status.VOIDING, {V: P}),
        ([*BOUGHT, ALL, VOID], (Operation.REFUND, "all"), YES, [Refunded("p", "all", PRICE), VOIDED],
         Status.VOIDED, {V: N}),
    ],
)  # fmt: skip
def test_what_the_providers_answer_means(
    history: list[Happening],
    name: Name,
    outcome: Outcome,
    answers: list[Event],
    status: Status,
    states: dict[Name, AttemptState],
) -> None:
    payment, events = resolve(after(history), name, outcome)
    assert (payment.status, list(events)) == (status, answers)
    assert {name: payment.attempts[name].state for name in states} == states
    if not (name in (V, W) and outcome is NO):
        assert resolve(payment, name, outcome) == (payment, ())


def test_refunds_never_exceed_what_was_captured() -> None:
    payment = after([*BOUGHT, REFUND])
    payment, events = react(payment, Refund("p", "s", Money("GBP", REST.nanos + 1)))
    over = RefundFailed("p", "s", "7.34 GBP is left to refund")
    assert events == (over,)
    payment, events = react(payment, Refund("p", "t", REST))
    assert (events, payment.attempts[Operation.REFUND, "t"].state) == ((), AttemptState.WAITING)
    payment, events = react(payment, Refund("p", "u", Money("GBP", 1)))
    assert events == (RefundFailed("p", "u", "0.00 GBP is left to refund"),)
    payment, _ = resolve(payment, R, NO)
    assert payment.attempts[Operation.REFUND, "t"].state is AttemptState.PENDING
    # Refused for good, though there would be enough now.
    assert react(payment, Refund("p", "s", Money("GBP", REST.nanos + 1))) == (payment, (over,))


@pytest.mark.parametrize("history", [[*BOUGHT, REFUND, (R, YES)], [*BOUGHT, REFUND, (R, YES), VOID, (W, YES)]])
def test_a_repeated_refund_is_answered_with_what_became_of_it(history: list[Happening]) -> None:
    payment = after(history)
    assert react(payment, REFUND) == (payment, (REFUNDED,))
    with pytest.raises(FailedPrecondition) as failure:
        react(payment, Refund("p", "r", REST))
    assert failure.value.reason == "PAYMENT_DIFFERS"


def test_a_refund_in_another_currency_is_refused() -> None:
    with pytest.raises(FailedPrecondition) as failure:
        react(after(BOUGHT), Refund("p", "r", Money("EUR", 1)))
    assert failure.value.reason == "PAYMENT_DIFFERS"


def test_what_is_worth_nothing_is_voided_without_a_refund() -> None:
    free = Authorize("p", Money("GBP", 0), "tok")
    payment, events = react(after([free, (A, YES), CAPTURE, (C, YES)]), VOID)
    assert (payment.status, events, payment.refunds()) == (Status.VOIDED, (VOIDED,), {})


@pytest.mark.parametrize("operation", Operation)
def test_every_operation_is_booked_in_balance(operation: Operation) -> None:
    payment = Payment("p", amount=PRICE, attempts={(operation, ""): Asked(PART.nanos, AttemptState.APPROVED)})
    booked = entries_of(payment, (operation, ""))
    assert len(booked) >= 2
    assert sum(entry.amount.nanos for entry in booked) == 0


def test_an_authorisation_for_another_amount_is_refused() -> None:
    with pytest.raises(FailedPrecondition) as failure:
        react(after([AUTHORIZE]), Authorize("p", Money("GBP", 1), "tok"))
    assert failure.value.reason == "PAYMENT_DIFFERS"


def test_the_commands_of_one_batch_see_each_other() -> None:
    other = Authorize("q", PRICE, "tok")
    change = decide([AUTHORIZE, other, VOID, Void("r")], {id: Payment(id) for id in "pqr"})
    assert {p.payment_id: p.status for p in change.payments} == {
        "p": Status.VOIDING,
        "q": Status.AUTHORIZING,
        "r": Status.VOIDED,
    }
    assert change.opened == {("p", A): 0, ("q", A): 1, ("p", V): 2}
    assert change.events == [(Voided("r"), 3)]


def test_delays_grow_up_to_a_limit() -> None:
    attempts = [Attempt("p", Operation.AUTHORIZE, PRICE, "tok", tries=n) for n in (1, 2, 3, 5, 6, 5_000)]
    assert [attempt.delay.total_seconds() for attempt in attempts] == [0.25, 0.5, 1.0, 4.0, 5.0, 5.0]


IDS = ("0", "1")
SHARES = {"r": 5_000_000_000, "s": 7_340_000_000, "t": 6_000_000_000}


class Firm:
    """A provider with a record. It obeys keys, and refuses by its whim: `yes` is drawn anew for each new key."""

    def __init__(self) -> None:
        self.record: dict[str, tuple[Attempt, Outcome]] = {}
        self._numbers = count(1)

    def ask(self, attempt: Attempt, yes: bool) -> Outcome:
        if attempt.key not in self.record:
            may = yes or attempt.name in (V, W)
            outcome = Approved(f"ref{next(self._numbers)}") if may else Refused("whim")
            self.record[attempt.key] = attempt, outcome
        return self.record[attempt.key][1]

    def did(self, payment_id: str) -> dict[Name, int]:
        """What it did for a payment: amounts by name."""
        return {
            attempt.name: attempt.amount.nanos
            for attempt, outcome in self.record.values()
            if isinstance(outcome, Approved) and attempt.payment_id == payment_id
        }


class CrashesBetweenAnyTwoSteps(RuleBasedStateMachine):
    """Commands in any order and number; claims, calls and commits as steps of their own, each of which may be the
    last of its worker, while another worker may have claimed the same attempt after the lease."""

    @initialize(bought=st.sets(st.sampled_from(IDS)))
    def open(self, bought: set[str]) -> None:
        self.rows: dict[str, Payment] = {id: Payment(id) for id in IDS}
        self.firm = Firm()
        self.events: list[Event] = []
        self.entries: list[Entry] = []
        self.commanded: set[Command] = set()
        self.claims: list[Attempt] = []
        self.answers: list[tuple[Attempt, Outcome]] = []
        for id in bought:
            for command in (Authorize(id, PRICE, "tok"), Capture(id)):
                self._write(decide([command], {id: self.rows[id]}))
                self.commanded.add(command)
                self.work(id, True)

    @rule(
        chosen=st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from("aaccvrrsstt")), min_size=1, max_size=4),
        crash=st.booleans(),
    )
    def command(self, chosen: list[tuple[str, str]], crash: bool) -> None:
        make = {"a": lambda id: Authorize(id, PRICE, "tok"), "c": Capture, "v": Void}
        commands = [
            Refund(id, what, Money("GBP", SHARES[what])) if what in SHARES else make[what](id) for id, what in chosen
        ]
        try:
            change = decide(commands, {id: self.rows[id] for id, _ in chosen})
        except FailedPrecondition:
            assert any(isinstance(c, Capture | Refund) for c in commands)
            return
        if not crash:
            self._write(change)
            self.commanded |= set(commands)

    @rule(id=st.sampled_from(IDS), yes=st.booleans())
    def work(self, id: str, yes: bool) -> None:
        """A worker that lives."""
        for attempt in self._pending(id):
            self._write(settle([(attempt, self.firm.ask(attempt, yes))], {id: self.rows[id]}))

    @rule(id=st.sampled_from(IDS))
    def claim(self, id: str) -> None:
        """A worker takes what is pending, be it the first or one that comes after a lease."""
        self.claims += self._pending(id)

    def _pending(self, id: str) -> list[Attempt]:
        row = self.rows[id]
        pending = [(name, asked) for name, asked in row.attempts.items() if asked.state is AttemptState.PENDING]
        assert len(pending) <= 1
        return [
            Attempt(id, operation, row.money(asked.amount), row.token, row.reference, operation_id=operation_id)
            for (operation, operation_id), asked in pending
        ]

    @precondition(lambda self: self.claims)
    @rule(which=st.integers(0, 99), yes=st.booleans(), heard=st.booleans())
    def call(self, which: int, yes: bool, heard: bool) -> None:
        """A worker calls, maybe late, maybe again; the answer may get lost."""
        attempt = self.claims[-1 - which % len(self.claims)]
        outcome = self.firm.ask(attempt, yes)
        if heard:
            self.answers.append((attempt, outcome))

    @precondition(lambda self: self.answers)
    @rule(which=st.lists(st.integers(0, 99), min_size=1, max_size=3))
    def commit(self, which: list[int]) -> None:
        chosen = [self.answers[-1 - index % len(self.answers)] for index in which]
        self._write(settle(chosen, {attempt.payment_id: self.rows[attempt.payment_id] for attempt, _ in chosen}))

    def _write(self, change: Change) -> None:
        self.rows |= {p.payment_id: p for p in change.payments}
        self.events += [event for event, _ in change.events]
        self.entries += change.entries

    @invariant()
    def nothing_is_claimed_that_the_provider_did_not_do(self) -> None:
        for id, row in self.rows.items():
            did = self.firm.did(id)
            refunds = sum(amount for (operation, _), amount in did.items() if operation is Operation.REFUND)
            assert row.refunded <= refunds <= did.get(C, 0) <= did.get(A, 0)
            assert row.captured <= did.get(C, 0)
            if row.status in (Status.AUTHORIZED, Status.CAPTURING, Status.CAPTURED, Status.CAPTURE_FAILED):
                assert A in did
                assert V not in did
            if row.status is Status.CAPTURED:
                assert row.captured == PRICE.nanos
            if row.status in (Status.DECLINED, Status.VOIDED):
                assert did.get(A, 0) == did.get(V, 0) + refunds

    @invariant()
    def the_ledger_books_what_the_provider_did_once_and_in_balance(self) -> None:
        booked = Counter((e.payment_id, e.name, e.account) for e in self.entries)
        assert all(times == 1 for times in booked.values())
        assert sum(e.amount.nanos for e in self.entries) == 0
        for id, row in self.rows.items():
            sums = self.balances(id)
            assert sums[Account.PROVIDER] == row.captured - row.refunded
            assert (sums[Account.SALES], sums[Account.REFUNDS]) == (-row.captured, row.refunded)
            did = self.firm.did(id)
            assert {(e.name, abs(e.amount.nanos)) for e in self.entries if e.payment_id == id} <= set(did.items())

    def balances(self, id: str) -> Counter[Account]:
        sums: Counter[Account] = Counter()
        for entry in self.entries:
            if entry.payment_id == id:
                sums[entry.account] += entry.amount.nanos
        return sums

    @invariant()
    def no_event_contradicts_another(self) -> None:
        seen = Counter((type(e), e.payment_id) for e in self.events)
        for id in self.rows:
            assert not (seen[Authorized, id] and seen[Declined, id])
        given = {(e.payment_id, e.operation_id) for e in self.events if isinstance(e, Refunded)}
        assert not given & {(e.payment_id, e.operation_id) for e in self.events if isinstance(e, RefundFailed)}

    def teardown(self) -> None:
        """Left alone, every payment comes to rest, with its last word published."""
        for id in self.rows:
            while pending := self._pending(id):
                self._write(settle([(pending[0], self.firm.ask(pending[0], yes=True))], {id: self.rows[id]}))
            row = self.rows[id]
            assert row.status not in (Status.AUTHORIZING, Status.CAPTURING, Status.VOIDING)
            assert not any(asked.open for asked in row.attempts.values())
            heard = {type(e) for e in self.events if e.payment_id == id}
            did = self.firm.did(id)
            assert {e.name for e in self.entries if e.payment_id == id} == did.keys()
            sums = self.balances(id)
            if Void(id) in self.commanded:
                assert Voided in heard
                assert sums[Account.HOLDS] == sums[Account.PROVIDER] == 0
            elif row.status is not Status.NEW:
                assert heard & {Authorized, Declined}
                assert (Capture(id) in self.commanded) <= bool(heard & {Captured, CaptureFailed})
            answered = {e.operation_id for e in self.events if isinstance(e, Refunded | RefundFailed)
                        and e.payment_id == id}  # fmt: skip
            wanted = {c.operation_id for c in self.commanded if isinstance(c, Refund) and c.payment_id == id}
            assert answered == wanted
        self.nothing_is_claimed_that_the_provider_did_not_do()


CrashesBetweenAnyTwoSteps.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_crashes_between_any_two_steps = CrashesBetweenAnyTwoSteps.TestCase
