"""The settings: which provider, and what it needs."""

import pytest

from chassis.config import ConfigError, load
from payment_svc.config import PaymentConfig

DATABASE = "postgresql://payment:secret@localhost:5432/payment"
SANDBOX = {"POLYMART_POSTGRES_URL": DATABASE, "POLYMART_PROVIDER_URL": "postgresql://firm:secret@localhost/provider"}
FIRM = {
    "POLYMART_POSTGRES_URL": DATABASE,
    "POLYMART_PROVIDER_URL": "https://api.firm.example/v1",
    "POLYMART_PROVIDER_API_KEY": "sk_live_secret",
}


def problems(environ: dict[str, str]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(PaymentConfig, environ)
    return dict(line.split(": ", 1) for line in caught.value.problems)


def test_the_scheme_says_which_provider() -> None:
    assert load(PaymentConfig, SANDBOX).sandboxed
    assert not load(PaymentConfig, FIRM).sandboxed
    assert not load(PaymentConfig, {**FIRM, "POLYMART_PROVIDER_URL": "http://127.0.0.1:8080"}).sandboxed


@pytest.mark.parametrize("url", ["http://api.firm.example", "https://", "ftp://x", "postgresql://host", "firm.example"])
def test_another_url_is_refused(url: str) -> None:
    assert problems({**FIRM, "POLYMART_PROVIDER_URL": url}).keys() == {"POLYMART_PROVIDER_URL"}


def test_everything_that_is_missing_or_wrong_is_named_at_once() -> None:
    bad = {
        "POLYMART_POSTGRES_URL": "mysql://x",
        "POLYMART_PROVIDER_URL": "https://api.firm.example",
        "POLYMART_PROVIDER_WEBHOOK_ADDRESS": "127.0.0.1:8080",
        "POLYMART_PROVIDER_WEBHOOK_SECRET": "too short",
        "POLYMART_PROVIDER_TIMEOUT_SECONDS": "0",
    }
    found = problems(bad)
    assert found.keys() == {"POLYMART_POSTGRES_URL", "POLYMART_PROVIDER_API_KEY", "POLYMART_PROVIDER_WEBHOOK_SECRET",
                            "POLYMART_PROVIDER_TIMEOUT_SECONDS"}  # fmt: skip
    assert "too short" not in str(found)
    assert problems({**bad, "POLYMART_PROVIDER_WEBHOOK_ADDRESS": "nowhere"}).keys() == {
        "POLYMART_POSTGRES_URL", "POLYMART_PROVIDER_API_KEY", "POLYMART_PROVIDER_WEBHOOK_ADDRESS",
        "POLYMART_PROVIDER_TIMEOUT_SECONDS",
    }  # fmt: skip


def test_no_secret_is_shown() -> None:
    config = load(PaymentConfig, {**FIRM, "POLYMART_PROVIDER_WEBHOOK_SECRET": "whsec_of_the_firm"})
    assert "sk_live" not in repr(config)
    assert "whsec" not in repr(config)
