"""Who is champion: the policy, the evidence, the decision, the alias, and the way back.

Plain functions; their Dagster face is :mod:`assets.promotion_decision`. Nothing else in the project
moves the alias ``champion``.
"""
