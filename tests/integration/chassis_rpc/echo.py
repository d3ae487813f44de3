"""A service of one method of each kind, and what it takes to run it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from chassis.config import ServiceConfig
from chassis.errors import Aborted, Internal, InvalidArgument, NotFound, Violation
from chassis.metrics import Metrics
from chassis.rpc.client import RpcClient, translated
from chassis.rpc.deadline import remaining
from chassis.service import RunningService, Service, Servicer, start
from chassis.telemetry import current_traceparent

NAME = "test.v1.Echo"
Context = grpc.aio.ServicerContext[StringValue, StringValue]


def text(value: object) -> StringValue:
    return StringValue(value=str(value))


@dataclass
class Echo:
    """Answers what it is asked; some words do more."""

    peer: "RpcClient[EchoStub] | None" = None
    held: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def act(self, word: str) -> str:
        match word:
            case "boom":
                raise RuntimeError("the password is 1234")
            case "internal":
                raise Internal("the password is 1234")
            case "missing":
                raise NotFound("order 7 isn't there", reason="ORDER_NOT_FOUND", metadata={"order_id": "7"})
            case "stale":
                raise Aborted("changed meanwhile")
            case "bad":
                raise InvalidArgument([Violation("lines[0].sku", "is required"), Violation("token", "is required")])
            case "very bad":
                raise InvalidArgument([Violation(f"lines[{i}].sku", "is required") for i in range(1_000)])
            case "outage":
                raise ConnectionRefusedError("10.1.2.3")
            case "timeout":
                raise TimeoutError
            case "unimplemented":
                raise NotImplementedError
            case "remaining":
                return str(remaining())
            case "traceparent":
                return str(current_traceparent())
            case "hold":
                self.held.set()
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
            case _ if word.startswith("pass on "):
                assert self.peer is not None
                with translated("peer"):
                    return (await self.peer.stub.unary(text(word.removeprefix("pass on ")))).value
        return word

    async def unary(self, request: StringValue, context: Context) -> StringValue:
        if request.value == "from where":
            return text(context.peer())
        return text(await self.act(request.value))

    async def watch(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        yield text("first")
        yield text(await self.act(request.value))

    async def collect(self, requests: AsyncIterator[StringValue], context: Context) -> StringValue:
        return text(" ".join([await self.act(request.value) async for request in requests]))

    async def chat(self, requests: AsyncIterator[StringValue], context: Context) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield text(await self.act(request.value))

    def add(self, _: Any, server: grpc.aio.Server) -> None:
        codec: dict[str, Any] = {
            "request_deserializer": StringValue.FromString,
            "response_serializer": StringValue.SerializeToString,
        }
        methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary, **codec),
            "WatchIt": grpc.unary_stream_rpc_method_handler(self.watch, **codec),
            "ListIt": grpc.unary_stream_rpc_method_handler(self.watch, **codec),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect, **codec),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat, **codec),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, methods),))


class EchoStub:
    def __init__(self, channel: grpc.aio.Channel):
        codec: dict[str, Any] = {
            "request_serializer": StringValue.SerializeToString,
            "response_deserializer": StringValue.FromString,
        }
        self.unary = channel.unary_unary(f"/{NAME}/Unary", **codec)
        self.watch = channel.unary_stream(f"/{NAME}/WatchIt", **codec)
        self.list = channel.unary_stream(f"/{NAME}/ListIt", **codec)
        self.collect = channel.stream_unary(f"/{NAME}/Collect", **codec)
        self.chat = channel.stream_stream(f"/{NAME}/Chat", **codec)
        self.nothing = channel.unary_unary(f"/{NAME}/Nothing", **codec)


@dataclass
class Stage:
    """A running service, its implementation, and a bare channel to it."""

    running: RunningService
    echo: Echo
    channel: grpc.aio.Channel

    @property
    def stub(self) -> EchoStub:
        return EchoStub(self.channel)

    async def health(self, name: str = "") -> str:
        request = HealthCheckRequest(service=name)
        response: HealthCheckResponse = await HealthStub(self.channel).Check(request, timeout=5)
        return HealthCheckResponse.ServingStatus.Name(response.status)

    async def serving(self) -> bool:
        return await self.health() == "SERVING"

    async def not_serving(self) -> bool:
        return await self.health() == "NOT_SERVING"


def service(echo: Echo, *, name: str = "echo_svc", config: ServiceConfig | None = None, **parts: Any) -> Service:
    return Service(
        name=name,
        config=config or ServiceConfig(drain_seconds=5),
        metrics=Metrics(name),
        servicers=[Servicer(echo.add, echo, NAME)],
        **parts,
    )


@asynccontextmanager
async def running(
    echo: Echo | None = None, *, wait: bool = True, name: str = "echo_svc", **parts: Any
) -> AsyncIterator[Stage]:
    echo = echo or Echo()
    started = await start(service(echo, name=name, **parts))
    try:
        if wait:
            await started.ready(10)
        async with grpc.aio.insecure_channel(started.address) as channel:
            yield Stage(started, echo, channel)
    finally:
        echo.release.set()
        await started.drain_and_stop()


@asynccontextmanager
async def client(address: str, idempotent: Sequence[str] = ()) -> AsyncIterator[RpcClient[EchoStub]]:
    made = RpcClient(address, EchoStub, idempotent=idempotent)
    await made.open()
    yield made
    await made.close()
