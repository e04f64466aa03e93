"""What tests of every part share: throwaway projects and small real datasets.

A project here is a real one: a git and DVC repository with this repository's ``dvc.yaml`` and
``mlflow/``, and state of its own for Dagster and MLflow.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.update(
    DAGSTER_DISABLE_TELEMETRY="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    DVC_NO_ANALYTICS="1",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
)

REPOSITORY = Path(__file__).parents[1]

PARAMS = """\
# the parameters of a test project
video: {max_side: 640}
snippet_features:
  backend: efficientnet-lite0
  options: {}
captions: {backend: motion}
caption_embeddings: {backend: sentence-transformers}
tevad_model:
  visual_projection: 16
  batch_size: 4
  iterations: 30
  evaluate_every: 10
  seeds: [0]
evaluation_metrics: {bootstrap: 100}
checks: {min_auc: 0.0}
datasets: {}
"""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real datasets that do not belong to the repository."""
    folder = Path(os.environ.get("TEVAD_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "ped2" / "videos.csv").is_file():
        pytest.skip(f"no real datasets in {folder}; set TEVAD_SHARED_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def encoder_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported encoders, made once a session; the environment may name one that lasts."""
    named = os.environ.get("TEVAD_TEST_CACHE")
    return Path(named) if named else tmp_path_factory.mktemp("encoder-cache")


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables made, which takes seconds, to copy from."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def project_template(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Path:
    """An empty project to copy from."""
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("template") / "project"
    root.mkdir()
    git(root, "init", "--quiet")
    Repo.init(str(root)).close()
    for name in (".gitignore", "dvc.yaml", ".dvc/config"):
        shutil.copy(REPOSITORY / name, root / name)
    shutil.copytree(
        REPOSITORY / "mlflow", root / "mlflow", ignore=shutil.ignore_patterns("__pycache__")
    )
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    (root / ".tevad").mkdir()
    shutil.copy(empty_mlflow, root / ".tevad" / "mlflow.db")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "a project")
    return root


@pytest.fixture
def project_root(
    project_template: Path,
    encoder_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A project of the test's own, which the environment and the working folder point at."""
    return enter_project(copy_project(project_template, tmp_path), encoder_cache, monkeypatch)


def copy_project(template: Path, folder: Path) -> Path:
    """Copy a project into a folder."""
    root = folder / "project"
    shutil.copytree(template, root, symlinks=True)
    return root


def enter_project(root: Path, encoder_cache: Path, patch: pytest.MonkeyPatch) -> Path:
    """Point the working folder and the environment at a project."""
    patch.chdir(root)
    patch.setenv("TEVAD_PROJECT", str(root))
    patch.setenv("TEVAD_CACHE", str(encoder_cache))
    patch.setenv("DAGSTER_HOME", str(root / ".tevad" / "dagster"))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (root / ".tevad" / "dagster").mkdir(parents=True, exist_ok=True)
    return root


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder as a user who is nobody in particular."""
    identity = {
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
    }
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **identity},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small rendered dataset: 6 train and 4 test videos of about 100 frames."""
    from tevad_model.render import render

    folder = tmp_path_factory.mktemp("rendered")
    render(folder, train=6, test=4, lengths=(96, 130))
    return folder


WriteVideo = Callable[..., Path]


@pytest.fixture
def write_video() -> WriteVideo:
    """Writes a small real video: a square that moves over a fixed texture; seeds differ in both."""
    import numpy as np

    from tevad_model.video import encode

    def write(
        path: Path, *, frames: int = 20, seed: int = 0, width: int = 64, height: int = 48
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        texture = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)

        def picture(index: int) -> np.ndarray:
            drawn = texture.copy()
            left = (index * 2 + seed) % (width - 12)
            drawn[10:22, left : left + 12] = 255
            return drawn

        encode(path, (picture(i) for i in range(frames)), 10.0)
        return path

    return write
