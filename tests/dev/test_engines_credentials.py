"""Credentials of the embedded PostgreSQL behind OpenBao's database engine: made and ended."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psycopg
import pytest

from broker.dev.engines.postgres import ORDERS_READ_CREATION, REVOCATION
from tests.dev.engines_world import (
    WAIT_SECONDS,
    Credential,
    Vault,
    as_admin,
    eventually,
    issue,
    login,
    mount_orders,
    revoke,
    role_exists,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.dev.engines import OpenBao, Postgres


@pytest.fixture(scope="module")
def vault(bao: OpenBao, postgres: Postgres) -> Iterator[Vault]:
    """OpenBao with the orders database mounted, as `broker dev` mounts it."""
    with Vault(bao) as vault:
        mount_orders(vault, postgres)
        yield vault


def test_revoking_ends_sessions_and_hands_objects_over(vault: Vault, postgres: Postgres) -> None:
    writer = issue(vault, "orders-write")
    with login(postgres, writer) as session, login(postgres, writer) as busy:
        session.execute("UPDATE orders SET status = 'paid' WHERE id = 1")
        session.execute("CREATE TABLE made_by_writer AS SELECT * FROM orders LIMIT 3")
        as_admin(postgres, f'GRANT TRUNCATE ON orders TO "{writer.username}"')
        # A transaction that holds the lock the hand-over needs.
        busy.execute("BEGIN")
        busy.execute("LOCK TABLE made_by_writer")

        revoke(vault, writer)

        for dead in (session, busy):
            with pytest.raises(psycopg.OperationalError):
                dead.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        login(postgres, writer).__enter__()
    assert not role_exists(postgres, writer.username)
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'made_by_writer'"
    assert as_admin(postgres, owner) == [("orders_owner",)]
    as_admin(postgres, "DROP TABLE made_by_writer")


def test_revoking_a_role_that_is_already_gone_succeeds(vault: Vault, postgres: Postgres) -> None:
    reader = issue(vault, "orders-read")
    as_admin(postgres, f'DROP ROLE "{reader.username}"')
    revoke(vault, reader)
    assert vault.ask("PUT", "sys/leases/lookup", lease_id=reader.lease).status_code == 400


def test_nobody_can_log_in_once_sessions_are_being_ended(vault: Vault, postgres: Postgres) -> None:
    writer = issue(vault, "orders-write")
    with login(postgres, writer) as session:
        session.execute("CREATE TABLE held (n integer)")

    def refused() -> bool:
        try:
            login(postgres, writer).__enter__().close()
        except psycopg.OperationalError as error:
            return "not permitted to log in" in str(error)
        return False

    revoking = threading.Thread(target=revoke, args=(vault, writer))
    with psycopg.connect(postgres.admin_dsn.reveal()) as holder:
        holder.execute("LOCK TABLE held")  # stops the revocation half-way, at the hand-over
        revoking.start()
        eventually(refused, "logins are refused while the role still exists")
        assert role_exists(postgres, writer.username)
    revoking.join(WAIT_SECONDS)
    assert not role_exists(postgres, writer.username)
    as_admin(postgres, "DROP TABLE held")


def test_revocation_returns_when_the_last_session_is_gone(postgres: Postgres) -> None:
    """Straight through PostgreSQL, to look the very moment after the last statement."""
    admin = Credential("", postgres.vault_username, postgres.vault_password.reveal())
    short_lived = Credential("", "v-short-lived", "password")
    with ExitStack() as stack:
        vault_admin = stack.enter_context(login(postgres, admin))
        for statement in ORDERS_READ_CREATION:
            vault_admin.execute(filled_in(statement, short_lived))
        sessions = [stack.enter_context(login(postgres, short_lived)) for _ in range(20)]
        vault_admin.execute("BEGIN")
        for statement in REVOCATION:
            vault_admin.execute(filled_in(statement, short_lived))
        left = vault_admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)",
            [[session.info.backend_pid for session in sessions]],
        ).fetchone()
        vault_admin.execute("COMMIT")
    assert left == (0,)


def filled_in(statement: str, who: Credential) -> bytes:
    """A statement as Vault fills it in."""
    for name, value in (
        ("name", who.username),
        ("password", who.password),
        ("expiration", "2100-01-01 00:00:00+00"),
    ):
        statement = statement.replace(f"{{{{{name}}}}}", value)
    return statement.encode()


def test_many_roles_made_and_ended_at_once(vault: Vault, postgres: Postgres) -> None:
    """Nothing they share is written, so they can't collide ("tuple concurrently updated")."""
    failures: list[BaseException] = []

    def live_and_die(role: str) -> None:
        try:
            for _ in range(5):
                credential = issue(vault, role)
                with login(postgres, credential):
                    revoke(vault, credential)
                assert not role_exists(postgres, credential.username)
        except BaseException as error:  # noqa: BLE001  carried to the test's own thread
            failures.append(error)

    threads = [
        threading.Thread(target=live_and_die, args=(role,))
        for role in ("orders-read", "orders-write") * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_reader_reads_orders_and_nothing_else(vault: Vault, postgres: Postgres) -> None:
    reader = issue(vault, "orders-read")
    with login(postgres, reader) as session:
        assert session.execute("SELECT count(*) FROM customers").fetchone() == (40,)
        for forbidden in (
            "DELETE FROM orders",
            "CREATE TABLE mine (n integer)",
            "SET ROLE orders_reader",
            "SET ROLE orders_owner",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(forbidden.encode())
    with pytest.raises(psycopg.OperationalError, match="CONNECT"):
        login(postgres, reader, "postgres").__enter__()
    revoke(vault, reader)


def test_vault_ends_no_sessions_but_those_of_its_roles(postgres: Postgres) -> None:
    as_admin(postgres, "CREATE ROLE app LOGIN PASSWORD 'app' IN ROLE orders_reader")
    admin = Credential("", postgres.vault_username, postgres.vault_password.reveal())
    app = Credential("", "app", "app")
    with login(postgres, admin) as vault_admin, login(postgres, app) as bystander:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            vault_admin.execute("SELECT pg_terminate_backend(%s)", [bystander.info.backend_pid])
        assert bystander.execute("SELECT 1").fetchone() == (1,)
