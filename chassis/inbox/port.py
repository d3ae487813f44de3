"""The inbox: which messages have had their effect, recorded in the transaction of the effect."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class UnitOfWork(Protocol[T_co]):
    """A transaction that knows the messages it handles."""

    def begin(self, consumer: str, ids: Sequence[str]) -> AbstractAsyncContextManager[tuple[T_co, set[str]]]:
        """A transaction, and those of `ids` that `consumer` hasn't had.

        Leaving the block commits; raising rolls back, and then they are fresh again.
        """
        ...

    async def prune(self) -> None:
        """Forget messages too old to come again."""
        ...


class NoInbox(Generic[T]):
    """For stores whose documents carry versions: every message counts as fresh, `tx` is the value given."""

    def __init__(self, value: T):
        self._value = value

    @asynccontextmanager
    async def begin(self, consumer: str, ids: Sequence[str]) -> AsyncIterator[tuple[T, set[str]]]:
        yield self._value, set(ids)

    async def prune(self) -> None:
        """Nothing is kept."""
