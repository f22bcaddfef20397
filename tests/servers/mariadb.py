"""A MariaDB with a database ``stock``, made ready in a second or two."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pymysql

from broker.dev.engines.process import ENVIRONMENT, write_private
from tests.servers.server import Server

if TYPE_CHECKING:
    from pymysql.connections import Connection

ADMIN_PASSWORD: Final = "root-of-a-test"
_TABLES: Final = Path("/usr/share/mysql")
_ROOT: Final = "DELETE FROM global_priv WHERE User = 'root' AND Host <> '127.0.0.1';\n"
_PASSWORD: Final = f"ALTER USER root@'127.0.0.1' IDENTIFIED BY '{ADMIN_PASSWORD}';\n"
_STOCK: Final = """\
CREATE DATABASE stock;
CREATE TABLE stock.items (name VARCHAR(40) PRIMARY KEY, pieces INTEGER NOT NULL);
INSERT INTO stock.items VALUES ('bolt', 12), ('gear', 7);
"""


class MariaDB(Server):
    """A server of Debian's package ``mariadb-server``."""

    name = "MariaDB"
    program = "mariadbd"
    package = "mariadb-server"

    @property
    def _mark(self) -> str:
        return f"--datadir={self.home / 'data'}"

    def _launch(self) -> None:
        fresh = not (self.home / "data").exists()
        self.own("data")
        stock = self.home / "stock.sql"
        if fresh:
            self._bootstrap()
            write_private(stock, _PASSWORD + _STOCK)
            stock.chmod(0o644)
        argv = [
            *(str(self.found(self.program)), "--no-defaults", self._mark),
            *("--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve"),
            *("--socket=mariadb.sock", "--innodb-buffer-pool-size=8M"),
            *([f"--init-file={stock}"] if fresh else []),
        ]
        self._spawn(argv)
        self._wait_until(lambda: "ready for connections" in self._output(), "ready")

    def _bootstrap(self) -> None:
        """Make the tables of the server itself, as its ``mariadb-install-db`` does, but no help."""
        files = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")
        tables = "".join((_TABLES / name).read_text("utf-8") for name in files)
        argv = [str(self.found(self.program)), "--no-defaults", "--bootstrap", self._mark]
        argv += ["--innodb-log-file-size=4M", "--innodb-flush-log-at-trx-commit=0"]
        command, options = self._confine(argv)
        subprocess.run(
            command,
            input=f"CREATE DATABASE mysql;\nUSE mysql;\n{tables}{_ROOT}",
            text=True,
            check=True,
            capture_output=True,
            env=ENVIRONMENT,
            timeout=60,
            **options,
        )

    def as_admin(self, script: str) -> None:
        """Run a script as its admin would: with the server's own command line client."""
        subprocess.run(
            [
                *(str(self.found("mariadb")), "--no-defaults", "--user=root", "--protocol=tcp"),
                *("--host=127.0.0.1", f"--port={self.port}"),
            ],
            input=script,
            text=True,
            check=True,
            capture_output=True,
            env=ENVIRONMENT | {"MYSQL_PWD": ADMIN_PASSWORD},
            timeout=60,
        )

    def login(self, user: str, password: str, database: str = "stock") -> Connection[Any]:
        """Log in; ``pymysql.err.OperationalError`` if the server doesn't let that user in."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=password,
            database=database,
            autocommit=True,
            connect_timeout=10,
            read_timeout=10,
        )

    def accounts(self) -> set[str]:
        """The accounts Vault has made."""
        return self._column("SELECT User FROM mysql.global_priv WHERE User LIKE 'v-%'")

    def sessions(self) -> set[str]:
        """Whose sessions are open."""
        return self._column("SELECT DISTINCT User FROM information_schema.PROCESSLIST")

    def at_work(self) -> set[str]:
        """Whose statements are running."""
        return self._column(
            "SELECT DISTINCT User FROM information_schema.PROCESSLIST WHERE Command = 'Query'"
        )

    def _column(self, query: str) -> set[str]:
        root = self.login("root", ADMIN_PASSWORD, "mysql")
        with root as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return {str(row[0]) for row in cursor.fetchall()}
