"""S3 as the project uses it: a client with limits, and what went wrong in words with a remedy.

Endpoint, region and credentials come from the usual AWS chain and go nowhere else: not into a file,
a log or a message. Nothing here knows what the objects are for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tevad_model.errors import InputError, SourceRefusedError, SourceUnreachableError

SCHEME = "s3://"


class MissingObjectError(SourceRefusedError):
    """The bucket answers, and has no such object."""


CONNECT_SECONDS = 5
"""How long a server may take to take a connection."""

READ_SECONDS = 20
"""How long it may be silent within an answer."""

ATTEMPTS = 3
"""How often a request is made, with a growing pause between, before it counts as failed."""

_REFUSALS = {
    "InvalidAccessKeyId": "no such access key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not fit the access key; check AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "the credentials do not allow it; docs/storage.md lists the rights it needs",
    "403": "the credentials are wrong or do not allow it; check AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY and the rights that docs/storage.md lists",
    "AllAccessDisabled": "the bucket is closed to everybody; ask its owner",
    "ExpiredToken": "the session has expired; renew AWS_SESSION_TOKEN",
    "InvalidToken": "the session is not valid; renew AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this machine's clock differs from the server's; set it",
    "NoSuchBucket": "no such bucket; check the name and AWS_ENDPOINT_URL, or make it",
    "InvalidBucketName": "no name of a bucket; correct it",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "IllegalLocationConstraintException": "the bucket is in another region; set AWS_DEFAULT_REGION",
}
"""What servers refuse with, and what to do; asking again does not help."""

_PASSING = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "429"}
"""Codes below 500 after which the same request may succeed."""

_SETUP = {
    "NoCredentialsError": "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "whatever else the AWS chain reads",
    "PartialCredentialsError": "half of the credentials; set both AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY",
    "ProfileNotFound": "no such profile; check AWS_PROFILE",
    "ParamValidationError": "no name of a bucket; correct it",
    "InvalidRegionError": "no region; check AWS_DEFAULT_REGION",
    "SSLError": "its certificate is not trusted; give its authority by AWS_CA_BUNDLE",
}
"""What is wrong on this side, by the class of botocore's error."""


def split(address: str) -> tuple[str, str]:
    """The bucket and the prefix, without slashes around it, of ``s3://bucket/prefix``.

    Raises:
        InputError: if the address is none.
    """
    bucket, _, prefix = address.removeprefix(SCHEME).partition("/")
    if not address.startswith(SCHEME) or not bucket:
        raise InputError(f"{address}: no bucket; write s3://bucket/prefix")
    return bucket, prefix.strip("/")


def endpoint() -> str | None:
    """The server that the environment names; None where it is AWS or the AWS configuration says.

    Raises:
        InputError: if it is no address, or holds a password, which would come to be written down.
    """
    from urllib.parse import urlsplit

    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not named:
        return None
    parts = urlsplit(named)
    if parts.username is not None or parts.password is not None:
        raise InputError("AWS_ENDPOINT_URL: holds a user or password; give them as AWS credentials")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"AWS_ENDPOINT_URL: {named!r} is no address; write https://HOST[:PORT]")
    return named


def client() -> Any:
    """A client whose requests come to an end: a server that is gone is told within a minute.

    Raises:
        InputError: if the environment names a profile, region or endpoint that is none.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        # Checksums are compared when all of an object is there, whoever sent which part of it.
        response_checksum_validation="when_required",
    )
    with told("S3"):
        # A session of its own: the default one keeps the first credentials it saw.
        return boto3.Session().client("s3", config=config, endpoint_url=endpoint())


def reach(address: str) -> None:
    """See that the bucket of an address answers and lets itself be listed.

    Raises:
        SourceRefusedError: if it refuses.
        SourceUnreachableError: if it does not answer.
    """
    bucket, prefix = split(address)
    with told(f"{address}: listing"):
        client().list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", MaxKeys=1)


@contextmanager
def told(address: str) -> Iterator[None]:
    """Say of S3's errors in the block what is wrong with an address and what to do.

    Raises:
        SourceRefusedError: if the server refuses, or a setting here is wrong.
        SourceUnreachableError: if it does not answer, breaks off, or fails; it may yet succeed.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _of_answer(address, error) from None
    except Boto3Error as error:  # of a transfer: it hides the answer behind a sentence
        if isinstance(error.__context__, ClientError):
            raise _of_answer(address, error.__context__) from None
        raise SourceUnreachableError(f"{address}: {error}") from None
    except BotoCoreError as error:
        if remedy := _SETUP.get(type(error).__name__):
            raise SourceRefusedError(f"{address}: {remedy}") from None
        raise SourceUnreachableError(
            f"{address}: the server does not answer ({error}); check AWS_ENDPOINT_URL, or try later"
        ) from None


def code_of(error: Any) -> str:
    """The code of a ``ClientError``: S3's own, or for answers without a body the HTTP status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _of_answer(address: str, error: Any) -> SourceUnreachableError:
    code = code_of(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = error.response.get("Error", {}).get("Message", "")
    if code in ("NoSuchKey", "404"):
        return MissingObjectError(f"{address}: no such object")
    if code in ("PreconditionFailed", "412"):
        return SourceUnreachableError(f"{address}: changed while it was fetched; run again")
    if code in _REFUSALS:
        return SourceRefusedError(f"{address}: {_REFUSALS[code]} ({code})")
    if status >= 500 or code in _PASSING:
        return SourceUnreachableError(
            f"{address}: the server failed ({code} {said}), {ATTEMPTS} times; try later"
        )
    return SourceRefusedError(f"{address}: the server refuses ({code} {said}); see docs/storage.md")
