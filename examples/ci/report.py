"""What the CI job runs: it finds a database in its environment, and knows nothing of the broker."""

from __future__ import annotations

import os

import psycopg

QUERY = "SELECT status, count(*) FROM orders GROUP BY status ORDER BY status"


def main() -> None:
    """Print how many orders there are, by status."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as database:
        for status, count in database.execute(QUERY):
            print(f"{status:10} {count}")


if __name__ == "__main__":
    main()
