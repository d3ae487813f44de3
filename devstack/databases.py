"""One database and one role for each service, and an auditor who may read them all and write none."""

import hashlib
import hmac
import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlsplit

import asyncpg

from devstack.engine import place
from devstack.errors import EngineError, reason
from devstack.home import Home
from devstack.postgres import Postgres

# The contexts whose store is PostgreSQL, and the payment provider, an outside firm with records of its own.
OWNERS = ("order", "inventory", "payment", "customer", "notification", "provider")
AUDITOR = "polymart_auditor"
_ITERATIONS = 4096


class Databases:
    """URLs of what ensure_databases() made: `databases["order"]`, `databases.auditor("order")`."""

    def __init__(self, urls: Mapping[str, str], auditors: Mapping[str, str]):
        self.urls = dict(urls)
        self.auditors = dict(auditors)

    def __getitem__(self, owner: str) -> str:
        """The owner's own URL: its role, its database."""
        return self.urls[owner]

    def auditor(self, owner: str) -> str:
        """The URL for reading the owner's database and nothing else."""
        return self.auditors[owner]


async def ensure_databases(admin_url: str, home: Home, owners: Iterable[str] = OWNERS) -> Databases:
    """Make what is missing of roles and databases on the server, with the passwords kept in the home.

    A role can connect to its own database alone. Idempotent. A server that serves another data folder is refused: its
    roles would get passwords that the stack there doesn't know. The administrator needs CREATEDB and CREATEROLE and,
    for the auditor, the right to grant pg_read_all_data. Raises EngineError.
    """
    owners = tuple(owners)
    names = [f"polymart_{owner}" for owner in owners]
    try:
        admin = await asyncpg.connect(admin_url, timeout=10, command_timeout=60)
        try:
            await _claim(admin, admin_url, home)
            for role in names:
                await _ensure_role(admin, role, admin_url, home)
            existing = {row["datname"] for row in await admin.fetch("SELECT datname FROM pg_database")}
            for name in names:
                if name not in existing:
                    # Membership lets an administrator who is no superuser hand the database over.
                    await admin.execute(f"GRANT {name} TO CURRENT_USER")
                    await admin.execute(f"CREATE DATABASE {name} OWNER {name} TEMPLATE template0 ENCODING 'UTF8'")
                await admin.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
                await admin.execute(f"GRANT CONNECT ON DATABASE {name} TO {AUDITOR}")
            await admin.execute(f"GRANT pg_read_all_data TO {AUDITOR}")
            await admin.execute(f"ALTER ROLE {AUDITOR} SET default_transaction_read_only = on")
        finally:
            await admin.close()
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        remedy = "give the administrator's role CREATEDB and CREATEROLE"
        raise EngineError("PostgreSQL", f"databases can't be made: {reason(error)}", remedy) from None
    return Databases(
        {owner: _url(admin_url, home, name, name) for owner, name in zip(owners, names, strict=True)},
        {owner: _url(admin_url, home, AUDITOR, name) for owner, name in zip(owners, names, strict=True)},
    )


async def _logs_in(url: str) -> bool:
    """Whether the server takes the role and its password, whatever it says to the rest."""
    try:
        await (await asyncpg.connect(url, timeout=10)).close()
    except asyncpg.InvalidAuthorizationSpecificationError:
        return False
    except (asyncpg.InvalidCatalogNameError, asyncpg.InsufficientPrivilegeError):
        pass
    return True


async def _claim(admin: "asyncpg.Connection[asyncpg.Record]", admin_url: str, home: Home) -> None:
    """Make the auditor, with a comment that says whose server this is. Raises EngineError if it is another's."""
    async with admin.transaction():
        await admin.execute("SELECT pg_advisory_xact_lock(hashtext($1))", AUDITOR)
        owned = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1"
        owner, _, folder = (await admin.fetchval(owned, AUDITOR) or home.identity).partition(" of ")
        if owner != home.identity:
            cause = f"the databases on {place(admin_url)} are those of another data folder, {folder}"
            give_up = f"if that is gone, give them up there with COMMENT ON ROLE {AUDITOR} IS NULL"
            remedy = f"name another server in {Postgres.variable}, or that folder in POLYMART_HOME, or, {give_up}"
            raise EngineError(Postgres.title, cause, remedy)
        await _ensure_role(admin, AUDITOR, admin_url, home)
        text = f"{home.identity} of {home.folder}".replace("'", "''")
        await admin.execute(f"COMMENT ON ROLE {AUDITOR} IS '{text}'")


async def _ensure_role(admin: "asyncpg.Connection[asyncpg.Record]", role: str, admin_url: str, home: Home) -> None:
    if await _logs_in(_url(admin_url, home, role, role)):
        return
    verb = "ALTER" if await admin.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role) else "CREATE"
    # Utility statements take no parameters, and a server may log them.
    await admin.execute(f"{verb} ROLE {role} LOGIN PASSWORD '{_verifier(home.password(f'role {role}'))}'")


def _verifier(password: str) -> str:
    """What the server keeps of an ASCII password (RFC 5803, as PostgreSQL writes it): it can't log anyone in."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = (b64encode(part).decode() for part in (salt, stored_key, server_key))
    return "SCRAM-SHA-256${}:{}${}:{}".format(_ITERATIONS, *encoded)


def _url(admin_url: str, home: Home, role: str, database: str) -> str:
    parts = urlsplit(admin_url)
    location = parts.netloc.rpartition("@")[2]
    password = quote(home.password(f"role {role}"), safe="")
    return parts._replace(netloc=f"{role}:{password}@{location}", path=f"/{database}").geturl()
