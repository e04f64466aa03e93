"""What nobody needs any more, found and removed: what ``tevad gc`` does.

:mod:`.collection` puts it together; :mod:`.needed` says what must stay, the other modules find what
does not: :mod:`.objects` in DVC's cache and remote, :mod:`.runs` in MLflow, :mod:`.leftovers` in the
project's folders.
"""
