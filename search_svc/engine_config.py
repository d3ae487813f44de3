"""How the search engine is reached: by a URL, as a user or by an API key, over TLS. Each is POLYMART_ELASTICSEARCH_…"""

import ssl
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationInfo, field_validator

from chassis.config import HttpUrl, ServiceConfig
from search_svc.adapters.engine import Access


class EngineConfig(ServiceConfig):
    """`elasticsearch_url` may have user and password in it; else `elasticsearch_user` and `elasticsearch_password` are
    they, or `elasticsearch_api_key` stands for both, encoded as the engine gives it.

    Over https its certificate is checked against the system's authorities, or those in `elasticsearch_ca_file` (PEM);
    `elasticsearch_verify` false takes any, which is for a trial alone.
    """

    elasticsearch_url: HttpUrl
    elasticsearch_user: str = ""
    elasticsearch_password: SecretStr = SecretStr("")
    elasticsearch_api_key: SecretStr = SecretStr("")
    elasticsearch_verify: bool = True
    elasticsearch_ca_file: str = ""

    @property
    def access(self) -> Access:
        return Access(
            user=self.elasticsearch_user,
            password=self.elasticsearch_password.get_secret_value(),
            api_key=self.elasticsearch_api_key.get_secret_value(),
            verify=self.elasticsearch_verify,
            ca_file=self.elasticsearch_ca_file,
        )

    @field_validator("elasticsearch_user")
    @classmethod
    def _one_user(cls, user: str, info: ValidationInfo) -> str:
        if user and urlsplit(str(info.data.get("elasticsearch_url", ""))).username:
            raise ValueError("names a user, and the URL does so too")
        if ":" in user:
            raise ValueError("must not have a colon")
        return user

    @field_validator("elasticsearch_password")
    @classmethod
    def _of_the_user(cls, password: SecretStr, info: ValidationInfo) -> SecretStr:
        if password.get_secret_value() and info.data.get("elasticsearch_user") == "":
            raise ValueError("is a password without POLYMART_ELASTICSEARCH_USER")
        return password

    @field_validator("elasticsearch_api_key")
    @classmethod
    def _instead_of_a_user(cls, key: SecretStr, info: ValidationInfo) -> SecretStr:
        user = info.data.get("elasticsearch_user") or urlsplit(str(info.data.get("elasticsearch_url", ""))).username
        if key.get_secret_value() and user:
            raise ValueError("stands beside a user; say one of them")
        if any(c.isspace() or not c.isascii() for c in key.get_secret_value()):
            raise ValueError("must be the encoded key, in one line")
        return key

    @field_validator("elasticsearch_ca_file")
    @classmethod
    def _authorities(cls, file: str, info: ValidationInfo) -> str:
        if not file:
            return file
        if str(info.data.get("elasticsearch_url", "https:")).startswith("http:"):
            raise ValueError("is of no use over http")
        if info.data.get("elasticsearch_verify") is False:
            raise ValueError("is of no use where POLYMART_ELASTICSEARCH_VERIFY is false")
        try:
            ssl.create_default_context(cafile=file)
        except (OSError, ValueError):
            raise ValueError("must name a file of certificates (PEM) that can be read") from None
        return file
