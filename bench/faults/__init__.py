"""The fault suite: real processes are killed, stopped and cut off while a source with a known truth is loaded.

`python -m bench.faults` runs it; `scenarios` says which faults, `oracle` what must hold afterwards, `naive` is the
control arm: the same faults on plain Celery tasks, which must lose records, or the suite would prove nothing.
"""
