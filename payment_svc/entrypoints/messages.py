"""What the service reacts to."""

from collections.abc import Callable, Mapping, Sequence

from google.protobuf.message import Message
from polymart.payment.v1.commands_pb2 import AuthorizePayment, CapturePayment, VoidPayment

from chassis.errors import InvalidArgument, Violation
from chassis.messaging.envelope import Envelope
from chassis.messaging.subscription import Handler
from chassis.money import Money
from chassis.postgres import Transaction
from payment_svc.application.payments import carry_out
from payment_svc.application.ports import Ledger
from payment_svc.domain.payments import Authorize, Capture, Command, Void

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
    }


def _command(payload: Message) -> Command:
    """Raises InvalidArgument for what no order could mean."""
    match payload:
        case AuthorizePayment():
            return Authorize(_named(payload.payment_id), _amount(payload), payload.payment_token)
        case CapturePayment():
            return Capture(_named(payload.payment_id))
        case VoidPayment():
            return Void(_named(payload.payment_id))
    raise TypeError(f"{type(payload).__name__} is not a command of payments")


def _named(payment_id: str) -> str:
    if not payment_id:
        raise InvalidArgument([Violation("payment_id", "is required")])
    return payment_id


def _amount(payload: AuthorizePayment) -> Money:
    try:
        amount = Money.from_proto(payload.amount)
    except ValueError as error:
        raise InvalidArgument([Violation("amount", str(error))]) from error
    if amount.nanos < 0:
        raise InvalidArgument([Violation("amount", "must not be negative")])
    return amount
