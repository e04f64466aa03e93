"""Which encoders there are, and fetching their models: what ``tevad encoders …`` does."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from assets.workspace.project import Project
from tevad_model import encoders
from tevad_model.encoders import hub
from tevad_model.encoders.hub import Pulled
from tevad_model.errors import InputError


def describe() -> Iterator[str]:
    """Lines on every backend of the project's own: what it is, its options and their defaults."""
    for kind in encoders.KINDS:
        yield f"{kind.section}:"
        for name in kind.backends:
            encoder = encoders.find_backend(kind, name)
            yield f"  backend: {name}"
            yield f"    {_first_line(encoder)}"
            for option, field in encoder.Options.model_fields.items():
                given = (
                    "required"
                    if field.is_required()
                    else f"default {field.get_default(call_default_factory=True)!r}"
                )
                yield f"      {option} ({given}): {field.description or ''}".rstrip()


def pull(project: Project, model: str | None, revision: str | None) -> list[Pulled]:
    """Fetch one model, or all models of the hub that ``params.yaml`` names.

    Args:
        project: whose parameters to look at.
        model: the hub's name of it; None for all that the parameters name.
        revision: of that model; by default its newest commit.

    Raises:
        InputError: if a model cannot be fetched or has no safetensors, or there is none to fetch.
    """
    if model is not None:
        return [hub.pull(model, revision)]
    wanted = named_models(project)
    if not wanted:
        raise InputError("params.yaml names no model of the hub; say which to fetch")
    return [hub.pull(name, pinned) for name, pinned in wanted]


def named_models(project: Project) -> list[tuple[str, str | None]]:
    """Name and revision of each model of the hub in the parameters, presets included."""
    params = project.params
    sections: list[Mapping[str, Any]] = [
        params.model_dump(include={kind.section for kind in encoders.KINDS}),
        *params.presets.values(),
    ]
    found: dict[tuple[str, str | None], None] = {}
    for section in sections:
        for kind in encoders.KINDS:
            options = section.get(kind.section, {}).get("options", {})
            name = options.get("model")
            if hub.is_name(name):
                found[name, options.get("revision")] = None
    return list(found)


def summary(pulled: Pulled) -> str:
    """Where a fetched model lies, and what to write into ``params.yaml`` for it."""
    return (
        f"{pulled.model} at {pulled.commit}, {pulled.bytes / 1e6:,.1f} MB, in {pulled.folder}\n"
        f"  options: {{model: {pulled.model}, revision: {pulled.commit}}}"
    )


def _first_line(encoder: type[Any]) -> str:
    module = inspect.getmodule(encoder)
    return (inspect.getdoc(module) or "").splitlines()[0]
