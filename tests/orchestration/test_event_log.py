"""Dagster's event log with kept connections: the same files as Dagster's own, read by either."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from orchestration.event_log import KeptSqliteEventLogStorage
from orchestration.instance import open_instance


@dg.asset
def site() -> None:
    pass


def materialized(instance: dg.DagsterInstance) -> str:
    return dg.materialize([site], instance=instance).run_id


def log_of(instance: dg.DagsterInstance) -> KeptSqliteEventLogStorage:
    storage = instance.event_log_storage
    assert isinstance(storage, KeptSqliteEventLogStorage)
    return storage


def folder(root: Path) -> Path:
    return root / ".tevad" / "dagster" / "history" / "runs"


def opened(root: Path) -> set[str]:
    """The databases of the log that this process has open."""
    files = [descriptor.resolve() for descriptor in Path("/proc/self/fd").iterdir()]
    return {path.name for path in files if path.parent == folder(root) and path.suffix == ".db"}


def test_dagsters_own_storage_reads_what_was_logged(project_root: Path) -> None:
    with open_instance() as instance:
        runs = [materialized(instance) for _ in range(2)]
        logged = [log_of(instance).get_logs_for_run(run) for run in runs]
        [record] = log_of(instance).get_asset_records([site.key])
    own = SqliteEventLogStorage(str(folder(project_root)))
    assert [own.get_logs_for_run(run) for run in runs] == logged
    assert all(logged)
    assert own.get_asset_records([site.key]) == [record]
    assert record.asset_entry.last_run_id == runs[-1]


def test_the_tables_of_the_index_are_known(project_root: Path) -> None:
    with open_instance() as instance:
        log = log_of(instance)
        assert log.has_table("asset_check_executions")
        assert not log.has_table("nothing_of_the_kind")


def test_what_dagsters_own_storage_adds_is_seen(project_root: Path) -> None:
    own = SqliteEventLogStorage(str(folder(project_root)))
    with open_instance() as instance:
        run, log = materialized(instance), log_of(instance)
        logged = list(log.get_logs_for_run(run))
        own.store_event(logged[0])
        assert log.get_logs_for_run(run) == [*logged, logged[0]]


def test_the_index_and_one_run_are_kept_open_and_nothing_afterwards(project_root: Path) -> None:
    with open_instance() as instance:
        last = [materialized(instance) for _ in range(3)][-1]
        assert opened(project_root) == {"index.db", f"{last}.db"}
    assert not opened(project_root)


def test_threads_that_log_at_once_lose_nothing(project_root: Path) -> None:
    with open_instance() as instance:
        log = log_of(instance)
        entry = log.get_logs_for_run(materialized(instance))[0]
        runs, times = [f"run-{number}" for number in range(4)], 20

        def store(run: str) -> None:
            for _ in range(times):
                log.store_event(entry._replace(run_id=run))

        with ThreadPoolExecutor(2 * len(runs)) as threads:
            list(threads.map(store, [*runs, *runs]))
        assert [len(log.get_logs_for_run(run)) for run in runs] == [2 * times] * len(runs)
        assert opened(project_root) == {"index.db", f"{runs[-1]}.db"}


def test_wiped_it_is_empty_and_goes_on(project_root: Path) -> None:
    with open_instance() as instance:
        log, before = log_of(instance), materialized(instance)
        log.wipe()
        assert not log.get_logs_for_run(before)
        assert not log.get_asset_records([site.key])
        assert log.get_logs_for_run(materialized(instance))
