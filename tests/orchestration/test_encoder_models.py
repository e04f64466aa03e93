"""`tevad encoders`: what there is, and fetching it from a hub on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hub_server import COMMIT, MODEL, Hub, serving
from tiny_models import tiny_videomae

from assets.workspace.project import Project
from orchestration.cli import main
from orchestration.encoder_models import named_models
from tevad_model import encoders

TEVAD = str(Path(sys.executable).with_name("tevad"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Hub]:
    with serving(tiny_videomae(tmp_path / "served")) as hub:
        yield hub


def tevad(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's library reads its environment once."""
    inherited = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    return subprocess.run(
        [TEVAD, *arguments],
        cwd=root,
        env={**inherited, "HF_HOME": str(root / "hf"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def name_model(root: Path, revision: str) -> None:
    path = root / "params.yaml"
    text = path.read_text().replace(
        "  backend: efficientnet-lite0\n  options: {crops: 1, side: 96}",
        f"  backend: transformers\n  options: {{model: {MODEL}, revision: {revision}}}",
    )
    path.write_text(text)


def test_list_names_every_backend_and_option(project_root: Path) -> None:
    shown = CliRunner().invoke(main, ["encoders", "list"])
    assert shown.exit_code == 0, shown.output
    for kind in encoders.KINDS:
        assert f"{kind.section}:" in shown.output
        for name in kind.backends:
            assert f"backend: {name}\n" in shown.output
            for option, field in encoders.find_backend(kind, name).Options.model_fields.items():
                assert f"{option} (" in shown.output
                assert field.description
    assert "Undefined" not in shown.output


def test_a_pulled_model_is_there_with_what_pins_it(served: Hub, project_root: Path) -> None:
    done = tevad(project_root, "encoders", "pull", MODEL, HF_ENDPOINT=served.address)
    assert done.returncode == 0, done.stderr
    assert f"options: {{model: {MODEL}, revision: {COMMIT}}}" in done.stdout
    assert list((project_root / "hf").rglob("model.safetensors"))


def test_all_that_the_parameters_name_is_pulled(served: Hub, project_root: Path) -> None:
    name_model(project_root, COMMIT)
    assert named_models(Project.at(project_root)) == [(MODEL, COMMIT)]
    done = tevad(project_root, "encoders", "pull", HF_ENDPOINT=served.address)
    assert done.returncode == 0, done.stderr
    assert f"{MODEL} at {COMMIT}" in done.stdout


def test_presets_are_looked_at_and_folders_are_not(project_root: Path, tmp_path: Path) -> None:
    path = project_root / "params.yaml"
    folder = tiny_videomae(tmp_path / "some" / "model")
    path.write_text(
        path.read_text()
        .replace("options: {crops: 1, side: 96}", f"options: {{model: {folder}}}")
        .replace("{paper: {}}", "{paper: {}, big: {captions: {options: {model: a/captioner}}}}")
    )
    assert named_models(Project.at(project_root)) == [("a/captioner", None)]


def test_without_a_model_to_pull_it_says_so(project_root: Path) -> None:
    done = tevad(project_root, "encoders", "pull")
    assert done.returncode == 1
    assert "params.yaml names no model of the hub; say which to fetch" in done.stderr


def test_without_a_network_it_says_so_at_once(project_root: Path) -> None:
    done = tevad(project_root, "encoders", "pull", MODEL, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert f"error: {MODEL}: not fetched (" in done.stderr
    assert "Traceback" not in done.stderr
