"""What tests of every part share: throwaway projects and small real datasets.

A project here is a real one: a git and DVC repository with this repository's ``dvc.yaml`` and
``mlflow/``, and state of its own for Dagster and MLflow.
"""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from pipelines import World, build_world
from postgres_server import PostgresServer, programs
from projects import TrainedProject, copy_project, copy_trained, enter_project, git
from s3_server import S3Server

from assets.workspace.locks import locked
from assets.workspace.params import DatasetParams
from assets.workspace.project import Dataset, Project
from assets.workspace.storage import VARIABLE, Storage
from assets.workspace.tracking import CHAMPION, Tracking
from orchestration.cli import collect_garbage_rarely
from orchestration.running import RunOutcome, run_chain

os.environ.update(
    DAGSTER_DISABLE_TELEMETRY="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    DVC_NO_ANALYTICS="1",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    OMP_WAIT_POLICY="PASSIVE",
)

collect_garbage_rarely()  # as commands do

# A shell starts what runs in the background deaf to Ctrl-C, and so would be what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parents[1]
OUTCOME = "outcome.json"

PARAMS = """\
# the parameters of a test project
video: {max_side: 640}
snippet_features:
  backend: efficientnet-lite0
  options: {crops: 1, side: 96}
captions: {backend: motion}
sentence_encoder: {tune: auto}
caption_embeddings: {backend: sentence-transformers}
tevad_model:
  visual_projection: 16
  segments: 8
  batch_size: 4
  iterations: 30
  folds: 2
  evaluate_every: 10
  seeds: [0]
evaluation_metrics: {best_on_test: true, bootstrap: 100}
checks: {min_auc: 0.0}
presets: {paper: {}}
datasets: {}
"""


FIRST = (
    "behaviour/test_review.py",  # makes the trained project while another process does the next
    "behaviour",
    "faults",
    "tevad_model/test_training.py",
    "assets",
    "orchestration",
)
"""Which tests begin: those whose files take long, so that no process is left alone with one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in the order of :data:`FIRST`."""
    tests = REPOSITORY / "tests"

    def turn(item: pytest.Item) -> int:
        path = item.path.relative_to(tests).as_posix()
        return next((i for i, first in enumerate(FIRST) if path.startswith(first)), len(FIRST))

    items.sort(key=turn)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real datasets that do not belong to the repository."""
    folder = Path(os.environ.get("TEVAD_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "ped2" / "videos.csv").is_file():
        pytest.skip(f"no real datasets in {folder}; set TEVAD_SHARED_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a session share, for what is dear to make."""
    mine = tmp_path_factory.getbasetemp()
    folder = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "common"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def encoder_cache(common: Path) -> Path:
    """Exported encoders, made once a session; the environment may name one that lasts."""
    named = os.environ.get("TEVAD_TEST_CACHE")
    return Path(named) if named else common / "encoder-cache"


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
    policy = root / "mlflow" / "promotion.yaml"  # a model of a few seconds' training may pass
    policy.write_text(policy.read_text().replace("\nfloor: 0.5", "\nfloor: 0.0"), encoding="utf-8")
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


@pytest.fixture(scope="session")
def trained_template(
    common: Path, project_template: Path, rendered: Path, encoder_cache: Path
) -> Path:
    """A project whose chain has run, to copy from, and how that ended beside it."""
    from orchestration.datasets import add_dataset

    folder = common / "trained"
    with locked(common / "trained.lock", "the trained project"):
        if (folder / OUTCOME).is_file():
            return folder / "project"
        shutil.rmtree(folder, ignore_errors=True)  # of a process that did not come to its end
        root = copy_project(project_template, folder)
        source = Path(".tevad") / "rendered"
        shutil.copytree(rendered, root / source)
        with pytest.MonkeyPatch.context() as patch:
            enter_project(root, encoder_cache, patch)
            entry = DatasetParams(source=source.as_posix())
            outcome = run_chain(add_dataset(Project.at(root), "rendered", entry))
        assert outcome.success, outcome.failures
        (folder / OUTCOME).write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def trained_project(
    trained_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainedProject:
    """One for all tests that leave it as it is; ``trained_copy`` is for those that do not."""
    root = copy_trained(trained_template, tmp_path_factory.mktemp("trained"))
    outcome = json.loads((trained_template.parent / OUTCOME).read_text(encoding="utf-8"))
    outcome["failures"] = tuple(outcome["failures"])
    return TrainedProject(Project.at(root).dataset("rendered"), RunOutcome(**outcome))


@pytest.fixture
def trained(
    trained_project: TrainedProject, encoder_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> TrainedProject:
    """The trained project, with the environment and the working folder pointing at it."""
    enter_project(trained_project.root, encoder_cache, monkeypatch)
    return trained_project


@pytest.fixture
def trained_copy(
    trained_project: TrainedProject,
    encoder_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Dataset:
    """The dataset in a copy of the trained project, to be changed; the environment is in it."""
    root = copy_trained(trained_project.root, tmp_path)
    enter_project(root, encoder_cache, monkeypatch)
    return Project.at(root).dataset("rendered")


@pytest.fixture(scope="session")
def reviewed_project(
    trained_project: TrainedProject,
    encoder_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Dataset:
    """A copy of the trained project whose champion has scored all videos, with the page of it.

    For tests that leave it as it is.
    """
    from assets.review_page import write_review_page
    from assets.scored_videos import score_dataset

    root = copy_trained(trained_project.root, tmp_path_factory.mktemp("reviewed"))
    with pytest.MonkeyPatch.context() as patch:
        enter_project(root, encoder_cache, patch)
        dataset = Project.at(root).dataset("rendered")
        tracking = Tracking.of(dataset.project)
        tracking.client.set_registered_model_alias("tevad-rendered", CHAMPION, "1")
        score_dataset(dataset, tracking)
        write_review_page(dataset, tracking)
    return dataset


@pytest.fixture(scope="session")
def rendered(common: Path) -> Path:
    """A small rendered dataset: 6 train and 4 test videos of about 100 frames."""
    from tevad_model.render import render

    folder = common / "rendered"
    with locked(common / "rendered.lock", "the rendered videos"):
        if not folder.is_dir():
            unfinished = common / "rendered.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that did not end it
            render(unfinished, train=6, test=4, lengths=(96, 130))
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path) -> World:
    """Rendered clips, and pipelines that were trained on them."""
    return build_world(tmp_path_factory.mktemp("pipeline"), encoder_cache)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, for all tests that leave it running; each makes buckets of its own."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "server")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL; whoever stops it starts it again."""
    installed = programs()
    if installed is None:
        pytest.skip("no PostgreSQL server in /usr/lib/postgresql; install Debian's `postgresql`")
    server = PostgresServer(installed)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def storage(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A bucket of the test's own that the environment names; after the fixture that enters a project."""
    s3_server.enter(monkeypatch)
    monkeypatch.setenv(VARIABLE, f"s3://{s3_server.new_bucket()}/team")
    return Storage.required()


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
