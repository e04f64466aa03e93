"""Serving the review pages and the videos they play, on loopback: part of ``tevad up``.

A request names a dataset, a version, a video; each is looked up in what the project lists, and no
part of a request ever becomes a path. Nothing is computed here and nothing can be changed.
"""

from __future__ import annotations

import html
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from assets.raw_videos import read_raw_videos, video_path
from assets.review.pictures import clip_path
from assets.review_page import pages_folder
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import registered_name
from tevad_model.errors import InputError

_HOSTS = ["127.0.0.1", "localhost"]
"""By which the server may be called: a name that somebody else points here is refused."""


def create() -> Starlette:
    """The server of the project that the process runs in, as uvicorn asks for it."""
    return pages(Project.find())


def pages(project: Project) -> Starlette:
    """The server of a project.

    ``/`` lists the pages, ``/review/<dataset>`` leads to the newest of a dataset,
    ``/review/<dataset>/<version>`` is one, ``/videos/<dataset>/<video>`` a video, whole or by range.
    """

    def index(_: Request) -> Response:
        return HTMLResponse(_index(project))

    def newest(request: Request) -> Response:
        dataset = _dataset(project, request)
        found = sorted(_pages(dataset).items(), key=lambda item: item[1].stat().st_mtime_ns)
        if not found:
            raise HTTPException(404, f"{dataset.name} has no page yet: `tevad score --dataset`")
        return RedirectResponse(f"/review/{dataset.name}/{found[-1][0]}")

    def page(request: Request) -> Response:
        dataset, version = _dataset(project, request), request.path_params["version"]
        found = _pages(dataset)
        if version not in found:
            raise HTTPException(404, f"{dataset.name} has no page of version {version}")
        return FileResponse(found[version], media_type="text/html; charset=utf-8")

    def video(request: Request) -> Response:
        return FileResponse(_video(_dataset(project, request), request.path_params["video"]))

    return Starlette(
        routes=[
            Route("/", index),
            Route("/review/{dataset}", newest),
            Route("/review/{dataset}/{version}", page),
            Route("/videos/{dataset}/{video}", video),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)],
    )


def _dataset(project: Project, request: Request) -> Dataset:
    try:
        return project.dataset(request.path_params["dataset"])
    except InputError as error:
        raise HTTPException(404, str(error)) from None


def _pages(dataset: Dataset) -> dict[str, Path]:
    """The pages of a dataset by version, from the folder's own listing."""
    prefix = f"{registered_name(dataset.name)}-"
    folder = pages_folder(dataset.project) / dataset.name
    return {path.stem.removeprefix(prefix): path for path in folder.glob(f"{prefix}*.html")}


def _video(dataset: Dataset, name: str) -> Path:
    """The file to play of a listed video: the clip that was made of it, or its own."""
    try:
        row = read_raw_videos(dataset).by_video().get(name)
    except InputError as error:
        raise HTTPException(404, str(error)) from None
    if row is None or not row.path:
        raise HTTPException(404, f"{dataset.name} has no video of that name with pixels")
    clip = clip_path(dataset, row)
    found = clip if clip.is_file() else video_path(dataset, row)
    if not found.is_file():
        raise HTTPException(404, f"{found.name}: not there; `dvc checkout` brings it back")
    return found


def _index(project: Project) -> str:
    rows = [
        f'<li><a href="/review/{name}/{version}">{html.escape(name)}, version {version}</a></li>'
        for name in project.params.datasets
        for version in sorted(_pages(project.dataset(name)), key=lambda text: (len(text), text))
    ]
    listed = f"<ul>{''.join(rows)}</ul>" if rows else "<p>None yet: <code>tevad score</code>.</p>"
    return (
        f'<!doctype html><html lang="en"><title>Review pages</title><h1>Review pages</h1>{listed}'
    )
