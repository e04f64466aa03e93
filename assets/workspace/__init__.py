"""What every stage stands on: parameters, folders, manifests, sources, versions, tracking, checks.

Nothing here knows a particular stage.
"""
