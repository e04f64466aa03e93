"""The software-defined assets and their checks, one file a stage.

Each file holds the stage as a plain function (folders in, folder out, a report back), the Dagster
asset that is its thin face, and the checks of what it wrote. What the stages stand on (parameters,
folders, manifests, versions, tracking) is in :mod:`assets.workspace`. Nothing here assembles
definitions, schedules or commands: that is ``orchestration``.
"""
