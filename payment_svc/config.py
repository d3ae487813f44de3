"""The service's settings, each read from POLYMART_<NAME>."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from chassis.config import Address, PostgresUrl, ServiceConfig, url_of

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_SHORTEST_SECRET = 16

_sandbox_url = url_of("postgresql", "postgres", path=True)
_http_url = url_of("https", "http")


def _provider_url(text: str) -> str:
    try:
        (_http_url if text.startswith("http") else _sandbox_url)(text)
    except ValueError:
        raise ValueError("must be https://host:port, or postgresql://host:port/database for the sandbox") from None
    if text.startswith("http:") and urlsplit(text).hostname not in _LOOPBACK:
        raise ValueError("must be https: the API key travels with every call; http is for this machine alone")
    return text


class PaymentConfig(ServiceConfig):
    """`postgres_url`: this service's own database, with its role.

    `provider_url` says which provider moves the money: postgresql:// the sandbox in that database of its own, https://
    one that speaks HTTP. That one needs `provider_api_key`. Its webhooks are taken at `provider_webhook_address`,
    nowhere if that is empty, and signed with `provider_webhook_secret`.
    """

    postgres_url: PostgresUrl
    provider_url: Annotated[str, AfterValidator(_provider_url)]
    provider_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    """How long to wait for the provider's answer before its outcome counts as unknown."""
    provider_api_key: Annotated[SecretStr, Field(validate_default=True)] = SecretStr("")
    provider_webhook_address: Address | Literal[""] = ""
    provider_webhook_secret: Annotated[SecretStr, Field(validate_default=True)] = SecretStr("")

    @property
    def sandboxed(self) -> bool:
        return not self.provider_url.startswith("http")

    @field_validator("provider_api_key")
    @classmethod
    def _needed_over_http(cls, key: SecretStr, info: ValidationInfo) -> SecretStr:
        if str(info.data.get("provider_url", "")).startswith("http") and not key.get_secret_value():
            raise ValueError("is required by a provider over HTTP")
        return key

    @field_validator("provider_webhook_secret")
    @classmethod
    def _needed_for_webhooks(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        if info.data.get("provider_webhook_address") and len(secret.get_secret_value()) < _SHORTEST_SECRET:
            raise ValueError(f"must be at least {_SHORTEST_SECRET} characters where webhooks are taken")
        return secret
