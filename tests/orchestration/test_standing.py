"""Whether a run would have anything to do: nothing after one, and something after any change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from projects import digests

from assets import captions, registered_model
from assets.checks.verdicts import FOLDER
from assets.raw_videos import ingest_raw_videos, read_raw_videos, video_path
from assets.tevad_model import find_training_run
from assets.workspace import files, listing
from assets.workspace.project import CHAIN, STAGES, Dataset
from assets.workspace.tracking import CHALLENGER, CHAMPION, DATA_TAG, Tracking
from assets.workspace.versions import LOCK_FILE, recorded
from orchestration.cli import main
from orchestration.standing import look
from tevad_model.encoders import motion

Change = Callable[[Dataset, pytest.MonkeyPatch], object]

MODEL = "tevad-rendered"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def edit_params(old: str, new: str) -> Change:
    return lambda dataset, _: edit(dataset.project.root / "params.yaml", old, new)


def in_source(dataset: Dataset) -> Path:
    return dataset.project.root / str(dataset.entry.source)


def copy_again_to_source(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    os.utime(min(in_source(dataset).glob("videos/*.mp4")))


def lose_source(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    in_source(dataset).rename(in_source(dataset).with_name("elsewhere"))


def lose_source_once(dataset: Dataset, patch: pytest.MonkeyPatch) -> None:
    lose_source(dataset, patch)
    ingest_raw_videos(dataset, listing.refresh_if_reachable(dataset))
    in_source(dataset).with_name("elsewhere").rename(in_source(dataset))


def drop_from_table(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    table = in_source(dataset) / "videos.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")


def damage_video(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    path = video_path(dataset, read_raw_videos(dataset).usable[0])
    content = path.read_bytes()
    path.unlink()  # it may be linked to DVC's cache
    path.write_bytes(content[:-1] + b"!")


def remove_features(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    min(dataset.stage("snippet_features").glob("*.safetensors")).unlink()


def add_to_captions(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    (dataset.stage("captions") / "stray.jsonl").write_text("{}\n")


def forget_model_in_lock(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    version = recorded(dataset.project)["tevad_model", dataset.name]
    edit(dataset.project.root / LOCK_FILE, version, version[::-1])


def lose_picture(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    (dataset.reports / "figures" / "timelines.png").unlink()


def lose_report(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    (dataset.reports / "raw_videos.json").unlink()


def lose_page(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    (dataset.reports / "data_docs" / "captions" / "videos.html").unlink()


def fail_blocking_check(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    path = dataset.reports / FOLDER / "captions.json"
    given = files.read_json(path)
    [verdict] = [each for each in given["checks"] if each["check"] == "no_caption_is_empty"]
    verdict["passed"] = False
    files.write_json(path, given)


def delete_run(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    tracking = Tracking.of(dataset.project)
    run = find_training_run(dataset, tracking)
    assert run is not None
    tracking.client.delete_run(run.run_id)


def lose_evaluation(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    tracking = Tracking.of(dataset.project)
    run = find_training_run(dataset, tracking)
    assert run is not None
    tracking.client.delete_tag(run.run_id, f"{DATA_TAG}evaluation_metrics")


def delete_version(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    client = Tracking.of(dataset.project).client
    version = client.get_model_version_by_alias(MODEL, CHALLENGER)
    client.delete_model_version(MODEL, str(version.version))


def edit_card(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    path = dataset.project.mlflow_folder / "model_card.md"
    path.write_text(f"{path.read_text()}\nA word more.\n")


def dethrone(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    Tracking.of(dataset.project).client.delete_registered_model_alias(MODEL, CHAMPION)


def wipe_captions(_: Dataset, __: pytest.MonkeyPatch) -> None:
    with dg.DagsterInstance.get() as instance:
        instance.wipe_assets([dg.AssetKey("captions")])


def report_other_decision(dataset: Dataset, _: pytest.MonkeyPatch) -> None:
    with dg.DagsterInstance.get() as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                "promotion_decision",
                partition=dataset.name,
                tags={"dagster/data_version": "another", "dagster/code_version": "1"},
            )
        )


def raise_version_of(place: object) -> Change:
    return lambda _, patch: patch.setattr(place, "CODE_VERSION", "another")


def raise_dagsters_code_version(dataset: Dataset, patch: pytest.MonkeyPatch) -> None:
    spec = registered_model.registered_model.get_asset_spec()
    patch.setattr("orchestration.standing.SPECS", [spec.replace_attributes(code_version="another")])


CHANGES: dict[str, tuple[Change, str]] = {
    "a source file": (copy_again_to_source, "raw_videos is not"),
    "the source's table": (drop_from_table, "raw_videos is not"),
    "a source that is gone": (lose_source, "going on with the last listing: "),
    "a source that is there again": (lose_source_once, "the source is reached again"),
    "a video": (damage_video, "raw_videos is not"),
    "a file less": (remove_features, "snippet_features is not"),
    "a file more": (add_to_captions, "captions is not"),
    "a parameter": (edit_params("iterations: 30", "iterations: 31"), "tevad_model is not"),
    "an encoder's option": (edit_params("side: 96", "side: 64"), "snippet_features is not"),
    "a limit": (edit_params("min_auc: 0.0", "min_auc: 0.1"), "raw_videos was not judged"),
    "dvc.lock": (forget_model_in_lock, "tevad_model is not"),
    "a stage's code": (raise_version_of(captions), "captions is not"),
    "an encoder's code": (raise_version_of(motion), "captions is not"),
    "an asset's code": (raise_dagsters_code_version, "Dagster does not have registered_model"),
    "a picture": (lose_picture, "evaluation_metrics is not"),
    "a stage's report": (lose_report, "the report of raw_videos is not there"),
    "a page of the data docs": (lose_page, "captions was not judged"),
    "a verdict": (fail_blocking_check, "captions: check no_caption_is_empty failed"),
    "MLflow's run": (delete_run, "evaluation_metrics is not"),
    "the evaluation in MLflow": (lose_evaluation, "evaluation_metrics is not"),
    "the registered version": (delete_version, "registered_model is not"),
    "a card's template": (edit_card, "registered_model is not"),
    "the champion": (dethrone, "promotion_decision is to be"),
    "Dagster's record": (wipe_captions, "Dagster does not have captions"),
    "Dagster's decision": (report_other_decision, "Dagster does not have promotion_decision"),
}


def tevad(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def runs() -> int:
    with dg.DagsterInstance.get() as instance:
        return instance.get_runs_count()


def test_after_a_run_there_is_nothing_to_do_and_nothing_is_done(trained_copy: Dataset) -> None:
    before, data = runs(), digests(trained_copy.project.data)
    result = tevad("run", trained_copy.name)
    assert result.exit_code == 0, result.output
    assert "rendered: nothing to do" in result.stdout
    stands = look(trained_copy)
    assert list(stands.versions) == list(CHAIN)
    assert all(f"{name:<20}{version}" in result.stdout for name, version in stands.versions.items())
    stages = {stage: stands.versions[stage] for stage in STAGES}
    assert stages == {s: recorded(trained_copy.project)[s, trained_copy.name] for s in STAGES}
    assert runs() == before
    assert digests(trained_copy.project.data) == data


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_a_reason_to_run(
    trained_copy: Dataset, monkeypatch: pytest.MonkeyPatch, change: Change, reason: str
) -> None:
    change(trained_copy, monkeypatch)
    dataset = trained_copy.project.dataset(trained_copy.name)  # its parameters as they are now
    assert look(dataset).reason_to_run.startswith(reason)


def test_a_run_that_failed_is_run_again_though_all_is_as_it_was(trained_copy: Dataset) -> None:
    before, table = runs(), in_source(trained_copy) / "videos.csv"
    text = table.read_text()
    table.write_text("nothing of a table\n")
    result = tevad("run", trained_copy.name)
    assert (result.exit_code, runs()) == (1, before + 1), result.output
    table.write_text(text)
    assert look(trained_copy).reason_to_run == "the last run has not succeeded"
