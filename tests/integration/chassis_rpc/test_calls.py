"""What happens around a call, over a real connection."""

import asyncio
import json
from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from chassis import errors
from chassis.rpc import around
from chassis.rpc.client import translated
from chassis.telemetry import Tracing, span
from tests.conftest import until
from tests.integration.chassis_rpc.echo import NAME, Echo, EchoStub, Stage, client, running, text

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running() as started:
        yield started


async def failure(stub: EchoStub, kind: str, word: str) -> grpc.aio.AioRpcError:
    async def words() -> AsyncIterator[object]:
        yield text(word)

    async def outcome() -> None:
        if kind == "unary":
            await stub.unary(text(word), timeout=5)
        elif kind == "collect":
            await stub.collect(words(), timeout=5)
        else:
            call = stub.watch(text(word), timeout=5) if kind == "watch" else stub.chat(words(), timeout=5)
            async for _ in call:
                pass

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await outcome()
    return caught.value


def details(error: grpc.aio.AioRpcError) -> tuple[ErrorInfo, BadRequest]:
    info, bad = ErrorInfo(), BadRequest()
    (raw,) = [value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    status = Status.FromString(raw)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    for detail in status.details:
        assert detail.Unpack(info) or detail.Unpack(bad)
    return info, bad


KINDS = ["unary", "watch", "collect", "chat"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("word", "code", "reason"),
    [
        ("missing", "NOT_FOUND", "ORDER_NOT_FOUND"),
        ("stale", "ABORTED", "CONCURRENT_CHANGE"),
        ("bad", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("outage", "UNAVAILABLE", "UNAVAILABLE"),
        ("timeout", "UNAVAILABLE", "UNAVAILABLE"),
        ("boom", "INTERNAL", "INTERNAL"),
        ("internal", "INTERNAL", "INTERNAL"),
        ("unimplemented", "UNIMPLEMENTED", "UNIMPLEMENTED"),
    ],
)
async def test_each_error_has_its_code_and_reason(stage: Stage, kind: str, word: str, code: str, reason: str) -> None:
    error = await failure(stage.stub, kind, word)
    info, _ = details(error)
    assert (error.code().name, info.reason, info.domain) == (code, reason, "polymart")


async def test_what_nobody_expected_says_nothing(stage: Stage) -> None:
    for word in ("boom", "internal", "outage"):
        error = await failure(stage.stub, "unary", word)
        assert "1234" not in str(error)
        assert "10.1.2.3" not in str(error)


async def test_every_violation_reaches_the_caller(stage: Stage) -> None:
    _, bad = details(await failure(stage.stub, "unary", "bad"))
    assert [v.field for v in bad.field_violations] == ["lines[0].sku", "token"]


async def test_a_thousand_violations_reach_the_caller_as_far_as_they_fit(stage: Stage) -> None:
    error = await failure(stage.stub, "unary", "very bad")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    _, bad = details(error)
    assert len(bad.field_violations) > 50
    assert bad.field_violations[-1].description == f"and {1_000 - len(bad.field_violations) + 1} more"


async def test_unknown_methods_and_services_are_unimplemented(stage: Stage) -> None:
    for method in (f"/{NAME}/Nothing", "/no.such.v1.Service/Method"):
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            error = await refusal(stage, kind, method, b"x")
            info, _ = details(error)
            assert (error.code(), info.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")
    assert "Nothing" not in generate_latest(stage.running.service.metrics.registry).decode()


@pytest.mark.parametrize(
    ("kind", "method"),
    [("unary_unary", "Unary"), ("unary_stream", "ListIt"), ("stream_unary", "Collect"), ("stream_stream", "Chat")],
)
async def test_bytes_that_are_no_request_are_an_invalid_argument(stage: Stage, kind: str, method: str) -> None:
    error = await refusal(stage, kind, f"/{NAME}/{method}", b"\xff\xff\xff")
    info, bad = details(error)
    assert (error.code(), info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert bad.field_violations[0].description == "the bytes are no message of the method's request type"


async def refusal(stage: Stage, kind: str, method: str, data: bytes) -> grpc.aio.AioRpcError:
    """How a call of bare bytes ends."""

    async def messages() -> AsyncIterator[bytes]:
        yield data

    call = getattr(stage.channel, kind)(method)(messages() if kind.startswith("stream") else data, timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if kind.endswith("stream") else call)
    return caught.value


async def test_a_call_without_a_deadline_is_refused_a_watch_is_not(stage: Stage) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.stub.unary(text("x"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(caught.value)[0].reason == "DEADLINE_REQUIRED"
    with pytest.raises(grpc.aio.AioRpcError):
        await stage.stub.list(text("x")).read()
    assert [r.value async for r in stage.stub.watch(text("second"))] == ["first", "second"]
    assert await stage.stub.unary(text("x"), timeout=5) == text("x")


async def test_the_deadline_cancels_the_handler(stage: Stage) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.stub.unary(text("hold"), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(stage.echo.cancelled.wait(), 5)


async def test_the_deadline_is_passed_on_a_little_shorter(stage: Stage) -> None:
    async with client(stage.running.address) as peer, running(Echo(peer)) as front:
        own = float((await front.stub.unary(text("remaining"), timeout=2)).value)
        below = float((await front.stub.unary(text("pass on remaining"), timeout=2)).value)
        assert 1.5 < below < own < 2
        default = float((await front.stub.unary(text("pass on remaining"), timeout=60)).value)
        assert 4 < default < 5
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await front.stub.unary(text("pass on hold"), timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(stage.echo.cancelled.wait(), 5)


async def test_a_client_sees_a_peers_failures_as_ours(stage: Stage) -> None:
    async with client(stage.running.address) as peer:
        for word, kind, reason in (
            ("missing", errors.NotFound, "ORDER_NOT_FOUND"),
            ("stale", errors.Aborted, "CONCURRENT_CHANGE"),
            ("outage", errors.Unavailable, "UNAVAILABLE"),
            ("boom", errors.Internal, "INTERNAL"),
        ):
            with pytest.raises(kind) as caught, translated("echo_svc"):
                await peer.stub.unary(text(word))
            assert caught.value.reason == reason
        with pytest.raises(errors.InvalidArgument) as bad, translated("echo_svc"):
            await peer.stub.unary(text("bad"))
        assert [v.field for v in bad.value.violations] == ["lines[0].sku", "token"]
        with pytest.raises(errors.DeadlineExceeded), translated("echo_svc"):
            await peer.stub.unary(text("hold"), timeout=0.1)


async def test_a_peer_that_is_away_is_unavailable_and_noticed_when_it_is_back() -> None:
    async with running() as first:
        address = first.running.address
    async with client(address, [f"{NAME}/Unary"]) as peer:
        with pytest.raises(errors.Unavailable), translated("echo_svc"):
            await peer.stub.unary(text("x"))
        config = first.running.service.config.model_copy(update={"grpc_address": address})
        async with running(config=config):

            async def answered() -> bool:
                try:
                    with translated("echo_svc"):
                        return bool(await peer.stub.unary(text("x")))
                except errors.Unavailable:
                    return False

            await until(answered, 5)


async def test_an_idempotent_call_is_tried_again_another_is_not() -> None:
    calls = 0

    class Flaky(Echo):
        async def act(self, word: str) -> str:
            nonlocal calls
            calls += 1
            if calls < 3:
                raise errors.Unavailable("not yet")
            return word

    async with running(Flaky()) as stage:
        async with client(stage.running.address) as plain:
            with pytest.raises(errors.Unavailable), translated("echo_svc"):
                await plain.stub.unary(text("x"))
        assert calls == 1
        async with client(stage.running.address, [f"{NAME}/Unary"]) as retrying:
            assert await retrying.stub.unary(text("x")) == text("x")
        assert calls == 3


async def test_reflection_names_the_services(stage: Stage) -> None:
    call = ServerReflectionStub(stage.channel).ServerReflectionInfo(
        iter([ServerReflectionRequest(list_services="")]), timeout=5
    )
    answer = await call.read()
    names = {s.name for s in answer.list_services_response.service}
    assert {NAME, "grpc.health.v1.Health"} <= names


async def test_one_line_for_each_call_never_what_was_asked(stage: Stage) -> None:
    with capture_logs() as lines:
        await stage.stub.unary(text("a word of mine"), timeout=5)
        await failure(stage.stub, "unary", "missing")
        await failure(stage.stub, "unary", "boom")
        outage = await failure(stage.stub, "unary", "outage")
        await until(lambda: len(lines) == 4)
    told = [(line["log_level"], line["code"], line["reason"], line["service"]) for line in lines]
    assert told == [
        ("debug", "OK", None, "echo_svc"),
        ("info", "NOT_FOUND", "ORDER_NOT_FOUND", "echo_svc"),
        ("error", "INTERNAL", "INTERNAL", "echo_svc"),
        ("warning", "UNAVAILABLE", "UNAVAILABLE", "echo_svc"),
    ]
    assert lines[3]["cause"] == "10.1.2.3"
    assert "10.1.2.3" not in str(outage)
    assert all(line["method"] == f"{NAME}/Unary" and line["ms"] >= 0 for line in lines)
    assert "a word of mine" not in json.dumps(lines, default=str)


async def test_a_trace_id_is_passed_on_where_nothing_is_traced(stage: Stage) -> None:
    async with client(stage.running.address) as peer, running(Echo(peer)) as front:
        metadata = (("traceparent", TRACEPARENT),)
        got = await front.stub.unary(text("pass on traceparent"), timeout=5, metadata=metadata)
        assert got.value == TRACEPARENT
        assert (await front.stub.unary(text("pass on traceparent"), timeout=5)).value == "None"


async def test_spans_form_one_trace_each_under_its_services_name(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(
        "chassis.service.configure_tracing", lambda name, _: Tracing(name, SimpleSpanProcessor(exporter))
    )
    async with (
        running(name="back_svc") as back,
        client(back.running.address) as peer,
        running(Echo(peer), name="front_svc") as front,
    ):
        metadata = (("traceparent", TRACEPARENT),)
        await front.stub.unary(text("pass on x"), timeout=5, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError):
            await front.stub.unary(text("pass on missing"), timeout=5, metadata=metadata)
        await until(lambda: len(exporter.get_finished_spans()) == 6)
        spans = exporter.get_finished_spans()
    assert {f"{s.context.trace_id:032x}" for s in spans} == {TRACEPARENT.split("-")[1]}
    assert [(s.resource.attributes["service.name"], s.kind.name) for s in spans[:3]] == [
        ("back_svc", "SERVER"),
        ("front_svc", "CLIENT"),
        ("front_svc", "SERVER"),
    ]
    server, call, front_server = spans[:3]
    assert server.parent is not None
    assert server.parent.span_id == call.context.span_id
    assert call.parent is not None
    assert call.parent.span_id == front_server.context.span_id
    assert [s.status.is_ok for s in spans[3:]] == [False, False, False]
    with span("outside of any service") as outside:
        assert not outside.is_recording()


async def test_calls_beyond_the_limit_are_refused_and_health_is_answered(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(around, "MOST_CALLS", 2)
    watch = stage.stub.watch(text("hold"))
    await watch.read()
    held = asyncio.ensure_future(stage.stub.unary(text("hold"), timeout=30))

    async def refused() -> bool:
        try:
            with translated("echo_svc"):
                await stage.stub.unary(text("x"), timeout=5)
        except errors.ResourceExhausted:
            return True
        return False

    async def taken() -> bool:
        return not await refused()

    await until(refused)
    assert await stage.serving()
    stage.echo.release.set()
    await asyncio.gather(held, watch.read())
    await until(taken)


async def test_a_client_connects_anew_now_and_then_and_neither_calls_nor_streams_notice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chassis.rpc.server.CONNECTION_AGE", 0.2)
    async with running() as stage:
        watch = stage.stub.watch(text("x"))
        assert (await watch.read()).value == "first"
        places: set[str] = set()

        async def moved() -> bool:
            places.add((await stage.stub.unary(text("from where"), timeout=5)).value)
            return len(places) == 3

        await until(moved)
        assert not watch.done()
