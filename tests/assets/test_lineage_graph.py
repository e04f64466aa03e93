"""The picture of a version's lineage."""

from __future__ import annotations

import base64
from xml.etree import ElementTree

from assets.lineage_graph import lineage_picture, lineage_svg
from assets.workspace.project import STAGES

SVG = "{http://www.w3.org/2000/svg}"
TAGS = {
    **{f"tevad.data.{stage}": f"{number:032x}.dir" for number, stage in enumerate(STAGES)},
    "tevad.run_id": "f00d" * 8,
    "tevad.git.commit": "abcdef" * 6 + "abcd",
    "tevad.git.dirty": "true",
    "tevad.metric.frame_auc": "0.91234567",
}


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - the project's own


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}text")]


def test_it_names_every_version_the_run_and_the_code() -> None:
    said = texts(lineage_svg("models:/tevad-x/3", TAGS))
    assert said[0:2] == ["raw_videos", "0" * 12]
    assert [text for text in said if text in STAGES] == list(STAGES)
    assert "run f00df00df00d" in said
    assert "code abcdefabcdef with changes" in said
    assert said[-2:] == ["models:/tevad-x/3", "frame AUC 0.9123"]


def test_data_lead_to_the_run_the_run_to_the_models_and_they_to_the_version() -> None:
    found = parsed(lineage_svg("models:/tevad-x/3", TAGS))
    curves = [path for path in found.iter(f"{SVG}path") if path.get("marker-end")]
    assert len(curves) == 5 + 2 + 2


def test_what_is_not_known_is_left_out_and_names_are_escaped() -> None:
    known = {"tevad.run_id": "1", "tevad.data.raw_videos": "2.dir"}
    said = texts(lineage_svg("models:/a<b>&c/1", known))
    assert said == [
        "raw_videos", "2.dir", "run 1", "code outside of git",
        "models:/a<b>&c/1", "frame AUC not evaluated",
    ]  # fmt: skip


def test_as_markdown_it_is_an_image_in_itself() -> None:
    text = lineage_picture("models:/tevad-x/3", TAGS)
    head, _, data = text.removesuffix(")").partition("base64,")
    assert head == "![lineage of models:/tevad-x/3](data:image/svg+xml;"
    assert base64.b64decode(data).decode() == lineage_svg("models:/tevad-x/3", TAGS)
