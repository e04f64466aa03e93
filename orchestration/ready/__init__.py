"""A process that has loaded the libraries already, from which commands start at once.

Most of what a short command takes is importing Dagster, MLflow, Great Expectations and
transformers. ``tevad up`` keeps one process that has done so (:mod:`orchestration.ready.server`).
``tevad`` (:mod:`orchestration.ready.program`) hands its command over: the process forks, and the
fork takes over the command's arguments, folder, environment, standard streams and signals. The
manner is that of Mercurial's ``chg``. What cannot be handed over exactly is run as without it.

Here is what both sides agree on. Neither imports this for more than constants: ``tevad`` must start
before anything heavy is loaded.
"""

SOCKET = "commands.socket"
"""Where the process listens, in the project's state: for this user alone."""

ACCEPTED, REFUSED = b"a", b"r"
"""The first byte of an answer; after ``ACCEPTED`` comes the exit code, when the command has ended."""
