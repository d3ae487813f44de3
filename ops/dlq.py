"""`polymart dlq`: list, show, replay and drop messages that a consumer gave up on."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from nats.errors import Error as NatsError
from polymart.catalog.v1 import events_pb2 as catalog_events
from polymart.customer.v1 import events_pb2 as customer_events
from polymart.email.v1 import events_pb2 as email_events
from polymart.inventory.v1 import commands_pb2 as inventory_commands
from polymart.inventory.v1 import events_pb2 as inventory_events
from polymart.notification.v1 import events_pb2 as notification_events
from polymart.order.v1 import events_pb2 as order_events
from polymart.payment.v1 import commands_pb2 as payment_commands
from polymart.payment.v1 import events_pb2 as payment_events
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chassis.errors import NotFound
from chassis.messaging.dead_letters import DeadLetter, DeadLetters
from chassis.messaging.nats import Nats
from ops.clients import asynchronous, console, nats_url, print_data
from ops.orders import JsonOption

app = typer.Typer(no_args_is_help=True, help="Look at dead letters, send them again or forget them.")

# Decoding a message needs its module imported.
MODULES = (
    catalog_events, customer_events, email_events, inventory_commands, inventory_events,
    notification_events, order_events, payment_commands, payment_events,
)  # fmt: skip

Sequences = Annotated[list[int], typer.Argument(metavar="NUMBER…", help="As `polymart dlq list` shows them.")]


@asynccontextmanager
async def dead_letters() -> AsyncIterator[DeadLetters]:
    nats = Nats(nats_url(), "polymart dlq")
    await nats.open()
    try:
        if not nats.connected:
            raise ValueError("NATS can't be reached; is the stack up?")
        yield DeadLetters(nats)
    except NatsError as error:
        raise ValueError(f"NATS: {error}") from error
    except NotFound as error:
        raise ValueError(str(error)) from error
    finally:
        await nats.close()


@app.command("list")
@asynchronous
async def list_letters(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the oldest first.")] = 100,
    json: JsonOption = False,
) -> None:
    """List dead letters."""
    async with dead_letters() as letters:
        found = await letters.list(limit=limit)
    if json:
        print_data([summary(letter) for letter in found])
        return
    show_letters(console, found)


def show_letters(out: Console, letters: Sequence[DeadLetter]) -> None:
    """A table with all that is known of each; what is too long is folded."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("number", "since", "consumer", "type", "tries", "error"):
        table.add_column(heading, no_wrap=heading not in ("consumer", "type", "error"), overflow="fold")
    for letter in letters:
        since = f"{letter.at:%m-%d %H:%M}" if letter.at else ""
        name = letter.type.rpartition(".")[2]
        cells = (str(letter.sequence), since, letter.consumer, name, str(letter.deliveries), letter.error)
        table.add_row(*map(escape, cells))
    out.print(table if letters else "no dead letters")


@app.command()
@asynchronous
async def show(number: int) -> None:
    """Show one dead letter, decoded, as JSON."""
    async with dead_letters() as letters:
        letter = await letters.get(number)
    payload = letter.payload()
    print_data({
        **summary(letter),
        "headers": dict(letter.headers),
        "message": MessageToDict(payload, preserving_proto_field_name=True) if payload else letter.data.hex(),
    })  # fmt: skip


@app.command()
@asynchronous
async def replay(numbers: Sequences) -> None:
    """Send dead letters again where they came from, and drop them here."""
    async with dead_letters() as letters:
        for number in numbers:
            letter = await letters.replay(number)
            console.print(f"{number}: {letter.type} sent again to {letter.subject}", markup=False)


@app.command()
@asynchronous
async def drop(
    numbers: Sequences, yes: Annotated[bool, typer.Option("--yes", help="Don't ask whether it is meant.")] = False
) -> None:
    """Forget dead letters for good."""
    if not yes:
        typer.confirm(f"Forget {', '.join(map(str, numbers))} for good?", abort=True)
    async with dead_letters() as letters:
        for number in numbers:
            await letters.drop(number)
            console.print(f"{number}: dropped", markup=False)


def summary(letter: DeadLetter) -> dict[str, object]:
    return {
        "number": letter.sequence,
        "id": letter.id,
        "type": letter.type,
        "consumer": letter.consumer,
        "subject": letter.subject,
        "deliveries": letter.deliveries,
        "replays": letter.replays,
        "error": letter.error,
        "since": letter.at.isoformat() if letter.at else None,
    }
