"""API keys."""

from __future__ import annotations

import subprocess
import sys

from config.settings import PROJECT
from etl.access.keys import hash_key, is_known, stored_form


def test_a_key_is_known_by_its_hash_however_it_was_given() -> None:
    hashes = stored_form(["plain", hash_key("hashed")])
    assert hashes == (hash_key("plain"), hash_key("hashed"))
    assert is_known("plain", hashes)
    assert is_known("hashed", hashes)
    assert not is_known("other", hashes)
    assert not is_known(hash_key("hashed"), hashes), "who reads the hash does not have the key"


def test_the_commands_of_the_stack_need_no_flask() -> None:
    code = "import sys, stack.__main__; print(sorted({'flask', 'werkzeug', 'celery'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
