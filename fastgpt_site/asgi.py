"""The ASGI entry point. The application is not made while a system check fails, so nothing unsafe is served."""

import logging
import os
import warnings

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fastgpt_site.settings")
django.setup(set_prefix=False)
# Whitenoise reads the admin's files synchronously. They are small.
warnings.filterwarnings("ignore", "StreamingHttpResponse must consume synchronous iterators")

from django.core.checks import ERROR, run_checks  # noqa: E402
from django.core.exceptions import ImproperlyConfigured  # noqa: E402

from fastgpt_site import theme  # noqa: E402
from fastgpt_site.http.application import Application  # noqa: E402

logger = logging.getLogger(__name__)


def get_application() -> Application:
    """Return the application of this process. Raise ImproperlyConfigured while a system check fails."""
    # The first line of a process's log says which version wrote the rest, whatever stops it afterwards.
    logger.info("%s starts a server process", theme.release(), extra={"fields": {"process_id": os.getpid()}})
    errors = [error for error in run_checks() if error.level >= ERROR]
    if errors:
        raise ImproperlyConfigured("\n".join(str(error) for error in errors))
    return Application()


application = get_application()
