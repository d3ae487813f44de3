"""What the service reacts to."""

from collections.abc import Callable, Mapping, Sequence

from google.protobuf.message import Message
from polymart.payment.v1.commands_pb2 import AuthorizePayment, CapturePayment, RefundPayment, VoidPayment

from chassis.errors import InvalidArgument, Violation
from chassis.messaging.envelope import Envelope
from chassis.messaging.subscription import Handler
from chassis.money import Money
from chassis.postgres import Transaction
from payment_svc.application.payments import carry_out
from payment_svc.application.ports import Ledger
from payment_svc.domain.payments import Authorize, Capture, Command, Refund, Void

_LONGEST_ID = 64

OpenLedger = Callable[[Transaction, Sequence[Envelope]], Ledger]


def reactions(open_ledger: OpenLedger) -> Mapping[type[Message], Handler[Transaction]]:
    """The table. `open_ledger` makes the store's ledger for a transaction and the messages it handles."""

    async def move_money(messages: Sequence[Envelope], *, tx: Transaction) -> None:
        commands = [_command(message.payload) for message in messages]
        await carry_out(commands, ledger=open_ledger(tx, messages))

    return {
        AuthorizePayment: move_money,
        CapturePayment: move_money,
        VoidPayment: move_money,
        RefundPayment: move_money,
    }


def _command(payload: Message) -> Command:
    """Raises InvalidArgument, with every fault, for what no order could mean."""
    assert isinstance(payload, AuthorizePayment | CapturePayment | RefundPayment | VoidPayment)
    faults = [] if payload.payment_id else [Violation("payment_id", "is required")]
    amount = Money("", 0)
    if isinstance(payload, AuthorizePayment | RefundPayment):
        try:
            amount = Money.from_proto(payload.amount)
            if amount.nanos < 0:
                faults.append(Violation("amount", "must not be negative"))
        except ValueError as error:
            faults.append(Violation("amount", str(error)))
    if isinstance(payload, RefundPayment) and not 0 < len(payload.operation_id) <= _LONGEST_ID:
        faults.append(Violation("operation_id", f"must be 1 to {_LONGEST_ID} characters"))
    if faults:
        raise InvalidArgument(faults)
    match payload:
        case AuthorizePayment():
            return Authorize(payload.payment_id, amount, payload.payment_token)
        case CapturePayment():
            return Capture(payload.payment_id)
        case RefundPayment():
            return Refund(payload.payment_id, payload.operation_id, amount)
        case VoidPayment():
            return Void(payload.payment_id)
