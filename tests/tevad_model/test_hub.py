"""Where models come from: folders and pinned snapshots, never the network unless asked to pull."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny_models import tiny_videomae

from tevad_model.encoders import hub
from tevad_model.errors import InputError

MODEL, COMMIT = "someone/tiny-videomae", "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A server that speaks as much of the hub's language as fetching a model takes."""

    folder: Path
    address: str = ""
    asked: list[str] = field(default_factory=list)

    def file(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def info(self) -> dict[str, object]:
        names = sorted(path.name for path in self.folder.iterdir())
        return {
            "_id": "1",
            "id": MODEL,
            "sha": COMMIT,
            "private": False,
            "tags": [],
            "downloads": 0,
            "siblings": [{"rfilename": name} for name in names],
        }

    def tree(self) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "oid": sha256(path.read_bytes()).hexdigest()[:40],
                "size": path.stat().st_size,
                "path": path.name,
            }
            for path in sorted(self.folder.iterdir())
        ]


def handler(served: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.asked.append(self.path)
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{MODEL}/tree/"):
                self._send(json.dumps(served.tree()).encode(), "application/json")
            elif path in (f"/api/models/{MODEL}", f"/api/models/{MODEL}/revision/{COMMIT}"):
                self._send(json.dumps(served.info()).encode(), "application/json")
            elif path.startswith(f"/{MODEL}/resolve/{COMMIT}/"):
                self._send(served.file(path.rpartition("/")[2]), "application/octet-stream")
            else:
                self._send(b'{"error": "not found"}', "application/json", 404)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server asks for

        def _send(self, content: bytes, kind: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{sha256(content).hexdigest()[:40]}"')
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Hub]:
    found = Hub(tiny_videomae(tmp_path / "served"))
    (found.folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (found.folder / "README.md").write_text("a model")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(found)) as server:
        found.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def ask(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: the hub's library reads its environment once."""
    prelude = "from tevad_model.encoders import hub\nfrom tevad_model.errors import InputError\n"
    body = "\n".join(f"    {line}" for line in code.splitlines())
    return subprocess.run(
        [sys.executable, "-c", f"{prelude}try:\n{body}\nexcept InputError as e: print('ERROR', e)"],
        env={"PATH": "", "HOME": str(home), "HF_HOME": str(home / "hf"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_a_pulled_model_is_found_by_its_pinned_revision_without_the_network(
    served: Hub, tmp_path: Path
) -> None:
    pulled = ask(
        f"p = hub.pull({MODEL!r}); print(p.commit, p.folder)", tmp_path, HF_ENDPOINT=served.address
    )
    commit, folder = pulled.stdout.split()
    assert commit == COMMIT
    names = {path.name for path in Path(folder).iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}
    fetched = [path for path in served.asked if "/resolve/" in path]
    assert not any("pytorch_model.bin" in path or "README" in path for path in fetched)

    found = ask(
        f"print(hub.resolve({MODEL!r}, {COMMIT!r}, 'captions'))", tmp_path, HF_HUB_OFFLINE="1"
    )
    assert Path(found.stdout.strip()) == Path(folder)
    assert hub.weights_hash(Path(folder)) == hub.weights_hash(served.folder), "of what is fetched"

    other = "f" * 40
    missing = ask(f"hub.resolve({MODEL!r}, {other!r}, 'captions')", tmp_path)
    assert f"{MODEL} at {other} is not on this machine; fetch it by" in missing.stdout
    assert f"`tevad encoders pull {MODEL} --revision {other}`" in missing.stdout


def test_resolving_never_asks_the_network(tmp_path: Path, served: Hub) -> None:
    result = ask(
        f"hub.resolve({MODEL!r}, {COMMIT!r}, 'captions')", tmp_path, HF_ENDPOINT=served.address
    )
    assert "is not on this machine" in result.stdout
    assert served.asked == []


def test_a_model_that_the_hub_does_not_have_is_an_error(served: Hub, tmp_path: Path) -> None:
    result = ask("hub.pull('someone/else')", tmp_path, HF_ENDPOINT=served.address)
    assert "ERROR someone/else: not fetched (" in result.stdout
    assert "check the name, the revision and the network" in result.stdout


def test_a_model_with_pickles_alone_is_not_fetched(served: Hub, tmp_path: Path) -> None:
    (served.folder / "model.safetensors").unlink()
    result = ask(f"hub.pull({MODEL!r})", tmp_path, HF_ENDPOINT=served.address)
    assert "its weights are pickled (pytorch_model.bin), which can run code" in result.stdout
    assert not any("/resolve/" in path for path in served.asked)


def test_no_network_is_an_error_and_no_hang(tmp_path: Path) -> None:
    begun = time.monotonic()
    result = ask(f"hub.pull({MODEL!r})", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert f"ERROR {MODEL}: not fetched (" in result.stdout
    assert time.monotonic() - begun < 60, "it must not wait for what never comes"


def test_offline_is_respected(tmp_path: Path, served: Hub) -> None:
    result = ask(f"hub.pull({MODEL!r})", tmp_path, HF_HUB_OFFLINE="1", HF_ENDPOINT=served.address)
    assert "not fetched, as HF_HUB_OFFLINE is set" in result.stdout
    assert served.asked == []


@pytest.mark.parametrize("revision", [None, "main", "0123456"])
def test_a_model_of_the_hub_must_be_pinned(revision: str | None) -> None:
    with pytest.raises(InputError, match=r"captions\.options\.revision: .* does not pin a/b"):
        hub.resolve("a/b", revision, "captions")


def test_a_folder_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InputError, match=r"/no/such/folder is no folder and no name of a model"):
        hub.resolve("/no/such/folder", None, "captions")


def test_a_folder_that_holds_no_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(InputError, match=r"captions\.options\.model: .* holds no model"):
        hub.resolve(str(tmp_path), None, "captions")


@pytest.mark.parametrize("pickled", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_a_pickled_checkpoint_is_refused(tmp_path: Path, pickled: str) -> None:
    folder = tiny_videomae(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / pickled)
    with pytest.raises(InputError, match=rf"its weights are pickled \({pickled}\)"):
        hub.resolve(str(folder), None, "captions")


def test_a_model_without_weights_is_an_error(tmp_path: Path) -> None:
    folder = tiny_videomae(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"it has no weights \(\*\.safetensors\)"):
        hub.resolve(str(folder), None, "captions")
