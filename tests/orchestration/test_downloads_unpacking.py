"""Archives that nobody vouches for: what is unpacked, what is refused, and that nothing gets out."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration.downloads.unpacking import Limits, unpack
from tevad_model.errors import InputError

Member = tuple[str, bytes]
Pack = Callable[[Path, list[Member]], Path]


def pack_zip(path: Path, members: list[Member]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def pack_tar(path: Path, members: list[Member]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def tar_of(path: Path, kind: bytes, link: str = "") -> Path:
    info = tarfile.TarInfo("member")
    info.type, info.linkname = kind, link
    with tarfile.open(path, "w") as archive:
        archive.addfile(info)
    return path


both = pytest.mark.parametrize("pack", [pack_zip, pack_tar])


def unpacked(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@both
def test_wanted_files_come_out_as_they_went_in(tmp_path: Path, pack: Pack) -> None:
    inside = [("a/b.txt", b"1"), ("a/c.txt", b"2"), ("a/._b.txt", b"x"), ("__MACOSX/d", b"x")]
    unpack(pack(tmp_path / "x", inside), tmp_path / "out", wanted=lambda path: "c" not in path)
    assert unpacked(tmp_path / "out") == {"a/b.txt": b"1"}


@both
@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/out.txt", "C:/x", "..\\x"])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, pack: Pack, name: str) -> None:
    archive = pack(tmp_path / "x", [("good.txt", b"1"), (name, b"2")])
    with pytest.raises(InputError, match=r"x: member .*(leads out|absolute)"):
        unpack(archive, tmp_path / "out")
    assert set(unpacked(tmp_path)) <= {"x", "out/good.txt"}


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "good.txt"),
        (tarfile.LNKTYPE, "../x"),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
    ],
)
def test_a_link_or_device_in_a_tar_is_refused(tmp_path: Path, kind: bytes, link: str) -> None:
    with pytest.raises(InputError, match="'member' is a link or a device"):
        unpack(tar_of(tmp_path / "x.tar", kind, link), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="'link' is a link or a device"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@both
def test_a_decompression_bomb_is_refused_before_it_goes_off(tmp_path: Path, pack: Pack) -> None:
    archive = pack(tmp_path / "x", [("bomb", bytes(5_000_000))])
    with pytest.raises(InputError, match="bomb"):
        unpack(archive, tmp_path / "out", limits=Limits(ratio_from=1_000_000))
    assert unpacked(tmp_path / "out") == {}


@both
def test_limits_of_bytes_and_members_hold(tmp_path: Path, pack: Pack) -> None:
    archive = pack(tmp_path / "x", [(f"{index}", b"12345") for index in range(5)])
    with pytest.raises(InputError, match="more than 12 bytes, at '2'"):
        unpack(archive, tmp_path / "bytes", limits=Limits(bytes=12))
    with pytest.raises(InputError, match="more than 3 members, at '3'"):
        unpack(archive, tmp_path / "members", limits=Limits(files=3))
    unpack(archive, tmp_path / "all", limits=Limits(bytes=25, files=5))
    assert len(unpacked(tmp_path / "all")) == 5


def test_a_zip_is_judged_before_anything_is_written(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path / "x.zip", [("a", b"1"), ("b", bytes(100))])
    with pytest.raises(InputError, match="more than 50 bytes"):
        unpack(archive, tmp_path / "out", limits=Limits(bytes=50))
    assert unpacked(tmp_path / "out") == {}


@both
def test_a_cut_archive_is_damaged(tmp_path: Path, pack: Pack) -> None:
    import random

    content = random.Random(0).randbytes(200_000)
    archive = pack(tmp_path / "x", [("a", content), ("b", content)])
    archive.write_bytes(archive.read_bytes()[:150_000])
    with pytest.raises(InputError, match=r"x: (damaged or cut|neither)"):
        unpack(archive, tmp_path / "out")


def test_a_zip_whose_bytes_changed_is_damaged(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", b"as it was")
    content = (tmp_path / "x.zip").read_bytes().replace(b"as it was", b"otherwise", 1)
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"damaged or cut.*CRC"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


@pytest.mark.parametrize(
    ("start", "words"),
    [(b"Rar!\x1a\x07\x01\x00", "RAR archives are not supported"), (b"<html>", "neither a tar")],
)
def test_what_is_no_tar_or_zip_is_told(tmp_path: Path, start: bytes, words: str) -> None:
    (tmp_path / "x.zip").write_bytes(start + bytes(100))
    with pytest.raises(InputError, match=words):
        unpack(tmp_path / "x.zip", tmp_path / "out")


@both
def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path, pack: Pack) -> None:
    archive = pack(tmp_path / "x", [("a", b"1"), ("a/b", b"2")])
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out")
