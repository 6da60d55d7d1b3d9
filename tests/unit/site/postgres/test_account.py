"""The system account that PostgreSQL runs as."""

import os
import pwd
import subprocess
import sys

import pytest

from tests.environment import PROJECT

NAME = "fastgpt-test"
MAKE = f"""
import pwd
from fastgpt_site.postgres import account
account.NAME = {NAME!r}
print(account.switch()["user"])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes an account")
def test_processes_that_make_it_at_the_same_moment():
    try:
        for _ in range(4):
            subprocess.run(["userdel", NAME], check=False, capture_output=True)
            makers = [
                subprocess.Popen([sys.executable, "-c", MAKE], cwd=PROJECT, stdout=subprocess.PIPE) for _ in range(4)
            ]
            found = {int(maker.communicate()[0]) for maker in makers}
            assert found == {pwd.getpwnam(NAME).pw_uid}
    finally:
        subprocess.run(["userdel", NAME], check=False, capture_output=True)
