import logging
import subprocess
import sys
from pathlib import Path

import pytest

from assets.workspace.locks import HeldElsewhereError, is_locked, locked
from tevad_model.errors import StorageError

HOLD = """
import sys
from pathlib import Path
from assets.workspace.locks import locked
with locked(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_waits_says_for_whom_and_a_kill_frees_the_lock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "folder" / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert is_locked(path)
        with (
            pytest.raises(HeldElsewhereError, match=f"it: held by process {other.pid} "),
            locked(path, "it", wait=False),
        ):
            pass

        class Kill(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                other.kill()

        logger, kill = logging.getLogger("tevad"), Kill()
        logger.addHandler(kill)
        try:
            with caplog.at_level(logging.INFO, "tevad"), locked(path, "it"):
                pass
        finally:
            logger.removeHandler(kill)
    assert f"it: waits for process {other.pid} (-c" in caplog.text
    assert not is_locked(path)
    assert not is_locked(tmp_path / "never held")


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match="file/lock: cannot be written"),
        locked(tmp_path / "file" / "lock", "it"),
    ):
        pass
