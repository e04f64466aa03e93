"""The team's bucket: its addresses, DVC's remote, and the proof that it works, on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from dvc.repo import Repo
from networking import free_ports
from projects import holding
from s3_server import SECRET_KEY, S3Server

from assets.workspace.project import Project
from assets.workspace.storage import VARIABLE, Storage
from assets.workspace.tracking import Tracking
from tevad_model.errors import InputError, SourceRefusedError, SourceUnreachableError


@pytest.mark.parametrize("prefix", ["", "/", "/team/a", "/team/a/"])
def test_each_use_has_an_address_below_the_prefix(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"s3://bucket{prefix}")
    storage = Storage.required()
    root = f"s3://bucket{prefix.rstrip('/')}"
    assert (storage.dvc, storage.mlflow, storage.videos) == (
        f"{root}/dvc",
        f"{root}/mlflow",
        f"{root}/videos",
    )


@pytest.mark.parametrize("address", ["bucket/prefix", "s3:///prefix", "https://host/bucket"])
def test_what_is_no_address_is_told_by_the_variable(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, address)
    with pytest.raises(InputError, match=f"{VARIABLE}: {address}: no bucket"):
        Storage.of_environment()


def test_without_the_variable_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Storage.of_environment() is None
    with pytest.raises(InputError, match=f"{VARIABLE} is not set"):
        Storage.required()


def test_new_experiments_keep_their_artifacts_in_the_bucket(
    project_root: Path, storage: Storage, s3_server: S3Server
) -> None:
    project = Project.at(project_root)
    with Tracking.of(project).start_run("site", "a run", {}) as log:
        log.artifact(project_root / "params.yaml", "settings")
    [key] = s3_server.keys(storage.bucket)
    assert key == f"team/mlflow/site/{log.run_id}/artifacts/settings/params.yaml"


def test_dvc_pushes_to_the_bucket_after_use(
    project_root: Path, storage: Storage, s3_server: S3Server
) -> None:
    storage.use_for_dvc(Project.at(project_root))
    (project_root / "file").write_bytes(b"bytes")
    with Repo(str(project_root)) as repo:
        repo.add(str(project_root / "file"))
        assert repo.push() == 1
    [key] = s3_server.keys(storage.bucket)
    assert key.startswith("team/dvc/files/md5/")
    assert holding(project_root, SECRET_KEY) == []


def test_use_is_idempotent_and_keeps_other_settings(project_root: Path, storage: Storage) -> None:
    config = project_root / ".dvc" / "config"
    config.write_text(
        "[core]\n    autostage = true\n['remote \"storage\"']\n    url = s3://old\n    jobs = 2\n"
    )
    project = Project.at(project_root)
    assert not storage.is_used_for_dvc(project)
    storage.use_for_dvc(project)
    once = config.read_text()
    storage.use_for_dvc(project)
    assert config.read_text() == once
    assert storage.is_used_for_dvc(project)
    with Repo(str(project_root)) as repo:
        assert repo.config["core"]["autostage"]
        assert repo.config["core"]["remote"] == "storage"
        assert repo.config["remote"]["storage"]["url"] == storage.dvc
        assert repo.config["remote"]["storage"]["jobs"] == 2


def test_a_remote_that_holds_credentials_is_refused(project_root: Path, storage: Storage) -> None:
    config = project_root / ".dvc" / "config"
    config.write_text("['remote \"storage\"']\n    url = s3://old\n    secret_access_key = hush\n")
    with pytest.raises(
        InputError, match=r"holds secret_access_key, and the file is in git"
    ) as told:
        storage.use_for_dvc(Project.at(project_root))
    assert "hush" not in str(told.value)


def test_an_endpoint_with_a_password_is_refused(
    project_root: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:hush@127.0.0.1:1")
    with pytest.raises(InputError, match="AWS_ENDPOINT_URL: holds a user or password") as told:
        storage.use_for_dvc(Project.at(project_root))
    assert "hush" not in str(told.value)


def test_the_check_leaves_nothing(storage: Storage, s3_server: S3Server) -> None:
    for address in (storage.dvc, storage.mlflow, storage.videos):
        storage.check(address)
    assert s3_server.keys(storage.bucket) == []


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody", "no such access key; check AWS_ACCESS_KEY_ID"),
        ("AWS_SECRET_ACCESS_KEY", "not-the-secret", "check AWS_SECRET_ACCESS_KEY"),
        ("AWS_SECRET_ACCESS_KEY", "", "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (VARIABLE, "s3://no-such-bucket/x", "s3://no-such-bucket/x/dvc: listing: no such bucket"),
        (VARIABLE, "s3://no such bucket/x", "no name of a bucket"),
        ("AWS_PROFILE", "nobody", "no such profile; check AWS_PROFILE"),
    ],
)
def test_a_refusal_names_the_variable(
    variable: str, value: str, said: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    storage = Storage.required()
    with pytest.raises(SourceRefusedError) as told:
        storage.check(storage.dvc)
    assert said in str(told.value)
    assert "not-the-secret" not in str(told.value)


def test_a_server_that_is_not_there_may_yet_answer(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(SourceUnreachableError, match="does not answer") as told:
        storage.check(storage.dvc)
    assert not isinstance(told.value, SourceRefusedError)


def test_no_address_as_endpoint_is_told(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")
    with pytest.raises(InputError, match=r"AWS_ENDPOINT_URL: '127.0.0.1:9000' is no address"):
        storage.check(storage.dvc)
