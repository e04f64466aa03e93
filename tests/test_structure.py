"""The house keeps its shape: imports run one way, loading stays light, mlflow/ is no package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("tevad_model", "assets", "orchestration")
FORBIDDEN = {
    "tevad_model": {
        "assets",
        "orchestration",
        "dagster",
        "dvc",
        "mlflow",
        "great_expectations",
        "boto3",
    },
    "assets": {"orchestration"},
    "orchestration": set(),
}
HEAVY = {"torch", "mlflow", "great_expectations", "transformers", "dvc", "onnxruntime", "av"}


def modules(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level packages a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    offenders = {
        str(path.relative_to(REPOSITORY)): sorted(imported(path) & FORBIDDEN[package])
        for path in modules(package)
        if imported(path) & FORBIDDEN[package]
    }
    assert offenders == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(REPOSITORY))
        for package in (*PACKAGES, "benchmarks", "mlflow")
        for path in modules(package)
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_mlflow_folder_is_no_package() -> None:
    assert not list((REPOSITORY / "mlflow").rglob("__init__.py"))


def test_every_package_is_installed() -> None:
    import tomllib

    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        path.parent.relative_to(REPOSITORY).as_posix().replace("/", ".")
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("__init__.py")
    }
    assert set(listed["packages"]) == found


def test_loading_the_definitions_imports_nothing_heavy() -> None:
    """Dagster loads the definitions in every process it starts; that must stay under 3 s."""
    script = (
        "import sys; import orchestration.definitions; "
        "print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) & HEAVY == set()
