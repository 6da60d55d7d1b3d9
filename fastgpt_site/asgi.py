"""The ASGI entry point. The application is not made while a system check fails, so nothing unsafe is served."""

import os
import warnings

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fastgpt_site.settings")
django.setup(set_prefix=False)
# Whitenoise reads the admin's files synchronously. They are small.
warnings.filterwarnings("ignore", "StreamingHttpResponse must consume synchronous iterators")

from django.core.checks import ERROR, run_checks  # noqa: E402
from django.core.exceptions import ImproperlyConfigured  # noqa: E402

from fastgpt_site.http.application import Application  # noqa: E402


def get_application() -> Application:
    """Return the application of this process. Raise ImproperlyConfigured while a system check fails."""
    errors = [error for error in run_checks() if error.level >= ERROR]
    if errors:
        raise ImproperlyConfigured("\n".join(str(error) for error in errors))
    return Application()


application = get_application()
