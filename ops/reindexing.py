"""Rebuilds of the search index as an operator follows them."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
from polymart.search.v1.search_service_pb2 import (
    REBUILD_STEP_DONE,
    GetIndexStatusRequest,
    IndexStatus,
    RebuildStep,
    StartRebuildRequest,
)

if TYPE_CHECKING:
    from polymart.search.v1.search_service_pb2_grpc import SearchServiceAsyncStub

_DEADLINE = 10.0
_POLL = 0.25


class RebuildLost(Exception):
    """The index, and with it what was known of the rebuild, is gone."""

    def __init__(self) -> None:
        super().__init__("the search engine has lost the index, which is now being filled anew by itself")


def step_name(step: "RebuildStep.ValueType") -> str:
    return RebuildStep.Name(step).removeprefix("REBUILD_STEP_").lower()


async def rebuild(
    search: "SearchServiceAsyncStub", on_progress: Callable[[IndexStatus], None], *, poll: float = _POLL
) -> IndexStatus:
    """Begin a rebuild, or join the one that runs, and wait until it is done; a service that is away is waited for.

    The rebuild goes on without whoever waits. Raises RebuildLost, AioRpcError where it can't be begun.
    """
    status: IndexStatus = await search.StartRebuild(StartRebuildRequest(), timeout=_DEADLINE, wait_for_ready=True)
    rebuild_id = status.rebuild.rebuild_id
    while True:
        on_progress(status)
        if status.rebuild.rebuild_id != rebuild_id:
            raise RebuildLost
        if status.rebuild.step == REBUILD_STEP_DONE:
            return status
        await asyncio.sleep(poll)
        try:
            status = await search.GetIndexStatus(GetIndexStatusRequest(), timeout=_DEADLINE, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
