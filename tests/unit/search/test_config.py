"""The settings: where the engine is and as whom it is asked."""

from pathlib import Path

import pytest
import trustme

from chassis.config import ConfigError, load
from search_svc.adapters.engine import Access
from search_svc.engine_config import EngineConfig

PLAIN = {"POLYMART_ELASTICSEARCH_URL": "http://engine:9200"}
SECURE = {"POLYMART_ELASTICSEARCH_URL": "https://engine:9200"}


def problems(environ: dict[str, str]) -> set[str]:
    with pytest.raises(ConfigError) as caught:
        load(EngineConfig, environ)
    assert "s3cret" not in str(caught.value)
    return {line.split(": ", 1)[0].removeprefix("POLYMART_ELASTICSEARCH_") for line in caught.value.problems}


def told(base: dict[str, str], **settings: str) -> dict[str, str]:
    return {**base, **{f"POLYMART_ELASTICSEARCH_{name}": value for name, value in settings.items()}}


def test_nothing_but_a_url_is_needed() -> None:
    assert load(EngineConfig, PLAIN).access == Access()


def test_a_user_an_api_key_or_authorities(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    user = load(EngineConfig, told(PLAIN, USER="search", PASSWORD="s3cret")).access
    assert user == Access(user="search", password="s3cret")
    key = load(EngineConfig, told(SECURE, API_KEY="s3cret", CA_FILE=str(ca_file))).access
    assert key == Access(api_key="s3cret", ca_file=str(ca_file))
    assert load(EngineConfig, told(SECURE, VERIFY="false")).access == Access(verify=False)
    assert "s3cret" not in repr(user) + repr(key)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, {"URL"}),
        (told(PLAIN, URL="http://u:p@engine:9200", USER="search"), {"USER"}),
        (told(PLAIN, USER="a:b"), {"USER"}),
        (told(PLAIN, PASSWORD="s3cret"), {"PASSWORD"}),
        (told(PLAIN, USER="search", API_KEY="s3cret"), {"API_KEY"}),
        (told(PLAIN, URL="http://u:p@engine:9200", API_KEY="s3cret"), {"API_KEY"}),
        (told(PLAIN, API_KEY="s3cret\nand more"), {"API_KEY"}),
        (told(PLAIN, CA_FILE=__file__), {"CA_FILE"}),
        (told(SECURE, CA_FILE=__file__), {"CA_FILE"}),
        (told(SECURE, CA_FILE="/nowhere"), {"CA_FILE"}),
        (told(SECURE, CA_FILE=__file__, VERIFY="false"), {"CA_FILE"}),
        (told(SECURE, VERIFY="perhaps"), {"VERIFY"}),
    ],
)
def test_what_makes_no_sense_is_refused(environ: dict[str, str], named: set[str]) -> None:
    assert problems(environ) == named


def test_every_bad_setting_is_named_at_once() -> None:
    bad = told(PLAIN, URL="ftp://x", USER="a:b", VERIFY="perhaps", API_KEY="s3cret s3cret", CA_FILE="/nowhere")
    assert problems(bad) == {"URL", "USER", "VERIFY", "API_KEY", "CA_FILE"}
