"""A process of the service with faults built in: `python -m bench.faults.launcher celery|gunicorn <arguments>`.

`FAULT_POINTS=folder` makes it stop or die where the suite aims, see `driver`; `REPEAT=n` sends every message n times.
The product has no such hooks: they are put around the libraries that it uses.
"""

from __future__ import annotations

import os
import random
import runpy
import select
import sys
import time
from typing import Any

if "FAKETIME" in os.environ:
    # libfaketime does not know the call behind Python's sleep; select waits as well.

    def _sleep(seconds: float) -> None:
        select.select([], [], [], max(0.0, seconds))

    time.sleep = _sleep  # type: ignore[assignment]

from celery import Celery

from bench.faults import driver


def repeat_messages(times: int, seed: int) -> None:
    """Send every message several times, and some of those sent before once more."""
    original, dice, sent = Celery.send_task, random.Random(seed), list[Any]()

    def sending(app: Celery, *args: Any, **options: Any) -> Any:
        sent.append((args, options))
        again = [(args, options)] * times + dice.sample(sent, min(len(sent), 2))
        dice.shuffle(again)
        return [original(app, *one, **dict(how)) for one, how in again][-1]

    Celery.send_task = sending


def _main(module: str) -> None:
    process = "web" if module == "gunicorn" else "beat" if "beat" in sys.argv else "worker"
    driver.install(process)
    if times := os.environ.get("REPEAT"):
        repeat_messages(int(times), int(os.environ.get("SEED", "1")))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    del sys.argv[0]
    _main(sys.argv[0])
