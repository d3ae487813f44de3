"""Reserving, committing, releasing and restocking for orders, a batch of commands at a time."""

from collections.abc import Sequence

from inventory_svc.application.ports import Book, Warehouse
from inventory_svc.domain.reservations import Command, Restock, decide, skus_of
from inventory_svc.domain.stock import Level


async def carry_out(commands: Sequence[Command], *, book: Book) -> None:
    """Carry out commands in their order and answer each.

    Raises FailedPrecondition for a commit of what was never reserved and a restock of more than was taken, NotFound
    for a restock to no location, AlreadyExists for one whose id was used for another.
    Holds are locked before levels, both sorted, so that batches never wait for each other in a circle.
    """
    holds = await book.holds({command.order_id for command in commands})
    levels = await book.levels(skus_of(commands, holds))
    await book.record(decide(commands, holds, levels, await book.locations()))


async def restock(command: Restock, *, warehouse: Warehouse) -> list[Level]:
    """Carry out a restock and return the levels of its SKUs. Raises as `carry_out` does."""
    async with warehouse.transaction() as book:
        await carry_out([command], book=book)
        skus = [line.sku for line in command.lines]
        levels = await book.levels(skus)
        return [levels[sku] for sku in skus if sku in levels]
