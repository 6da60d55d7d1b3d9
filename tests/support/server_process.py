"""The project's server process with a fast hash of passwords: `python -m tests.support.server_process FD`.

Sums are taken over by the metrics every MEASURE_SECONDS, if the environment has it.
"""

import os
import sys

import django
from django.conf import settings

if __name__ == "__main__":
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    django.setup()

    from fastgpt_site.observability import metrics
    from fastgpt_site.process.worker import main

    metrics.MEASURE_SECONDS = float(os.environ.get("MEASURE_SECONDS", metrics.MEASURE_SECONDS))
    main(int(sys.argv[1]))
