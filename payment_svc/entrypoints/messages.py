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
    """Raises InvalidArgument for what no order could mean."""
    match payload:
        case AuthorizePayment():
            command: Command = Authorize(payload.payment_id, _amount(payload), payload.payment_token)
        case CapturePayment():
            command = Capture(payload.payment_id)
        case RefundPayment():
            command = Refund(payload.payment_id, payload.operation_id, _amount(payload))
            if not 0 < len(command.operation_id) <= _LONGEST_ID:
                raise InvalidArgument([Violation("operation_id", f"must be 1 to {_LONGEST_ID} characters")])
        case VoidPayment():
            command = Void(payload.payment_id)
        case _:
            raise TypeError(f"{type(payload).__name__} is not a command of payments")
    if not command.payment_id:
        raise InvalidArgument([Violation("payment_id", "is required")])
    return command


def _amount(payload: AuthorizePayment | RefundPayment) -> Money:
    """A refund of nothing is as good as any: an order may be worth nothing."""
    try:
        amount = Money.from_proto(payload.amount)
    except ValueError as error:
        raise InvalidArgument([Violation("amount", str(error))]) from error
    if amount.nanos < 0:
        raise InvalidArgument([Violation("amount", "must not be negative")])
    return amount
