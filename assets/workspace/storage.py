"""The bucket that a team shares: one setting for the data, the artifacts and the videos.

``TEVAD_STORAGE=s3://bucket/prefix`` and the usual ``AWS_*`` variables say where DVC pushes to, where
MLflow's artifacts go and where raw videos may lie. Which of it is used how is the business of those
who do; here are the addresses, DVC's remote, and the proof that they work.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from assets.workspace import s3
from assets.workspace.project import Project
from tevad_model.errors import InputError

VARIABLE = "TEVAD_STORAGE"

REMOTE = "storage"
"""The name of DVC's remote."""

_CREDENTIALS = ("access_key_id", "secret_access_key", "session_token", "sse_customer_key")
"""What DVC would take from its configuration, which is kept in git."""

_ADDRESS = ("url", "endpointurl")
"""What of DVC's remote says where it is."""


@dataclass(frozen=True)
class Storage:
    """A prefix of a bucket, ``<prefix>/dvc``, ``<prefix>/mlflow`` and ``<prefix>/videos`` below it.

    Attributes:
        bucket: its name.
        prefix: without slashes around it; may be empty.
    """

    bucket: str
    prefix: str

    @classmethod
    def of_environment(cls) -> Storage | None:
        """What ``TEVAD_STORAGE`` names; None if it is not set.

        Raises:
            InputError: if it is no address of a bucket.
        """
        named = os.environ.get(VARIABLE)
        if not named:
            return None
        try:
            return cls(*s3.split(named))
        except InputError as error:
            raise InputError(f"{VARIABLE}: {error}") from None

    @classmethod
    def required(cls) -> Storage:
        """What ``TEVAD_STORAGE`` names.

        Raises:
            InputError: if it is not set, or no address of a bucket.
        """
        storage = cls.of_environment()
        if storage is None:
            raise InputError(f"{VARIABLE} is not set; set it to s3://bucket/prefix")
        return storage

    @property
    def dvc(self) -> str:
        """Where ``dvc push`` puts the data."""
        return self._below("dvc")

    @property
    def mlflow(self) -> str:
        """Where MLflow's artifacts go: an experiment's in a folder of its name."""
        return self._below("mlflow")

    @property
    def videos(self) -> str:
        """Where a team may keep its raw videos, a folder a dataset."""
        return self._below("videos")

    def use_for_dvc(self, project: Project) -> None:
        """Make it the default remote, ``storage``, in ``.dvc/config``; other settings of it stay.

        Raises:
            InputError: if the project is no DVC repository, or its remote holds credentials.
        """
        with _explained(project), _dvc_config(project).edit("repo") as config:
            remote = config["remote"].get(REMOTE, {})
            if held := [key for key in _CREDENTIALS if key in remote]:
                raise InputError(
                    f"{project.root}/.dvc/config: the remote {REMOTE!r} holds {', '.join(held)}, "
                    "and the file is in git; take it out and set the AWS_* variables"
                )
            others = {key: remote[key] for key in remote if key not in _ADDRESS}
            config["remote"][REMOTE] = {**self._remote(), **others}
            config["core"]["remote"] = REMOTE

    def is_used_for_dvc(self, project: Project) -> bool:
        """Whether DVC's default remote is this one, at the endpoint that is set now."""
        with _explained(project):
            config = _dvc_config(project).read()
        kept, wanted = config["remote"].get(REMOTE, {}), self._remote()
        return config["core"].get("remote") == REMOTE and all(
            kept.get(key) == wanted.get(key) for key in _ADDRESS
        )

    def check(self, address: str) -> None:
        """List, write, read and delete a small object below an address of it.

        Raises:
            SourceRefusedError: if the server refuses one of them; the message says which and why.
            SourceUnreachableError: if it does not answer.
            InputError: if a setting is wrong, or what was written is not what is read.
        """
        s3.reach(address)  # first: some servers make a missing bucket when it is written to
        _, prefix = s3.split(address)
        client, content = s3.client(), uuid.uuid4().hex.encode()
        probe = {"Bucket": self.bucket, "Key": f"{prefix}/.check-{uuid.uuid4().hex}"}
        with s3.told(f"{address}: writing"):
            client.put_object(**probe, Body=content)
        with s3.told(f"{address}: reading"):
            read = client.get_object(**probe)["Body"].read()
        with s3.told(f"{address}: deleting"):
            client.delete_object(**probe)
        if read != content:
            raise InputError(f"{address}: gives back other bytes than it was given; is it a cache?")

    def _below(self, use: str) -> str:
        return s3.SCHEME + "/".join(part for part in (self.bucket, self.prefix, use) if part)

    def _remote(self) -> dict[str, Any]:
        named = s3.endpoint()
        return {
            "url": self.dvc,
            **({"endpointurl": named} if named else {}),
            "connect_timeout": s3.CONNECT_SECONDS,
            "read_timeout": s3.READ_SECONDS,
            # By default DVC takes a body that was cut on the way for the whole object.
            "verify": True,
        }


def _dvc_config(project: Project) -> Any:
    from dvc.config import Config

    folder = project.root / ".dvc"
    if not folder.is_dir():
        raise InputError(f"{project.root}: not a DVC repository; run `dvc init` there")
    return Config(str(folder), validate=False)


@contextmanager
def _explained(project: Project) -> Iterator[None]:
    from dvc.config import ConfigError

    try:
        yield
    except ConfigError as error:
        raise InputError(f"{project.root / '.dvc' / 'config'}: {error}") from None
