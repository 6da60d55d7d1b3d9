"""The project's server process with a fast hash of passwords: `python -m tests.support.server_process FD`."""

import sys

import django
from django.conf import settings

if __name__ == "__main__":
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    django.setup()

    from fastgpt_site.process.worker import main

    main(int(sys.argv[1]))
