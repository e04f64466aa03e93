"""The definitions as a contract: what people, schedules and dashboards rely on by name."""

from pathlib import Path

import dagster as dg
import pytest

from assets.partitions import DATASETS
from assets.workspace.face import RESOURCE
from assets.workspace.project import FEATURE_STAGES, STAGES, Project
from orchestration.build import ASSETS, SPECS, build_defs
from orchestration.jobs import CHAIN
from orchestration.resources import ProjectResource
from tevad_model.errors import InputError

ASSET_GRAPH = {
    "raw_videos": ("data", set()),
    "snippet_features": ("features", {"raw_videos"}),
    "captions": ("features", {"raw_videos"}),
    "sentence_encoder": ("features", {"raw_videos", "captions"}),
    "caption_embeddings": ("features", {"captions", "sentence_encoder"}),
    "tevad_model": (
        "model",
        {*FEATURE_STAGES},
    ),
    "evaluation_metrics": (
        "model",
        {*FEATURE_STAGES, "tevad_model"},
    ),
    "registered_model": ("model", {"tevad_model", "evaluation_metrics"}),
    "promotion_decision": ("model", {"evaluation_metrics", "registered_model"}),
    "scored_videos": (
        "serving",
        {"raw_videos", "snippet_features", "captions", "caption_embeddings", "promotion_decision"},
    ),
    "review_page": ("serving", {"scored_videos", "raw_videos"}),
    "drift": ("serving", {"raw_videos", "snippet_features", "caption_embeddings", "scored_videos"}),
}
"""By asset: its group and what it is made from."""

BLOCKING = {
    "raw_videos": {
        "both_labels_in_each_split",
        "few_videos_are_quarantined",
        "videos_are_accounted_for",
    },
    "snippet_features": {
        "a_result_for_every_snippet",
        "features_are_finite",
        "one_encoder_made_all",
        "one_shape",
    },
    "captions": {"a_result_for_every_snippet", "no_caption_is_empty", "one_encoder_made_all"},
    "sentence_encoder": {"a_kept_encoder_improves", "a_kept_encoder_is_whole"},
    "caption_embeddings": {
        "a_result_for_every_snippet",
        "embeddings_are_finite",
        "equal_captions_have_equal_embeddings",
        "one_encoder_made_all",
        "one_shape",
    },
    "tevad_model": {"losses_are_finite", "training_scores_in_range"},
    "evaluation_metrics": {
        "better_than_chance",
        "every_test_frame_is_scored",
        "scores_in_range",
    },
}
"""By asset: the checks that stop what is behind it."""

WARNING = {
    "raw_videos": {"no_video_is_quarantined", "nothing_strange_in_the_source"},
    "snippet_features": {"feature_norms_in_range", "few_dead_dimensions"},
    "captions": {"captions_differ", "captions_have_a_vocabulary"},
    "caption_embeddings": {"embedding_norms_in_range"},
    "tevad_model": {"validation_better_than_chance"},
    "drift": {"nothing_has_drifted"},
}
"""By asset: the checks that only say what a person should look at."""

JOBS = {
    "features": {
        "raw_videos",
        "snippet_features",
        "captions",
        "sentence_encoder",
        "caption_embeddings",
    },
    "train": {"tevad_model", "evaluation_metrics", "registered_model", "promotion_decision"},
    "everything": set(CHAIN),
    "score": {"scored_videos", "review_page"},
    "rollback": set(),
    "arrivals": {
        "raw_videos",
        "snippet_features",
        "captions",
        "sentence_encoder",
        "caption_embeddings",
        "scored_videos",
        "drift",
    },
}
SENSORS = {
    "arrivals": dg.DefaultSensorStatus.RUNNING,
    "automation": dg.DefaultSensorStatus.RUNNING,
    "dvc_versions": dg.DefaultSensorStatus.RUNNING,
    "notify_log": dg.DefaultSensorStatus.RUNNING,
    "retraining_need": dg.DefaultSensorStatus.RUNNING,
}
SCHEDULES = {"retraining": ("0 3 * * 1", "UTC", dg.DefaultScheduleStatus.RUNNING)}


@pytest.fixture
def defs(project_root: Path) -> dg.Definitions:
    return build_defs(Project.at(project_root))


def checks(defs: dg.Definitions, *, blocking: bool) -> dict[str, set[str]]:
    """Names of the checks by asset."""
    found: dict[str, set[str]] = {}
    for definition in defs.asset_checks or ():
        assert isinstance(definition, dg.AssetChecksDefinition)
        for spec in definition.check_specs:
            if spec.blocking == blocking:
                found.setdefault(spec.asset_key.to_user_string(), set()).add(spec.name)
    return found


def test_the_asset_graph() -> None:
    found = {
        spec.key.to_user_string(): (
            spec.group_name,
            {dep.asset_key.to_user_string() for dep in spec.deps},
        )
        for spec in SPECS
    }
    assert found == ASSET_GRAPH


def test_every_asset_is_of_a_dataset_and_says_what_it_is() -> None:
    for asset in ASSETS:
        spec = asset.get_asset_spec()
        assert spec.partitions_def == DATASETS
        assert spec.code_version
        assert spec.description
        assert "python" in spec.kinds


def test_the_checks(defs: dg.Definitions) -> None:
    assert checks(defs, blocking=True) == BLOCKING
    assert checks(defs, blocking=False) == WARNING


def test_the_jobs(defs: dg.Definitions) -> None:
    found = {}
    for job in defs.jobs or ():
        layer = defs.resolve_job_def(job.name).asset_layer
        found[job.name] = {key.to_user_string() for key in layer.selected_asset_keys}
    assert found == JOBS


def test_a_job_checks_what_it_makes(defs: dg.Definitions) -> None:
    for name, assets in JOBS.items():
        graph = defs.resolve_job_def(name).asset_layer.asset_graph
        checked = {key.asset_key.to_user_string() for key in graph.asset_check_keys}
        assert checked == assets & (BLOCKING.keys() | WARNING.keys())


def test_the_sensors(defs: dg.Definitions) -> None:
    assert {sensor.name: sensor.default_status for sensor in defs.sensors or ()} == SENSORS


def test_the_schedules(defs: dg.Definitions) -> None:
    found = {}
    for schedule in defs.schedules or ():
        assert isinstance(schedule, dg.ScheduleDefinition)
        found[schedule.name] = (
            schedule.cron_schedule,
            schedule.execution_timezone,
            schedule.default_status,
        )
    assert found == SCHEDULES


def test_a_schedule_at_no_time_is_named_by_its_key(project_root: Path) -> None:
    with (project_root / "params.yaml").open("a") as file:
        file.write('retraining: {cron: "at noon"}\n')
    with pytest.raises(InputError, match=r"retraining\.cron: 'at noon' is no time"):
        build_defs(Project.at(project_root))


def test_the_chain_is_in_order_and_has_a_folder_a_stage() -> None:
    assert (*STAGES, "registered_model", "promotion_decision") == CHAIN
    for index, name in enumerate(CHAIN):
        assert ASSET_GRAPH[name][1] <= set(CHAIN[:index])


def test_everything_resolves(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)


def test_a_resource_can_be_put_in_the_place_of_the_projects_own(
    defs: dg.Definitions, project_root: Path, tmp_path: Path
) -> None:
    assert defs.resources == {RESOURCE: ProjectResource(root=str(project_root))}
    other = ProjectResource(root=str(tmp_path))
    built = build_defs(Project.at(project_root), resource_overrides={RESOURCE: other})
    assert built.resources == {RESOURCE: other}
