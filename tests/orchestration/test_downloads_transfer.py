"""One file over HTTP: what is asked for again, what is refused, and with which words."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import Fault, FileServer, running_server

from orchestration.downloads.transfer import Content, Patience, download
from tevad_model.errors import InputError

CONTENT = random.Random(0).randbytes(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WHOLE = Content(len(CONTENT), SHA256)
HASTY = Patience(connect_seconds=20, read_seconds=20, attempts=3, backoff_seconds=0.01)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "file.bin"


def left_behind(to: Path) -> list[str]:
    return sorted(path.name for path in to.parent.iterdir())


def test_a_whole_file_comes_under_its_name_and_nothing_else(server: FileServer, to: Path) -> None:
    url = server.serve("file.bin", CONTENT)
    assert download(url, to, WHOLE, HASTY) == WHOLE
    assert to.read_bytes() == CONTENT
    assert left_behind(to) == ["file.bin"]


def test_a_cut_connection_goes_on_where_it_stopped(server: FileServer, to: Path) -> None:
    url = server.serve("file.bin", CONTENT, Fault(cut_after=300_000), Fault(cut_after=200_000))
    assert download(url, to, WHOLE, HASTY) == WHOLE
    assert to.read_bytes() == CONTENT
    assert server.asked_ranges() == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_goes_on_where_a_killed_one_stopped(server: FileServer, to: Path) -> None:
    url = server.serve("file.bin", CONTENT, Fault(cut_after=300_000))
    once = Patience(attempts=1)
    with pytest.raises(InputError, match=r"cut.*Run the same command again"):
        download(url, to, WHOLE, once)
    assert not to.exists()
    assert download(url, to, WHOLE, once) == WHOLE
    assert to.read_bytes() == CONTENT
    assert server.asked_ranges() == [None, "bytes=300000-"]


def test_a_part_that_is_the_whole_file_is_taken(server: FileServer, to: Path) -> None:
    url = server.serve("file.bin", CONTENT, Fault(length=len(CONTENT) + 1))
    assert download(url, to, patience=HASTY) == WHOLE
    assert server.asked_ranges() == [None, "bytes=700000-"]


@pytest.mark.parametrize("validator", ["strong", "date"])
def test_a_file_that_changed_in_between_is_fetched_anew(
    server: FileServer, to: Path, validator: str
) -> None:
    server.validator = validator
    url = server.serve("file.bin", CONTENT, Fault(cut_after=300_000))
    with pytest.raises(InputError, match="cut"):
        download(url, to, patience=Patience(attempts=1))
    changed = CONTENT[::-1]
    server.serve("file.bin", changed)
    download(url, to, patience=HASTY)
    assert to.read_bytes() == changed


def test_a_server_without_ranges_sends_all_again(server: FileServer, to: Path) -> None:
    server.ranges = False
    url = server.serve("file.bin", CONTENT, Fault(cut_after=300_000))
    download(url, to, WHOLE, HASTY)
    assert to.read_bytes() == CONTENT


@pytest.mark.parametrize("validator", ["weak", "none"])
def test_a_part_without_a_sound_validator_is_not_added_to(
    server: FileServer, to: Path, validator: str
) -> None:
    server.validator = validator
    url = server.serve("file.bin", CONTENT, Fault(cut_after=300_000))
    download(url, to, WHOLE, HASTY)
    assert to.read_bytes() == CONTENT
    assert server.asked_ranges() == [None, None]


def test_a_date_of_change_is_a_validator(server: FileServer, to: Path) -> None:
    server.validator = "date"
    url = server.serve("file.bin", CONTENT, Fault(cut_after=300_000), Fault(cut_after=100_000))
    download(url, to, WHOLE, HASTY)
    assert server.asked_ranges() == [None, "bytes=300000-", "bytes=400000-"]


def test_a_part_of_another_address_is_not_added_to(server: FileServer, to: Path) -> None:
    url = server.serve("file.bin", CONTENT, Fault(cut_after=300_000))
    with pytest.raises(InputError):
        download(url, to, patience=Patience(attempts=1))
    mirror = server.serve("mirror/file.bin", CONTENT)
    download(mirror, to, WHOLE, HASTY)
    assert server.asked_ranges() == [None, None]


def test_a_tampered_file_is_refused(server: FileServer, to: Path) -> None:
    tampered = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    url = server.serve("file.bin", tampered)
    with pytest.raises(InputError) as caught:
        download(url, to, WHOLE, HASTY)
    for told in ("file.bin", url, SHA256, hashlib.sha256(tampered).hexdigest()):
        assert told in str(caught.value)
    assert left_behind(to) == []


def test_a_file_of_another_size_is_refused_before_it_is_fetched(
    server: FileServer, to: Path
) -> None:
    url = server.serve("file.bin", CONTENT[:-10])
    with pytest.raises(InputError, match="bytes 699990, expected 700000"):
        download(url, to, WHOLE, HASTY)
    assert left_behind(to) == []


def test_a_silent_server_is_given_up(server: FileServer, to: Path) -> None:
    url = server.serve("file.bin", CONTENT, *[Fault(silent=True)] * 3)
    impatient = Patience(read_seconds=0.2, attempts=3, backoff_seconds=0.01)
    with pytest.raises(InputError, match=r"does not answer in time; gave up after 3 attempts"):
        download(url, to, WHOLE, impatient)
    assert len(server.requests) == 3


def test_nobody_there(to: Path) -> None:
    with running_server() as stopped:
        url = stopped.url("file.bin")
    with pytest.raises(InputError, match=r"cannot be reached.*gave up"):
        download(url, to, WHOLE, HASTY)


def test_a_passing_failure_is_asked_again(server: FileServer, to: Path) -> None:
    url = server.serve("file.bin", CONTENT, Fault(status=500), Fault(status=503))
    assert download(url, to, WHOLE, HASTY) == WHOLE
    assert len(server.requests) == 3


def test_a_missing_file_is_not_asked_again(server: FileServer, to: Path) -> None:
    with pytest.raises(InputError, match=r"404.*home page"):
        download(server.url("gone.bin"), to, WHOLE, HASTY)
    assert len(server.requests) == 1


def test_a_redirect_is_followed(server: FileServer, to: Path) -> None:
    server.serve("there.bin", CONTENT)
    url = server.serve("file.bin", b"", Fault(location="/there.bin"))
    assert download(url, to, WHOLE, HASTY) == WHOLE


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/file.bin"])
def test_a_redirect_to_anything_but_http_is_refused(
    server: FileServer, to: Path, location: str
) -> None:
    url = server.serve("file.bin", CONTENT, Fault(location=location))
    with pytest.raises(InputError, match="not http or https"):
        download(url, to, WHOLE, HASTY)
    assert left_behind(to) == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody but itself vouches for, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def test_a_certificate_that_cannot_be_verified_is_told_at_once(certificate: Path, to: Path) -> None:
    with running_server(certificate) as server:
        url = server.serve("file.bin", CONTENT)
        with pytest.raises(InputError, match=r"certificate cannot be verified.*REQUESTS_CA_BUNDLE"):
            download(url, to, WHOLE, HASTY)


def test_a_redirect_from_https_to_http_is_refused(
    certificate: Path, server: FileServer, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    plain = server.serve("file.bin", CONTENT)
    with running_server(certificate) as safe:
        assert download(safe.serve("file.bin", CONTENT), to, WHOLE, HASTY) == WHOLE
        url = safe.serve("moved.bin", b"", Fault(location=plain))
        with pytest.raises(InputError, match="redirects from https to http"):
            download(url, to.with_name("other.bin"), WHOLE, HASTY)


def test_an_address_that_is_not_http_is_refused(to: Path) -> None:
    with pytest.raises(InputError, match="not an http or https address"):
        download("file:///etc/passwd", to)


def test_a_file_larger_than_the_disk_is_not_begun(server: FileServer, to: Path) -> None:
    url = server.serve("file.bin", CONTENT, Fault(length=10**18))
    with pytest.raises(InputError, match=r"1000000000\.00 GB are needed.*free"):
        download(url, to, patience=HASTY)
    assert not list(to.parent.glob("*.bin*"))
