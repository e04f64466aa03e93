"""The one setting of a team's database, against a real PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy
from networking import free_ports
from postgres_server import ADMIN, PASSWORD, TEAM, PostgresServer

from assets.workspace.database import VARIABLE, Database
from tevad_model.errors import InputError

ADDRESS = "postgresql://team:secret@db.example.org:5433/tevad"


def test_an_address_is_taken_apart() -> None:
    found = Database.parse(f"{ADDRESS}?sslmode=verify-full&sslrootcert=/etc/ca.pem")
    assert (found.user, found.password, found.name) == ("team", "secret", "tevad")
    assert (found.host, found.port) == ("db.example.org", 5433)
    assert found.tls == {"sslmode": "verify-full", "sslrootcert": "/etc/ca.pem"}
    assert Database.parse(ADDRESS.replace(":5433", "")).port == 5432


def test_an_address_says_special_characters_as_addresses_do() -> None:
    found = Database.parse("postgresql://te%20am:p%40ss%2Fw%25rd%3A%231@localhost/my%2Fdata")
    assert (found.user, found.password, found.name) == (TEAM, PASSWORD, "my/data")
    read = sqlalchemy.make_url(found.url("mlflow"))
    assert (read.username, read.password, read.database) == (TEAM, PASSWORD, "my/data")
    assert read.query["options"] == "-csearch_path=mlflow"
    assert read.get_driver_name() == "psycopg2"


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("mysql://team:secret@host/tevad", "not the address of a PostgreSQL database"),
        ("postgresql://team:secret@/tevad", "no host"),
        ("postgresql://team:secret@host", "no database"),
        ("postgresql://host/tevad", "no user, no password"),
        ("postgresql://team@host/tevad", "no password"),
        ("postgresql://team:secret@host:many/tevad", "no valid port"),
        ("postgresql://team:/secret@host/tevad", "no user, no password"),
        ("postgresql://team:x/secret@host/tevad", "no valid port"),
        ("postgresql://team:secret@host/tevad?options=-cx", "options cannot be set"),
        ("secret", "not the address of a PostgreSQL database"),
    ],
)
def test_what_cannot_be_understood_is_named_without_the_password(
    address: str, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as raised:
        Database.parse(address)
    assert VARIABLE in str(raised.value)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_no_setting_means_none_and_the_password_is_in_no_repr(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Database.of_environment() is None
    monkeypatch.setenv(VARIABLE, ADDRESS)
    found = Database.of_environment()
    assert found is not None
    assert "secret" not in repr(found)
    assert found.place == (f"PostgreSQL at db.example.org:5433, database tevad ({VARIABLE})")


def schemas(postgres: PostgresServer, name: str) -> set[str]:
    found = postgres.execute("SELECT nspname FROM pg_namespace", name)
    return {schema for (schema,) in found if schema in ("dagster", "mlflow")}


def test_schemas_are_made_once_however_many_come(postgres: PostgresServer) -> None:
    name = postgres.new_database()
    database = Database.parse(postgres.address(name))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(database.prepare, ["dagster", "mlflow"] * 8))
    assert schemas(postgres, name) == {"dagster", "mlflow"}


def test_schemas_made_by_another_do_for_one_who_may_make_none(postgres: PostgresServer) -> None:
    name = postgres.new_database()
    postgres.execute(f'ALTER DATABASE "{name}" OWNER TO {ADMIN}')
    database = Database.parse(postgres.address(name))
    with pytest.raises(InputError, match="permission denied"):
        database.prepare("mlflow")
    postgres.execute(f'CREATE SCHEMA mlflow AUTHORIZATION "{TEAM}"', name)
    database.prepare("mlflow")


def test_a_tool_sees_its_own_schema_alone(postgres: PostgresServer) -> None:
    database = Database.parse(postgres.address(postgres.new_database()))
    for schema in ("dagster", "mlflow"):
        database.prepare(schema)
        engine = sqlalchemy.create_engine(database.url(schema))
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE alembic_version (made_by TEXT)"))
        assert sqlalchemy.inspect(engine).get_table_names() == ["alembic_version"]
        engine.dispose()


def test_who_or_what_is_wrong_is_named_without_the_password(postgres: PostgresServer) -> None:
    name = postgres.new_database()
    [nobody] = free_ports(1)
    for address, complaint in {
        postgres.address(name, password="wrong"): "password authentication failed",
        postgres.address("absent"): 'database "absent" does not exist',
        f"postgresql://team:wrong@127.0.0.1:{nobody}/tevad": "Connection refused",
        "postgresql://team:wrong@host.invalid:5432/tevad": "could not translate host name",
    }.items():
        database = Database.parse(address)
        with pytest.raises(InputError, match=complaint) as raised:
            database.prepare("mlflow")
        said = str(raised.value)
        assert said.startswith(f"PostgreSQL at {database.host}:{database.port}, ")
        assert VARIABLE in said
        assert "wrong" not in said
        assert PASSWORD not in said
