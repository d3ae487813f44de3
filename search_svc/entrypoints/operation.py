"""The index as its operators see it: its state, the rebuild, and the way back."""

from polymart.search.v1 import search_service_pb2 as pb

from chassis.rpc.validation import Validator
from search_svc.application.lag import ProjectionLag
from search_svc.application.ports import Generations, IndexMissing, ProductSearch
from search_svc.application.rebuild import drop_old, roll_back, start_rebuild
from search_svc.domain.rebuild import Rebuild, Step

_STEPS = {
    Step.PREPARE: pb.REBUILD_STEP_PREPARING,
    Step.CATEGORIES: pb.REBUILD_STEP_CATEGORIES,
    Step.AVAILABILITY: pb.REBUILD_STEP_AVAILABILITY,
    Step.PRODUCTS: pb.REBUILD_STEP_PRODUCTS,
    Step.CHECK: pb.REBUILD_STEP_CHECKING,
    Step.SWAP: pb.REBUILD_STEP_SWAPPING,
    Step.DONE: pb.REBUILD_STEP_DONE,
}


class Operation:
    """Each method answers with the state afterwards."""

    def __init__(self, index: ProductSearch, generations: Generations, lag: ProjectionLag):
        self._index = index
        self._generations = generations
        self._lag = lag

    async def status(self) -> pb.IndexStatus:
        # In this order: what a rebuild that has ended did to the layout is seen.
        try:
            last = await self._generations.rebuild()
        except IndexMissing:
            last = None
        state = await self._index.status()
        status = pb.IndexStatus(
            index=state.index,
            products=state.products,
            products_in_stock=state.products_in_stock,
            rebuilding=state.rebuilding,
        )
        if (spare := (await self._generations.layout()).spare) is not None:
            status.old_index = self._generations.name_of(spare)
        if last:
            status.rebuild.CopyFrom(self._rebuild(last.document))
        if (seconds := self._lag.seconds) is not None:
            status.projection_lag.FromMilliseconds(round(seconds * 1000))
        return status

    async def start_rebuild(self) -> pb.IndexStatus:
        await start_rebuild(self._generations)
        return await self.status()

    async def roll_back(self, request: pb.RollbackIndexRequest) -> pb.IndexStatus:
        Validator(request).done()
        await roll_back(request.index, self._generations)
        return await self.status()

    async def drop_old(self) -> pb.IndexStatus:
        await drop_old(self._generations)
        return await self.status()

    def _rebuild(self, rebuild: Rebuild) -> pb.IndexRebuild:
        message = pb.IndexRebuild(
            rebuild_id=rebuild.rebuild_id,
            index=self._generations.name_of(rebuild.generation),
            step=_STEPS[rebuild.step],
            entries=rebuild.read + rebuild.current,
            expected_entries=2 * rebuild.expected,
            repaired_entries=rebuild.repaired,
            refused_entries=rebuild.left_out,
            digest=rebuild.digest,
            trouble=rebuild.trouble,
        )
        message.start_time.FromMilliseconds(int(rebuild.started * 1000))
        if rebuild.ended:
            message.end_time.FromMilliseconds(int(rebuild.ended * 1000))
        return message
