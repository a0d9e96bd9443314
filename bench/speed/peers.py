"""The tools people would pick instead; each is measured where it is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from config.settings import PROJECT

PEERS = PROJECT / ".venv" / "peers" / "bin" / "python"

_DLT = """
import csv, os, sys, time
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
import dlt
url, path = sys.argv[1:]
@dlt.resource(name="products", primary_key="id", write_disposition="merge")
def products():
    with open(path, newline="") as file:
        rows = []
        for row in csv.DictReader(file):
            rows.append(row)
            if len(rows) == 5000:
                yield rows
                rows = []
        yield rows
started = time.monotonic()
pipeline = dlt.pipeline("bench", destination=dlt.destinations.postgres(url), dataset_name="dlt", pipelines_dir=sys.argv[2] + ".dlt")
pipeline.run(products())
print(time.monotonic() - started)
"""


def load_with_dlt(url: str, path: Path) -> float | None:
    """Seconds for a merge of the file with dlt, None where it is not installed."""
    if not PEERS.exists():
        return None
    done = subprocess.run([PEERS, "-c", _DLT, url, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout.split()[-1])
