"""What data, names and models may not do: run code, or leave their folder.

What unpacking and tables refuse is tested where they are; here are the rules that hold everywhere.
"""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from assets.scoring import packed_pipeline
from assets.workspace.params import load_params
from assets.workspace.project import Project
from assets.workspace.tracking import Tracking
from tevad_model.errors import InputError
from tevad_model.ready_made import EMBEDDINGS, FEATURES, read_array

REPOSITORY = Path(__file__).parents[1]
CODE = ("tevad_model", "assets", "orchestration", "mlflow", "benchmarks")
RUNS_DATA = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "yaml"}
"""Modules that make whatever object their data name; YAML is read by ruamel, which does not."""


def calls_in(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a module, by the dotted name that is called."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def said(call: ast.Call, name: str) -> object:
    """A keyword's constant value; None where it is not given, or not a constant."""
    for keyword in call.keywords:
        if keyword.arg == name and isinstance(keyword.value, ast.Constant):
            return keyword.value.value
    return None


def offences(path: Path) -> Iterator[str]:
    """What of a module could run code that data bring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (f"imports {name}" for name in names if name.split(".")[0] in RUNS_DATA)
    for name, call in calls_in(path):
        if name in ("eval", "exec", "compile"):
            yield f"calls {name}"
        if name.endswith("torch.load") and said(call, "weights_only") is not True:
            yield "torch.load without weights_only=True"
        if said(call, "allow_pickle") is True:
            yield "allow_pickle=True"
        if name in ("np.load", "numpy.load") and said(call, "allow_pickle") is not False:
            yield "np.load without allow_pickle=False"
        if name.endswith("read_pickle"):
            yield f"calls {name}"
        if name == "YAML" and said(call, "typ") == "unsafe":
            yield "YAML(typ='unsafe')"


def test_nothing_unpickles_or_runs_what_data_bring() -> None:
    found = {
        str(path.relative_to(REPOSITORY)): sorted(offences(path))
        for package in CODE
        for path in (REPOSITORY / package).rglob("*.py")
    }
    assert len(found) > len(CODE)
    assert {path: list_ for path, list_ in found.items() if list_} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "import yaml",
        "YAML(typ='unsafe')",
        "eval(text)",
    ],
)
def test_the_scan_finds(line: str, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(line)
    assert len(list(offences(module))) >= 1


class Touch:
    """Unpickling it makes a file: the harmless form of an attack."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", [FEATURES, EMBEDDINGS])
def test_an_array_that_brings_code_is_refused_and_the_code_not_run(
    kind: str, tmp_path: Path
) -> None:
    ran, array = tmp_path / "ran", tmp_path / "video.npy"
    np.save(array, np.array([Touch(ran)], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="holds pickled objects"):
        read_array(array, kind, np.float32)
    array.write_bytes(pickle.dumps(Touch(ran)))
    with pytest.raises(InputError, match=re.escape(str(array))):
        read_array(array, kind, np.float32)
    assert not ran.exists()
    pickle.loads(array.read_bytes())  # noqa: S301 - shows that it would have run
    assert ran.exists()


def test_weights_that_bring_code_are_refused_and_the_code_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from tevad_model.encoders import efficientnet

    ran, weights = tmp_path / "ran", tmp_path / "weights.pt"
    torch.save({"layer": Touch(ran)}, weights)
    monkeypatch.setattr(efficientnet, "weights_file", lambda: weights)
    with pytest.raises(pickle.UnpicklingError):
        efficientnet.network()
    assert not ran.exists()


def test_no_message_has_a_trackings_address_with_its_password() -> None:
    shown = re.compile(r"\{(self|tracking)\.uri")
    modules = [path for package in CODE for path in (REPOSITORY / package).rglob("*.py")]
    assert [str(path) for path in modules if shown.search(path.read_text())] == []


@pytest.mark.parametrize("path", ["../outside", "/etc"])
def test_a_registered_model_cannot_name_files_outside_of_its_own(
    path: str, project_root: Path, tmp_path: Path
) -> None:
    files = tmp_path / "model"
    files.mkdir()
    flavor = f"{{loader_module: own, artifacts: {{pipeline: {{path: {path!r}}}}}}}"
    (files / "MLmodel").write_text(f"flavors: {{python_function: {flavor}}}")
    tracking = Tracking.of(Project.at(project_root))
    tracking.client.create_registered_model("tevad-site")
    version = tracking.client.create_model_version("tevad-site", str(files))
    with (
        pytest.raises(InputError, match="tevad-site/1: names a pipeline outside"),
        packed_pipeline(version, tracking),
    ):
        pass


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/b", ""])
def test_a_dataset_written_by_hand_cannot_leave_its_folder(name: str, project_root: Path) -> None:
    path = project_root / "params.yaml"
    entry = f"datasets: {{{name!r}: {{source: videos}}}}"
    path.write_text(path.read_text().replace("datasets: {}", entry))
    with pytest.raises(InputError, match="letters, digits, '-' and '_' only"):
        load_params(project_root)
