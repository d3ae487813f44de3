"""Configuration from the environment: every setting is POLYMART_<NAME>, and every bad one is named at once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "POLYMART_"
_KEY_LENGTH = 32


class ConfigError(Exception):
    """`problems` has one line for each bad variable: its name and what is wrong with it, never its value, which may
    hold a password."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def url_of(*schemes: str, path: bool = False) -> Callable[[str], str]:
    """A check for a URL of one of `schemes`; with `path` it names a database. It raises ValueError."""

    def check(text: str) -> str:
        wanted = f"{schemes[0]}://host:port{'/database' if path else ''}"
        try:
            parts = urlsplit(text)
            # A MongoDB URL may name several hosts, which urlsplit takes for a bad port.
            ports_fine = "," in parts.netloc or parts.port is None or parts.port > 0
        except ValueError:
            raise ValueError(f"must be {wanted}") from None
        host = parts.netloc.rpartition("@")[2]
        if parts.scheme not in schemes or not host.split(":")[0] or not ports_fine or _has_space(text):
            raise ValueError(f"must be {wanted}")
        if path and not parts.path.strip("/"):
            raise ValueError(f"must be {wanted}; it names no database")
        return text

    return check


def _address(text: str) -> str:
    host, separator, port = text.rpartition(":")
    bare_ipv6 = ":" in host and not host.startswith("[")
    valid = host and separator and port.isascii() and port.isdigit() and int(port) < 65536
    if not valid or bare_ipv6 or "/" in host or _has_space(text):
        raise ValueError("must be host:port")
    return text


def _token_key(text: str) -> str:
    if len(text) < _KEY_LENGTH:
        raise ValueError(f"must have at least {_KEY_LENGTH} characters, which nobody can guess")
    return text


def _has_space(text: str) -> bool:
    return any(c.isspace() for c in text)


PostgresUrl = Annotated[str, AfterValidator(url_of("postgresql", "postgres", path=True))]
MongoUrl = Annotated[str, AfterValidator(url_of("mongodb", "mongodb+srv"))]
HttpUrl = Annotated[str, AfterValidator(url_of("http", "https"))]
NatsUrl = Annotated[str, AfterValidator(url_of("nats", "tls"))]
Address = Annotated[str, AfterValidator(_address)]
# What tokens are signed with, the same in all replicas of all services.
TokenKey = Annotated[str, AfterValidator(_token_key)]


class ServiceConfig(BaseSettings):
    """What every service is told. Made with keyword arguments it reads no environment; `load` does.

    Port 0 takes any free port; an empty `metrics_address` or `otlp_endpoint` turns that off. `nats_replicas`: how many
    servers of a NATS cluster keep each stream; one that got lost is made again so.
    `drain_seconds` bounds how long a stopping service finishes what it has in hand.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    grpc_address: Address = "127.0.0.1:0"
    metrics_address: Address | Literal[""] = ""
    nats_url: NatsUrl = "nats://127.0.0.1:4222"
    nats_replicas: int = Field(default=1, ge=1, le=5)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    otlp_endpoint: HttpUrl | Literal[""] = ""
    drain_seconds: float = Field(default=20, ge=0, le=600)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


C = TypeVar("C", bound=ServiceConfig)


def split_address(address: str) -> tuple[str, int]:
    """The host, without an IPv6 address's brackets, and the port of an `Address`."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def load(config_type: type[C], environ: Mapping[str, str] | None = None) -> C:
    """Settings from `environ`, by default the process's. An empty variable counts as unset.

    Variables that no setting has are ignored, since several services share an environment.
    Raises ConfigError.
    """
    source = EnvSettingsSource(config_type)
    if environ is not None:
        source.env_vars = {name.lower(): value for name, value in environ.items() if value}
    try:
        return config_type(**source())
    except ValidationError as error:
        bad: dict[str, str] = {}
        for fault in error.errors():
            bad.setdefault(f"{PREFIX}{str(fault['loc'][0]).upper()}", _reason(fault["type"], fault["msg"]))
        raise ConfigError([f"{name}: {reason}" for name, reason in bad.items()]) from None


def _reason(kind: str, message: str) -> str:
    if kind == "missing":
        return "is required"
    return message.removeprefix("Value error, ").replace("Input should", "should")
