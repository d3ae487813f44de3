"""The connection to Elasticsearch or OpenSearch."""

import base64
import contextlib
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from elastic_transport import AiohttpHttpNode, HttpHeaders
from elastic_transport.client_utils import DEFAULT, DefaultType
from elasticsearch import ApiError, AsyncElasticsearch, BadRequestError, TransportError

from chassis.errors import Internal, Unavailable
from search_svc.adapters.features import Features, features_of
from search_svc.application.ports import IndexMissing

_VENDOR_TYPE = re.compile(r"application/vnd\.elasticsearch\+([a-z0-9-]+)\s*;\s*compatible-with=\d+")


class CompatibleNode(AiohttpHttpNode):
    """Lets the client talk to OpenSearch too: it would send Elasticsearch's own media types, and refuse a server that
    doesn't name itself Elasticsearch."""

    async def perform_request(  # type: ignore[no-untyped-def, override]
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: DefaultType | float | None = DEFAULT,
    ):
        sent = HttpHeaders(headers or {})
        for name in ("accept", "content-type"):
            if name in sent:
                sent[name] = _VENDOR_TYPE.sub(r"application/\1", sent[name])
        response = await super().perform_request(method, target, body, sent, request_timeout)
        response.meta.headers = HttpHeaders({**response.meta.headers, "x-elastic-product": "Elasticsearch"})
        return response


@dataclass(frozen=True, slots=True)
class Access:
    """As whom an engine is asked, where its URL doesn't say, and whose certificates it may have: the system's
    authorities', or those of the authorities in `ca_file`."""

    user: str = ""
    password: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)
    verify: bool = True
    ca_file: str = ""

    def options(self, url: str) -> dict[str, Any]:
        """As the client wants them. Left to itself, it would check no certificate's name."""
        found: dict[str, Any] = {}
        parts = urlsplit(url)
        if parts.username or self.user:
            login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            if self.user:
                login = f"{self.user}:{self.password}"
            found["basic_auth"] = base64.b64encode(login.encode()).decode()
        if self.api_key:
            found["api_key"] = self.api_key
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            found["ssl_context"] = context
        return found


class Engine:
    """A client that connects when first used. Every use goes through `translated`."""

    def __init__(self, url: str, access: Access | None = None, *, timeout: float = 10.0):
        self._url = url
        self._access = access or Access()
        self._timeout = timeout
        self._client: AsyncElasticsearch | None = None
        self._features: Features | None = None

    async def open(self) -> None:
        # No retries here: a write sent twice would conflict with itself. Callers retry what they have read again.
        self._client = AsyncElasticsearch(
            _bare(self._url),
            node_class=CompatibleNode,
            request_timeout=self._timeout,
            max_retries=0,
            retry_on_timeout=False,
            dead_node_backoff_factor=0,
            **self._access.options(self._url),
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    @property
    def client(self) -> AsyncElasticsearch:
        if self._client is None:
            raise Unavailable("the search engine isn't connected")
        return self._client

    async def create_index(
        self, name: str, properties: Mapping[str, Any], *aliases: str, analysis: Mapping[str, Any] | None = None
    ) -> bool:
        """An index and its aliases, made in one call, so that whoever comes first wins; False if it was there. Raises
        Unavailable."""
        with translated():
            try:
                await self.client.indices.create(
                    index=name,
                    aliases={alias: {} for alias in aliases},
                    settings={
                        "number_of_shards": 1,
                        "auto_expand_replicas": "0-1",
                        "refresh_interval": "1s",
                        "analysis": analysis or {},
                    },
                    mappings={"dynamic": "strict", "properties": properties},
                )
            except BadRequestError as error:
                if error.error != "resource_already_exists_exception":
                    raise
                return False
        return True

    async def features(self) -> Features:
        """What it can do; asked once. Raises Unavailable."""
        if self._features is None:
            with translated():
                self._features = features_of((await self.client.info()).body)
        return self._features


def _bare(url: str) -> str:
    """Without user and password, and with the port, which the client wants said."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].removesuffix(":")
    port = "" if parts.port else ":443" if parts.scheme == "https" else ":80"
    return parts._replace(netloc=host + port).geturl()


def is_outage(status: int) -> bool:
    """Does an answer of this status say nothing about the request itself? A key that expired or an index that is
    blocked will be mended, and then the same request is right."""
    return status in (401, 403, 408, 429) or status >= 500


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raises Unavailable for what isn't the request's fault, IndexMissing, and Internal for what else is refused."""
    try:
        yield
    except TransportError as error:
        raise Unavailable(f"the search engine can't be reached: {error.message}") from error
    except ApiError as error:
        if "index_not_found_exception" in str(error.body):
            raise IndexMissing from error
        if is_outage(error.status_code):
            raise Unavailable(f"the search engine answers {error.status_code}") from error
        raise Internal(f"the search engine refuses the request: {error}") from error
