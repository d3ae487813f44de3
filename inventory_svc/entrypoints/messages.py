"""What the service reacts to."""

from collections.abc import Callable, Mapping, Sequence

from google.protobuf.message import Message
from polymart.inventory.v1.commands_pb2 import CommitStock, ReleaseStock, ReserveStock, RestockStock

from chassis.errors import InvalidArgument, Violation
from chassis.ids import printable
from chassis.messaging.envelope import Envelope
from chassis.messaging.subscription import Handler
from chassis.postgres import Transaction
from inventory_svc.application.ports import Book
from inventory_svc.application.reservations import carry_out
from inventory_svc.domain.allocation import Line
from inventory_svc.domain.reservations import Command, Commit, Release, Reserve, Restock

_LONGEST_ID = 64

OpenBook = Callable[[Transaction, Sequence[Envelope]], Book]


def reactions(open_book: OpenBook) -> Mapping[type[Message], Handler[Transaction]]:
    """The table. `open_book` makes the store's book for a transaction and the messages it handles."""

    async def move_stock(messages: Sequence[Envelope], *, tx: Transaction) -> None:
        commands = [_command(message.payload) for message in messages]
        await carry_out(commands, book=open_book(tx, messages))

    return {
        ReserveStock: move_stock,
        CommitStock: move_stock,
        ReleaseStock: move_stock,
        RestockStock: move_stock,
    }


def _command(payload: Message) -> Command:
    """Raises InvalidArgument for what no order could mean."""
    match payload:
        case ReserveStock():
            _check(payload)
            return Reserve(payload.order_id, _lines(payload))
        case CommitStock():
            return Commit(_named(payload.order_id))
        case ReleaseStock():
            return Release(_named(payload.order_id))
        case RestockStock():
            _check(payload)
            return Restock(payload.order_id, payload.operation_id, _lines(payload))
    raise TypeError(f"{type(payload).__name__} is not a command of stock")


def _named(order_id: str) -> str:
    if violations := _id_violations(order_id):
        raise InvalidArgument(violations)
    return order_id


def _id_violations(order_id: str) -> list[Violation]:
    # No store takes a NUL, however often it is tried.
    return [] if order_id and printable(order_id) else [Violation("order_id", "must be given, and printable")]


def _lines(message: ReserveStock | RestockStock) -> tuple[Line, ...]:
    return tuple(Line(line.sku, line.quantity) for line in message.lines)


def _check(message: ReserveStock | RestockStock) -> None:
    violations = _id_violations(message.order_id)
    if isinstance(message, RestockStock):
        fine = 0 < len(message.operation_id) <= _LONGEST_ID and printable(message.operation_id)
        if not fine:
            violations.append(Violation("operation_id", f"must be 1 to {_LONGEST_ID} printable characters"))
    seen: set[str] = set()
    for index, line in enumerate(message.lines):
        if not line.sku or line.sku in seen or not printable(line.sku):
            violations.append(Violation(f"lines[{index}].sku", "must be given, printable, and each SKU once"))
        if line.quantity < 1:
            violations.append(Violation(f"lines[{index}].quantity", "must be over 0"))
        seen.add(line.sku)
    if violations:
        raise InvalidArgument(violations)
