"""Settings from the environment."""

import pytest

from chassis.config import (
    Address,
    ConfigError,
    HttpUrl,
    MongoUrl,
    PostgresUrl,
    ServiceConfig,
    TokenKey,
    load,
    split_address,
)


class ShopConfig(ServiceConfig):
    postgres_url: PostgresUrl
    mongodb_url: MongoUrl
    elasticsearch_url: HttpUrl
    peer_address: Address
    order_deadline_seconds: int = 1800


GOOD = {
    "POLYMART_POSTGRES_URL": "postgresql://shop:secret@localhost:5432/shop",
    "POLYMART_MONGODB_URL": "mongodb://one:1,two:2/?replicaSet=rs",
    "POLYMART_ELASTICSEARCH_URL": "http://127.0.0.1:9200",
    "POLYMART_PEER_ADDRESS": "inventory-svc:5000",
}


def problems(environ: dict[str, str]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(ShopConfig, environ)
    assert str(caught.value).splitlines() == caught.value.problems
    return dict(line.split(": ", 1) for line in caught.value.problems)


def test_settings_come_from_their_variables() -> None:
    config = load(ShopConfig, {**GOOD, "POLYMART_ORDER_DEADLINE_SECONDS": "5", "POLYMART_LOG_LEVEL": "DEBUG"})
    assert config.postgres_url == GOOD["POLYMART_POSTGRES_URL"]
    assert (config.order_deadline_seconds, config.log_level, config.drain_seconds) == (5, "DEBUG", 20)


def test_every_bad_variable_is_named_at_once() -> None:
    bad = {
        "POLYMART_POSTGRES_URL": "mysql://localhost/shop",
        "POLYMART_MONGODB_URL": "localhost:27017",
        "POLYMART_ELASTICSEARCH_URL": "https://",
        "POLYMART_PEER_ADDRESS": "nowhere",
        "POLYMART_ORDER_DEADLINE_SECONDS": "soon",
        "POLYMART_GRPC_ADDRESS": "127.0.0.1:70000",
        "POLYMART_METRICS_ADDRESS": "9090",
        "POLYMART_NATS_URL": "http://localhost:4222",
        "POLYMART_LOG_LEVEL": "LOUD",
        "POLYMART_OTLP_ENDPOINT": "collector",
        "POLYMART_DRAIN_SECONDS": "-1",
    }
    assert problems(bad).keys() == bad.keys()


def test_what_is_missing_or_empty_is_required() -> None:
    found = problems({**GOOD, "POLYMART_POSTGRES_URL": "", "POLYMART_NATS_URL": ""})
    assert found == {"POLYMART_POSTGRES_URL": "is required"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:pass/word@localhost:5432/shop",
        "postgresql://shop:password@localhost:5432",
        "postgresql://shop:password@/shop",
        "postgresql://shop:password@localhost:port/shop",
        "postgresql://shop:pass word@localhost/shop",
    ],
)
def test_a_password_is_never_repeated(url: str) -> None:
    assert "pass" not in problems({**GOOD, "POLYMART_POSTGRES_URL": url})["POLYMART_POSTGRES_URL"]


def test_other_services_variables_are_ignored() -> None:
    load(ShopConfig, {**GOOD, "POLYMART_SMTP_ADDRESS": "nonsense"})


def test_made_by_hand_it_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYMART_LOG_LEVEL", "ERROR")
    assert ServiceConfig().log_level == "INFO"
    assert load(ServiceConfig).log_level == "ERROR"


def test_an_address_splits_into_host_and_port() -> None:
    assert split_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert split_address("[::1]:80") == ("::1", 80)


class SigningConfig(ServiceConfig):
    token_key: TokenKey


def test_a_key_that_could_be_guessed_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        load(SigningConfig, {"POLYMART_TOKEN_KEY": "secret"})
    assert caught.value.problems == ["POLYMART_TOKEN_KEY: must have at least 32 characters, which nobody can guess"]
    assert load(SigningConfig, {"POLYMART_TOKEN_KEY": "x" * 32}).token_key == "x" * 32
