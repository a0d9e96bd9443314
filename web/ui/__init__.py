"""The pages under `/ui`: each shows what an endpoint of the API answers, by the same code."""

from web.ui import data, new_source, overview, rejects, replays, runs, service, sign_in, source, sources
from web.ui.shell import blueprint

__all__ = [
    "blueprint",
    "data",
    "new_source",
    "overview",
    "rejects",
    "replays",
    "runs",
    "service",
    "sign_in",
    "source",
    "sources",
]
