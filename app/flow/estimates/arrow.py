"""A query's rows into an Arrow file: run as a module, in a process of its own (see bulk.py).

It imports nothing but the drivers, since importing is a third of what it does.
"""

import json
import sys


def main() -> None:
    """Read {backend, database, query, file} from standard input; the file is written uncompressed."""
    asked = json.load(sys.stdin)
    if asked["backend"] == "sqlite":
        from adbc_driver_sqlite.dbapi import connect
    else:
        from adbc_driver_postgresql.dbapi import connect
    with connect(asked["database"]) as connection, connection.cursor() as cursor:
        if asked["backend"] == "sqlite":
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": "65536"})
        cursor.execute(asked["query"])
        cursor.fetch_polars().write_ipc(asked["file"], compression="uncompressed")


if __name__ == "__main__":
    main()
