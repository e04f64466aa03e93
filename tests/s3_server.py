"""A real S3 server on loopback (SeaweedFS) that tests can kill and start again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from networking import free_ports

ACCESS_KEY, SECRET_KEY = "access-key", "no-file-may-hold-this-secret"
REGION = "us-east-1"
_SERVERS = ("master", "volume", "filer", "s3", "admin")


@dataclass
class S3Server:
    """One server over a folder; what it took in is there again after :meth:`kill` and :meth:`start`."""

    folder: Path
    ports: dict[str, int] = field(
        default_factory=lambda: dict(zip(_SERVERS, free_ports(len(_SERVERS)), strict=True))
    )
    process: subprocess.Popen[bytes] | None = None
    _client: Any = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to use it."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
        }

    def enter(self, monkeypatch: pytest.MonkeyPatch, address: str = "") -> None:
        """Point the environment at it, or at the address of a proxy in front of it."""
        from mlflow.store.artifact.s3_artifact_repo import _cached_get_s3_client

        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", address or self.address)
        # MLflow keeps its clients, and does not look at the address that they were made for.
        _cached_get_s3_client.cache_clear()

    def client(self) -> Any:
        """One for all who ask: making a client takes longer than what most ask it for."""
        import boto3

        if self._client is None:
            self._client = boto3.Session().client(
                "s3",
                endpoint_url=self.address,
                aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=SECRET_KEY,
                region_name=REGION,
            )
        return self._client

    def new_bucket(self) -> str:
        """Make a bucket of the caller's own and return its name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Every object's key below a prefix."""
        pages = (
            self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        )
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def start(self) -> None:
        """Start it and wait until it takes what is written to it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        command = [
            str(Path(sys.executable).with_name("weed")), "mini", f"-dir={self.folder}",
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={config}", "-admin.ui=false",
            "-webdav=false",
            *(f"-{name}.port={port}" for name, port in self.ports.items()),
            *(f"-{name}.port.grpc={port + 10000}" for name, port in self.ports.items()),
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self._wait_until_ready()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _wait_until_ready(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        client, deadline = self.client(), time.monotonic() + 60
        probe = "tevad-readiness"
        while True:
            try:
                if probe not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
                    client.create_bucket(Bucket=probe)
                client.put_object(Bucket=probe, Key="probe", Body=b"x")
                return
            except (BotoCoreError, ClientError):
                log = (self.folder / "log").read_text(errors="replace")[-2000:]
                assert self.process is not None
                assert self.process.poll() is None, log
                assert time.monotonic() < deadline, log
                time.sleep(0.2)
