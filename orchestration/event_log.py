"""Dagster's event log in SQLite, with connections that are kept.

Dagster's own storage opens each database anew for every statement and closes it again, upon which
SQLite folds its write-ahead log into the file: a quarter of what a run takes that has little to do.
The files are the same, and either reads what the other wrote.

Belongs here: how the databases are connected to. What is stored, and how, is Dagster's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Lock

from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    INDEX_SHARD_NAME,
    SqliteEventLogStorage,
)
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine


@dataclass
class _Kept:
    """A database's engine, how many use it just now, and whether it is to be closed after them."""

    engine: Engine
    users: int = 0
    is_forgotten: bool = False

    def close_if_unused(self) -> None:
        if self.is_forgotten and not self.users:
            self.engine.dispose()


class KeptSqliteEventLogStorage(SqliteEventLogStorage):
    """Keeps the connections to the index of all runs and to the run that was last asked for.

    Args:
        base_dir: the folder of the databases, one of them a run's.
        inst_data: how Dagster makes the same storage in another process.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._kept: dict[str, _Kept] = {}
        self._keeping = Lock()
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(  # type: ignore[override]  # as Dagster does
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, str]
    ) -> KeptSqliteEventLogStorage:
        """The storage that ``dagster.yaml`` describes."""
        return cls(inst_data=inst_data, **config_value)

    def run_connection(self, run_id: str | None = None) -> AbstractContextManager[Connection]:
        """A transaction in a run's database, which is made if there is none."""
        return self._connection(str(run_id), super().run_connection(run_id))

    def index_connection(self) -> AbstractContextManager[Connection]:
        """A transaction in the database of what is asked about all runs."""
        return self._connection(INDEX_SHARD_NAME, super().index_connection())

    def has_table(self, table_name: str) -> bool:
        """Whether the index has a table; Dagster asks before it uses one that came later."""
        with self.index_connection() as connection:
            return bool(connection.dialect.has_table(connection, table_name))

    def wipe(self) -> None:
        """Forget all events."""
        self.dispose()
        super().wipe()

    def dispose(self) -> None:
        """Close the connections; the next to ask opens them again."""
        super().dispose()
        with self._keeping:
            self._forget(*self._kept)

    @contextmanager
    def _connection(
        self, shard: str, first: AbstractContextManager[Connection]
    ) -> Iterator[Connection]:
        with self._keeping:
            kept = self._opened(shard, first)
            kept.users += 1
        try:
            with kept.engine.begin() as connection:
                yield connection
        finally:
            with self._keeping:
                kept.users -= 1
                kept.close_if_unused()

    def _opened(self, shard: str, first: AbstractContextManager[Connection]) -> _Kept:
        if shard not in self._kept:
            with first:  # Dagster's own makes the database
                pass
            self._forget(*(each for each in self._kept if INDEX_SHARD_NAME not in (each, shard)))
            engine = create_engine(
                self.conn_string_for_shard(shard),
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
                pool_size=1,  # kept; threads that ask at once get others, which are not
                max_overflow=-1,
            )
            self._kept[shard] = _Kept(engine)
        return self._kept[shard]

    def _forget(self, *shards: str) -> None:
        for shard in shards:
            kept = self._kept.pop(shard)
            kept.is_forgotten = True
            kept.close_if_unused()
