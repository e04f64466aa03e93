"""Assembly: definitions, resources, jobs, schedules, sensors and the command line.

Nothing here computes a result. What a stage does is in ``assets``, what a model does in
``tevad_model``; this package only puts them together for those who run them.
"""
