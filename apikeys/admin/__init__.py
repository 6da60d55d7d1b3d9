"""Registers the pages of this app."""

from apikeys.admin import alerts, audit, endpoints, limits, people, usage
from apikeys.admin.keys import key_admin

__all__ = ["alerts", "audit", "endpoints", "key_admin", "limits", "people", "usage"]
