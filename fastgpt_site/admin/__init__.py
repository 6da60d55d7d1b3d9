"""Registers the page of background jobs."""

from fastgpt_site.admin import jobs

__all__ = ["jobs"]
