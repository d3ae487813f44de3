"""One database and one role for each service; passwords are checked; an auditor only reads."""

import asyncio
from urllib.parse import urlsplit

import asyncpg
import pytest

from devstack.databases import OWNERS, ensure_databases
from devstack.engines import Engines
from tests.conftest import until


async def test_a_role_owns_its_database(engines: Engines) -> None:
    for owner in OWNERS:
        connection = await asyncpg.connect(engines.databases[owner])
        try:
            who = await connection.fetchrow("SELECT current_user, current_database()")
            assert tuple(who) == (f"polymart_{owner}", f"polymart_{owner}")
            await connection.execute("CREATE TABLE made (id int); DROP TABLE made; CREATE SCHEMA own; DROP SCHEMA own")
        finally:
            await connection.close()


async def test_a_role_cannot_open_another_ones_database(engines: Engines) -> None:
    for owner in OWNERS:
        for other in set(OWNERS) - {owner}:
            url = urlsplit(engines.databases[owner])._replace(path=f"/polymart_{other}").geturl()
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await asyncpg.connect(url)


@pytest.mark.parametrize("password", ["wrong", ""])
async def test_a_wrong_password_is_refused(engines: Engines, password: str) -> None:
    for url in (engines.databases["order"], engines.databases.auditor("order"), engines.postgres_admin_url):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url, password=password or "x")


async def test_the_server_is_durable_and_keeps_passwords_as_scram(engines: Engines) -> None:
    connection = await asyncpg.connect(engines.postgres_admin_url)
    try:
        assert await connection.fetchval("SHOW fsync") == "on"
        assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
        kept = await connection.fetch("SELECT rolpassword FROM pg_authid WHERE rolcanlogin")
        assert kept
        assert all(row["rolpassword"].startswith("SCRAM-SHA-256$") for row in kept)
        methods = await connection.fetch("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
        assert [row["auth_method"] for row in methods] == ["scram-sha-256"]
    finally:
        await connection.close()


async def test_no_statement_holds_a_password(engines: Engines) -> None:
    admin = await asyncpg.connect(engines.postgres_admin_url)
    try:
        await admin.execute("ALTER ROLE CURRENT_USER SET log_statement = 'ddl'")
        made = await ensure_databases(engines.postgres_admin_url, engines.home, ["logged"])
        await (await asyncpg.connect(made["logged"])).close()
        log = engines.home.log("postgres")
        await until(lambda: "CREATE ROLE polymart_logged" in log.read_text())
        assert engines.home.password("role polymart_logged") not in log.read_text()
    finally:
        await admin.execute("ALTER ROLE CURRENT_USER RESET log_statement")
        await admin.execute("DROP DATABASE IF EXISTS polymart_logged WITH (FORCE)")
        await admin.execute("DROP ROLE IF EXISTS polymart_logged")
        await admin.close()


async def test_the_auditor_reads_everything_and_writes_nothing(engines: Engines) -> None:
    owner = await asyncpg.connect(engines.databases["payment"])
    auditor = await asyncpg.connect(engines.databases.auditor("payment"))
    try:
        await owner.execute("CREATE TABLE audited (what text)")
        await owner.execute("INSERT INTO audited VALUES ('seen')")
        assert await auditor.fetchval("SELECT what FROM audited") == "seen"
        for statement in ("INSERT INTO audited VALUES ('x')", "DROP TABLE audited", "CREATE TABLE own ()"):
            # Not even after it has lifted its own default of read-only transactions.
            await auditor.execute("SET default_transaction_read_only = off")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await auditor.execute(statement)
        await owner.execute("DROP TABLE audited")
    finally:
        await asyncio.gather(owner.close(), auditor.close())


async def test_making_them_again_changes_nothing(engines: Engines) -> None:
    admin = await asyncpg.connect(engines.postgres_admin_url)
    try:
        # A password that is set again, to the same, still has another salt.
        before = await admin.fetch("SELECT rolname, rolpassword FROM pg_authid ORDER BY rolname")
        again = await ensure_databases(engines.postgres_admin_url, engines.home)
        assert await admin.fetch("SELECT rolname, rolpassword FROM pg_authid ORDER BY rolname") == before
    finally:
        await admin.close()
    assert again.urls == engines.databases.urls
    assert again.auditors == engines.databases.auditors


async def test_a_role_whose_password_was_changed_gets_its_own_back(engines: Engines) -> None:
    admin = await asyncpg.connect(engines.postgres_admin_url)
    try:
        await admin.execute("ALTER ROLE polymart_order PASSWORD 'another'; ALTER ROLE polymart_payment NOLOGIN")
    finally:
        await admin.close()
    await ensure_databases(engines.postgres_admin_url, engines.home)
    for owner in ("order", "payment"):
        await (await asyncpg.connect(engines.databases[owner])).close()


async def test_passwords_are_for_the_owner_of_the_folder_alone(engines: Engines) -> None:
    for name in ("passwords.json", "stack.json"):
        assert (engines.home.folder / name).stat().st_mode & 0o777 == 0o600
