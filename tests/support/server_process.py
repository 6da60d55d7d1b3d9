"""The project's server process on the test database: `python -m tests.support.server_process FD DATABASE`."""

import sys

import django
from django.conf import settings

if __name__ == "__main__":
    descriptor, name = int(sys.argv[1]), sys.argv[2]
    settings.DATABASES["default"]["NAME"] = name
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    django.setup()

    from fastgpt_site.process.worker import main

    main(descriptor)
