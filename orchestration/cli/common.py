"""What every command needs: the project it works in, and failures told as messages."""

from __future__ import annotations

import functools
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from assets.workspace.project import Project
from tevad_model.atomic import full_disks_named
from tevad_model.errors import InputError


class Failure(click.ClickException):
    """A message for the user and exit code 1."""

    def show(self, file: Any = None) -> None:
        """Print the message in red, on stderr."""
        click.secho(f"error: {self.format_message()}", fg="red", err=True, file=file)


class Interrupted(Failure):
    """As a failure, with the exit code that a shell gives what Ctrl-C ended."""

    exit_code = 130


def reported(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what the user can repair into a message instead of a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with full_disks_named():
                command(*args, **kwargs)
        except InputError as error:
            raise Failure(str(error)) from None

    return wrapped


def current_project() -> Project:
    """The project the command works in; Dagster and the libraries below it point at it from now."""
    from orchestration.running import use_project

    project = Project.find()
    use_project(project)
    return project


def acting(by: str | None) -> str:
    """Who does it, for the record: who is named, else the user that the process belongs to.

    The name that the environment gives does not count: in a container it is the image's.

    Raises:
        InputError: if nobody is named and the system knows the user by number alone.
    """
    try:
        return by or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise InputError(
            f"user {os.getuid()} has no name on this system, as in a container; say who it is by "
            "--by NAME"
        ) from None


def address(_: click.Context, __: click.Parameter, value: Any) -> Any:
    """Addresses on this machine are taken from the working folder, not from the project's."""
    if isinstance(value, tuple):
        return tuple(address(_, __, each) for each in value)
    if value is None or "://" in value:
        return value
    return str(Path(value).expanduser().absolute())
