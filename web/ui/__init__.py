"""The pages under `/ui`: each shows what an endpoint of the API answers, by the same code."""

from web.ui import sign_in
from web.ui.shell import blueprint

__all__ = ["blueprint", "sign_in"]
