"""Reserving, committing and releasing stock for orders, a batch of commands at a time."""

from collections.abc import Sequence

from inventory_svc.application.ports import Book
from inventory_svc.domain.reservations import Command, decide, skus_of


async def carry_out(commands: Sequence[Command], *, book: Book) -> None:
    """Carry out commands in their order and answer each.

    Raises FailedPrecondition for a commit of what was never reserved.
    Holds are locked before levels, both sorted, so that batches never wait for each other in a circle.
    """
    holds = await book.holds({command.order_id for command in commands})
    levels = await book.levels(skus_of(commands, holds))
    await book.record(decide(commands, holds, levels))
