"""What the catalog's product types say of attributes, read now and then."""

from typing import TYPE_CHECKING

from polymart.catalog.v1.taxonomy_service_pb2 import ListProductTypesRequest

from chassis.rpc.client import RpcClient, translated
from search_svc.domain.facets import Definition, Definitions

if TYPE_CHECKING:  # the stubs know classes that the generated modules don't have
    from polymart.catalog.v1.taxonomy_service_pb2_grpc import TaxonomyServiceAsyncStub


class GrpcProductTypes:
    """`known` is what the last `refresh` read: without it, nothing. An attribute that several types define is a
    facet if one of them says so."""

    def __init__(self, taxonomy: "RpcClient[TaxonomyServiceAsyncStub]"):
        self.known: Definitions = {}
        self._taxonomy = taxonomy

    async def refresh(self) -> None:
        """Raises what a call to the catalog raises."""
        found: dict[str, Definition] = {}
        request = ListProductTypesRequest(page_size=500)
        while True:
            with translated("catalog_svc"):
                page = await self._taxonomy.stub.ListProductTypes(request)
            for type_ in page.product_types:
                for each in type_.attributes:
                    known = found.get(each.name, Definition(facet=False))
                    found[each.name] = Definition(known.facet or each.facet, known.unit or each.unit)
            if not page.next_page_token:
                self.known = found
                return
            request.page_token = page.next_page_token
