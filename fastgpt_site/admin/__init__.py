"""The admin's page of background jobs, which this registers."""

from fastgpt_site.admin import jobs

__all__ = ["jobs"]
