"""``tevad serve``: a registered model over HTTP."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from orchestration.cli.common import current_project, reported


@click.command()
@click.option("--model", help="models:/NAME@ALIAS or models:/NAME/VERSION.")
@click.option("--port", default=5001, show_default=True, help="To listen on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="To listen on.")
@click.option(
    "--root", "roots", multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder that videos are read from; again for more. Without one, only uploads are.",
)  # fmt: skip
@click.option(
    "--upload-mb", default=64, show_default=True, type=click.IntRange(min=1),
    help="Largest video that is uploaded.",
)  # fmt: skip
@reported
def serve(model: str | None, port: int, host: str, roots: tuple[Path, ...], upload_mb: int) -> None:
    """Serve a registered model over HTTP until interrupted.

    The server is MLflow's (POST /invocations), with limits on what a request may hold and which
    files it may name. docs/serving.md has the client.
    """
    import uvicorn

    from assets.scoring import address, default_model, find_version
    from assets.workspace.tracking import Tracking

    project = current_project()
    tracking = Tracking.of(project)
    version = address(find_version(tracking.client, model or default_model(tracking)))
    app = project.mlflow_file("scoring_app.py")
    os.environ.update(
        MLFLOW_TRACKING_URI=tracking.uri,
        TEVAD_CACHE=str(project.cache),
        TEVAD_SERVE_MODEL=version,
        TEVAD_SERVE_ROOTS=os.pathsep.join(str(root.resolve()) for root in roots),
        TEVAD_SERVE_UPLOAD_MB=str(upload_mb),
        # A third is added by base64, and something by JSON.
        TEVAD_SERVE_REQUEST_MB=str(upload_mb * 4 // 3 + 1),
    )
    if host not in ("127.0.0.1", "localhost", "::1"):
        click.secho(
            f"warning: {host} is reached by others, and nothing here asks who they are; put a "
            "proxy in front (docs/deploy.md)", fg="yellow", err=True,
        )  # fmt: skip
    click.echo(f"{version}: http://{host}:{port}/invocations")
    sys.path.insert(0, str(app.parent))
    uvicorn.run("scoring_app:app", host=host, port=port, log_level="warning")
