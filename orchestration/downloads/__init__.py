"""Public datasets by name: what ``tevad dataset download`` does.

``catalogue`` says what there is and on which terms, ``transfer`` brings files over HTTP, ``pins``
remembers what they were, ``unpacking`` opens archives that nobody vouches for, ``layouts`` turns
each dataset's own annotation into ``videos.csv`` and ``events.csv``, and ``acquisition`` does one
after the other.
"""
