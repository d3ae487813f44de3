"""The life of a payment: every cell of the table, then crashes between any two steps."""

from collections import Counter
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chassis.errors import FailedPrecondition
from chassis.money import Money
from payment_svc.domain.payments import (
    Approved,
    Attempt,
    AttemptState,
    Authorize,
    Authorized,
    Capture,
    Captured,
    CaptureFailed,
    Change,
    Command,
    Declined,
    Event,
    Operation,
    Outcome,
    Payment,
    Refused,
    Status,
    Void,
    Voided,
    decide,
    react,
    resolve,
    settle,
)

PRICE = Money("GBP", 12_340_000_000)
AUTHORIZE, CAPTURE, VOID = Authorize("p", PRICE, "tok"), Capture("p"), Void("p")
YES, NO = Approved("ref"), Refused("no")
AUTHORIZED, DECLINED, CAPTURED = Authorized("p", PRICE), Declined("p", "no"), Captured("p", PRICE)
CAPTURE_FAILED, VOIDED = CaptureFailed("p", "no"), Voided("p")

Happening = Command | tuple[Operation, Outcome]
A, C, V = Operation.AUTHORIZE, Operation.CAPTURE, Operation.VOID
HISTORIES: dict[Status, list[list[Happening]]] = {
    Status.NEW: [[]],
    Status.AUTHORIZING: [[AUTHORIZE]],
    Status.DECLINED: [[AUTHORIZE, (A, NO)], [AUTHORIZE, VOID, (A, NO)]],
    Status.AUTHORIZED: [[AUTHORIZE, (A, YES)]],
    Status.CAPTURING: [[AUTHORIZE, (A, YES), CAPTURE]],
    Status.CAPTURED: [[AUTHORIZE, (A, YES), CAPTURE, (C, YES)]],
    Status.CAPTURE_FAILED: [[AUTHORIZE, (A, YES), CAPTURE, (C, NO)]],
    Status.VOIDING: [
        [AUTHORIZE, VOID],
        [AUTHORIZE, VOID, (A, YES)],
        [AUTHORIZE, (A, YES), VOID],
        [AUTHORIZE, (A, YES), VOID, (V, NO)],
        [AUTHORIZE, (A, YES), CAPTURE, VOID],
        [AUTHORIZE, (A, YES), CAPTURE, VOID, (C, YES)],
    ],
    Status.VOIDED: [
        [VOID],
        [AUTHORIZE, (A, YES), VOID, (V, YES)],
        [AUTHORIZE, VOID, (A, YES), (V, YES)],
        [AUTHORIZE, (A, YES), CAPTURE, (C, YES), VOID, (V, YES)],
    ],
}
GONE = CaptureFailed("p", "the payment was voided")
# What is answered at once (None: nothing yet), and the status after; an error's class where it is refused.
TABLE: dict[Status, list[tuple[Command, Event | type[Exception] | None, Status]]] = {
    Status.NEW: [
        (AUTHORIZE, None, Status.AUTHORIZING),
        (CAPTURE, FailedPrecondition, Status.NEW),
        (VOID, VOIDED, Status.VOIDED),
    ],
    Status.AUTHORIZING: [
        (AUTHORIZE, None, Status.AUTHORIZING),
        (CAPTURE, FailedPrecondition, Status.AUTHORIZING),
        (VOID, None, Status.VOIDING),
    ],
    Status.DECLINED: [
        (AUTHORIZE, DECLINED, Status.DECLINED),
        (CAPTURE, CAPTURE_FAILED, Status.DECLINED),
        (VOID, VOIDED, Status.DECLINED),
    ],
    Status.AUTHORIZED: [
        (AUTHORIZE, AUTHORIZED, Status.AUTHORIZED),
        (CAPTURE, None, Status.CAPTURING),
        (VOID, None, Status.VOIDING),
    ],
    Status.CAPTURING: [
        (AUTHORIZE, AUTHORIZED, Status.CAPTURING),
        (CAPTURE, None, Status.CAPTURING),
        (VOID, None, Status.VOIDING),
    ],
    Status.CAPTURED: [
        (AUTHORIZE, AUTHORIZED, Status.CAPTURED),
        (CAPTURE, CAPTURED, Status.CAPTURED),
        (VOID, None, Status.VOIDING),
    ],
    Status.CAPTURE_FAILED: [
        (AUTHORIZE, AUTHORIZED, Status.CAPTURE_FAILED),
        (CAPTURE, CAPTURE_FAILED, Status.CAPTURE_FAILED),
        (VOID, None, Status.VOIDING),
    ],
    Status.VOIDING: [
        (AUTHORIZE, None, Status.VOIDING),
        (CAPTURE, GONE, Status.VOIDING),
        (VOID, None, Status.VOIDING),
    ],
    Status.VOIDED: [
        (AUTHORIZE, VOIDED, Status.VOIDED),
        (CAPTURE, GONE, Status.VOIDED),
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
    changed, event = react(payment, command)
    assert (changed.status, event) == (status, answer)


@pytest.mark.parametrize(
    ("history", "operation", "outcome", "answer", "status", "void"),
    [
        ([AUTHORIZE], A, YES, AUTHORIZED, Status.AUTHORIZED, None),
        ([AUTHORIZE], A, NO, DECLINED, Status.DECLINED, None),
        ([AUTHORIZE, VOID], A, YES, None, Status.VOIDING, AttemptState.PENDING),
        ([AUTHORIZE, VOID], A, NO, VOIDED, Status.DECLINED, AttemptState.UNNEEDED),
        ([AUTHORIZE, (A, YES), CAPTURE], C, YES, CAPTURED, Status.CAPTURED, None),
        ([AUTHORIZE, (A, YES), CAPTURE], C, NO, CAPTURE_FAILED, Status.CAPTURE_FAILED, None),
        ([AUTHORIZE, (A, YES), CAPTURE, VOID], C, YES, None, Status.VOIDING, AttemptState.PENDING),
        ([AUTHORIZE, (A, YES), CAPTURE, VOID], C, NO, None, Status.VOIDING, AttemptState.PENDING),
        ([AUTHORIZE, (A, YES), VOID], V, YES, VOIDED, Status.VOIDED, AttemptState.APPROVED),
        ([AUTHORIZE, (A, YES), VOID], V, NO, None, Status.VOIDING, AttemptState.PENDING),
    ],
)
def test_what_the_providers_answer_means(
    history: list[Happening],
    operation: Operation,
    outcome: Outcome,
    answer: Event | None,
    status: Status,
    void: AttemptState | None,
) -> None:
    payment, event = resolve(after(history), operation, outcome)
    assert (payment.status, event, payment.attempts.get(V)) == (status, answer, void)
    if not (operation is V and outcome is NO):
        assert resolve(payment, operation, outcome) == (payment, None)


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
    delays = [Attempt("p", A, PRICE, "tok", tries=n).delay.total_seconds() for n in (1, 2, 3, 5, 6, 5_000)]
    assert delays == [0.25, 0.5, 1.0, 4.0, 5.0, 5.0]


IDS = ("0", "1")


class Firm:
    """A provider with a record. It obeys keys, and refuses by its whim: `yes` is drawn anew for each new key."""

    def __init__(self) -> None:
        self.record: dict[str, tuple[Attempt, Outcome]] = {}
        self._numbers = count(1)

    def ask(self, attempt: Attempt, yes: bool) -> Outcome:
        if attempt.key not in self.record:
            may = yes or attempt.operation is V
            outcome = Approved(f"ref{next(self._numbers)}") if may else Refused("whim")
            self.record[attempt.key] = attempt, outcome
        return self.record[attempt.key][1]

    def did(self, payment_id: str, operation: Operation) -> int:
        return sum(
            isinstance(outcome, Approved)
            for attempt, outcome in self.record.values()
            if (attempt.payment_id, attempt.operation) == (payment_id, operation)
        )


class CrashesBetweenAnyTwoSteps(RuleBasedStateMachine):
    """Commands in any order and number; claims, calls and commits as steps of their own, each of which may be the
    last of its worker, while another worker may have claimed the same attempt after the lease."""

    @initialize()
    def open(self) -> None:
        self.rows: dict[str, Payment] = {id: Payment(id) for id in IDS}
        self.firm = Firm()
        self.events: list[Event] = []
        self.commanded: set[Command] = set()
        self.claims: list[Attempt] = []
        self.answers: list[tuple[Attempt, Outcome]] = []

    @rule(
        chosen=st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from("aacv")), min_size=1, max_size=4),
        crash=st.booleans(),
    )
    def command(self, chosen: list[tuple[str, str]], crash: bool) -> None:
        make = {"a": lambda id: Authorize(id, PRICE, "tok"), "c": Capture, "v": Void}
        commands = [make[what](id) for id, what in chosen]
        try:
            change = decide(commands, {id: self.rows[id] for id, _ in chosen})
        except FailedPrecondition:
            assert any(isinstance(c, Capture) for c in commands)
            return
        if not crash:
            self._write(change)
            self.commanded |= set(commands)

    @rule(id=st.sampled_from(IDS))
    def claim(self, id: str) -> None:
        """A worker takes what is pending, be it the first or one that comes after a lease."""
        row = self.rows[id]
        pending = [o for o, state in row.attempts.items() if state is AttemptState.PENDING]
        assert len(pending) <= 1
        self.claims += [Attempt(id, o, PRICE, row.token, row.reference) for o in pending]

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

    @invariant()
    def never_twice(self) -> None:
        assert all(self.firm.did(id, o) <= 1 for id in self.rows for o in Operation)

    @invariant()
    def nothing_is_claimed_that_the_provider_did_not_do(self) -> None:
        for id, row in self.rows.items():
            if row.status in (Status.AUTHORIZED, Status.CAPTURING, Status.CAPTURED, Status.CAPTURE_FAILED):
                assert self.firm.did(id, A) == 1
                assert self.firm.did(id, V) == 0
            if row.status in (Status.CAPTURED,):
                assert self.firm.did(id, C) == 1
            if row.status in (Status.DECLINED, Status.VOIDED):
                assert self.firm.did(id, A) == self.firm.did(id, V)

    @invariant()
    def no_event_contradicts_another(self) -> None:
        seen = Counter((type(e), e.payment_id) for e in self.events)
        for id in self.rows:
            assert not (seen[Authorized, id] and seen[Declined, id])

    def teardown(self) -> None:
        """Left alone, every payment comes to rest, with its last word published."""
        for id, row in self.rows.items():
            while pending := [o for o, state in row.attempts.items() if state is AttemptState.PENDING]:
                attempt = Attempt(id, pending[0], PRICE, row.token)
                row, event = resolve(row, attempt.operation, self.firm.ask(attempt, yes=True))
                self.events += [event] if event else []
            self.rows[id] = row
            assert row.status not in (Status.AUTHORIZING, Status.CAPTURING, Status.VOIDING)
            heard = {type(e) for e in self.events if e.payment_id == id}
            if Void(id) in self.commanded:
                assert Voided in heard
                assert self.firm.did(id, A) == self.firm.did(id, V)
            elif row.status is not Status.NEW:
                assert heard & {Authorized, Declined}
                assert (Capture(id) in self.commanded) <= bool(heard & {Captured, CaptureFailed})
        self.nothing_is_claimed_that_the_provider_did_not_do()


CrashesBetweenAnyTwoSteps.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
test_crashes_between_any_two_steps = CrashesBetweenAnyTwoSteps.TestCase
