"""Where models come from: folders and pinned snapshots, never the network unless asked to pull."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, MODEL, Hub, serving
from tiny_models import tiny_videomae

from tevad_model.encoders import hub
from tevad_model.errors import InputError


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Hub]:
    folder = tiny_videomae(tmp_path / "served")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "README.md").write_text("a model")
    with serving(folder) as found:
        yield found


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
