"""What happens around each call, whatever its kind, as async context managers."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from chassis.errors import InvalidArgument, ResourceExhausted, Unavailable, Violation

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# Calls that a process has in hand at once, watches among them; over it a client had better ask another replica.
MOST_CALLS = 2_000


@dataclass(frozen=True, slots=True)
class Call:
    """A call in hand. `method` is "/package.Service/Method"."""

    method: str
    context: Context
    streams: bool

    @property
    def infrastructure(self) -> bool:
        """Health and reflection."""
        return self.method.startswith("/grpc.")

    @property
    def open_ended(self) -> bool:
        """Streams to the caller for as long as the caller listens."""
        named_so = self.method.rpartition("/")[2].startswith(("Watch", "Stream"))
        return self.streams and (named_so or self.infrastructure)


Around: TypeAlias = Callable[[Call], AbstractAsyncContextManager[None]]


class AroundInterceptor(grpc.aio.ServerInterceptor):
    """Enters `arounds` in their order, the first outermost, then calls the handler.

    It refuses with UNAVAILABLE what comes before `accept` is called, and with RESOURCE_EXHAUSTED what comes on top of
    MOST_CALLS; health and reflection are always answered.
    """

    def __init__(self, arounds: Sequence[Around]):
        self._arounds = arounds
        self._accepting = False
        self._calls = 0
        self._open_ended: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()

    def accept(self) -> None:
        self._accepting = True

    def end_streams(self) -> None:
        """End every open-ended call with UNAVAILABLE, so that its caller turns to another replica."""
        self._ended |= self._open_ended
        for task in self._open_ended:
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return grpc.stream_stream_rpc_method_handler(self._unknown)
        inner = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        # A coroutine that writes a stream's responses, rather than a generator: so all of it runs, and is
        # unwound, in the call's own task and context.
        async def behave(request: Any, context: Context) -> Any:
            call = Call(method, context, streams=handler.response_streaming)
            async with AsyncExitStack() as stack:
                for around in self._arounds:
                    await stack.enter_async_context(around(call))
                if not call.infrastructure:
                    if not self._accepting:
                        raise Unavailable("the service is starting", reason="STARTING")
                    stack.enter_context(self._one_more())
                request = _checked_stream(request) if handler.request_streaming else _checked(request)
                if call.open_ended:
                    return await self._until_ended(inner, request, context)
                return await _invoke(inner, request, context)

        makers = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }
        make: Any = makers[handler.request_streaming, handler.response_streaming]
        return make(behave, _lenient(handler.request_deserializer), handler.response_serializer)

    async def _unknown(self, _: Any, context: Context) -> None:
        """Whatever was called. It isn't measured: callers make up as many names as they like."""
        async with self._arounds[0](Call("", context, streams=True)):
            raise NotImplementedError

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._calls >= MOST_CALLS:
            raise ResourceExhausted("more calls at once than the service takes; try again later")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    async def _until_ended(self, inner: Any, request: Any, context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open_ended.add(task)
        try:
            await _invoke(inner, request, context)
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise Unavailable("the service is stopping", reason="STOPPING") from None
        finally:
            self._open_ended.discard(task)
            self._ended.discard(task)


class _Malformed:
    """In place of a request that its bytes aren't."""


def _lenient(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """The library would tell a caller nothing but the exception's name."""

    def lenient(data: bytes) -> Any:
        assert deserialize is not None
        try:
            return deserialize(data)
        except Exception:  # the library's own, which differ between its implementations
            return _Malformed()

    return lenient if deserialize else None


def _checked(request: Any) -> Any:
    if isinstance(request, _Malformed):
        raise InvalidArgument([Violation("", "the bytes are no message of the method's request type")])
    return request


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


async def _invoke(inner: Any, request: Any, context: Context) -> Any:
    result = inner(request, context)
    if inspect.isasyncgen(result):
        async with aclosing(result):
            async for response in result:
                await context.write(response)
        return None
    return await result if inspect.isawaitable(result) else result
