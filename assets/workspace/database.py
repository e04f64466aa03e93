"""A team's PostgreSQL by one setting, ``TEVAD_DATABASE_URL``, for Dagster's storage and MLflow's backend.

Both keep a table ``alembic_version`` of their own, so each has a schema of its own in the one
database. Only how to reach it is here, never what is kept in it. The password is in the environment
alone: no file, message or ``repr`` has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from tevad_model.errors import InputError

VARIABLE = "TEVAD_DATABASE_URL"

SCHEME = "postgresql+psycopg2"
"""How SQLAlchemy is told of psycopg2; by ``postgresql`` alone it means another driver."""

Schema = Literal["dagster", "mlflow"]

_FORM = "write postgresql://user:password@host:port/database, special characters as %40 for @"
_DEFAULT_PORT = 5432
_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_CONNECT_SECONDS = "5"


@dataclass(frozen=True)
class Database:
    """A database of a PostgreSQL server and who we are to it.

    Attributes:
        tls: libpq's settings of encryption, such as ``sslmode``.
    """

    user: str
    password: str = field(repr=False)
    host: str
    port: int
    name: str
    tls: Mapping[str, str]

    @classmethod
    def of_environment(cls) -> Database | None:
        """What ``TEVAD_DATABASE_URL`` names; None where it is not set, and SQLite serves.

        Raises:
            InputError: if it cannot be understood.
        """
        address = os.environ.get(VARIABLE)
        return cls.parse(address) if address else None

    @classmethod
    def parse(cls, address: str) -> Database:
        """The database at ``postgresql://user:password@host:port/database[?sslmode=…]``.

        Raises:
            InputError: if a part is missing or not understood. It never quotes the address.
        """
        try:
            parts = urlsplit(address)
            port = parts.port or _DEFAULT_PORT
        except ValueError:  # quotes what may be a piece of the password
            raise InputError(f"{VARIABLE}: no valid port; {_FORM}") from None
        if parts.scheme not in ("postgresql", "postgres"):
            raise InputError(f"{VARIABLE}: not the address of a PostgreSQL database; {_FORM}")
        found = {
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "host": parts.hostname or "",
            "database": unquote(parts.path[1:]),
        }
        if missing := [part for part, value in found.items() if not value]:
            raise InputError(f"{VARIABLE}: no {', no '.join(missing)}; {_FORM}")
        tls = dict(parse_qsl(parts.query))
        if unknown := sorted(set(tls) - set(_TLS)):
            raise InputError(
                f"{VARIABLE}: {', '.join(unknown)} cannot be set; after ? go {', '.join(_TLS)}"
            )
        user, password, host, name = found.values()
        return cls(user, password, host, port, name, tls)

    @property
    def place(self) -> str:
        """Where it is, to be shown."""
        return f"PostgreSQL at {self.host}:{self.port}, database {self.name} ({VARIABLE})"

    def options(self, schema: Schema) -> dict[str, str]:
        """What a connection is opened with: encryption, patience, and the schema it works in."""
        patience = {"connect_timeout": _CONNECT_SECONDS}
        return {**self.tls, **patience, "options": f"-csearch_path={schema}"}

    def url(self, schema: Schema) -> str:
        """SQLAlchemy's address of a schema. It has the password: for libraries, never to be shown."""
        credentials = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        options = urlencode(self.options(schema), quote_via=quote)
        place = f"{self.host}:{self.port}/{quote(self.name, safe='')}"
        return f"{SCHEME}://{credentials}@{place}?{options}"

    def prepare(self, schema: Schema) -> None:
        """Make a schema if it is absent.

        Raises:
            InputError: if the server cannot be reached, refuses us, or the schema may not be made.
        """
        try:
            import psycopg2
            from psycopg2.sql import SQL, Identifier
        except ModuleNotFoundError:
            raise InputError(
                f"{VARIABLE} is set, but its driver is not installed; install the project with the extra `postgres`"
            ) from None
        try:
            connection = psycopg2.connect(
                user=self.user,
                password=self.password,
                host=self.host,
                port=self.port,
                dbname=self.name,
                **self.options(schema),
            )
            try:
                with connection, connection.cursor() as cursor:
                    # One at a time: of two that make a schema at once, one would fail.
                    cursor.execute("SELECT pg_advisory_xact_lock(hashtext('tevad'))")
                    cursor.execute("SELECT FROM pg_namespace WHERE nspname = %s", (schema,))
                    if cursor.rowcount == 0:
                        cursor.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
            finally:
                connection.close()
        except psycopg2.Error as error:
            raise self.failure(str(error)) from None

    def failure(self, reason: str) -> InputError:
        """The error to raise where it cannot be used."""
        told = " ".join(reason.split())
        return InputError(
            f"{self.place}: {told}; once it answers, run again: what was made is kept"
        )


@contextmanager
def losses_named(database: Database) -> Iterator[None]:
    """Turn what Dagster raises when its database goes into an error that names the database."""
    from dagster_postgres.utils import DagsterPostgresException
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DagsterPostgresException as error:
        raise database.failure(str(error.__cause__ or error)) from None
    except DBAPIError as error:
        raise database.failure(str(error.orig)) from None
