"""Registers the pages of providers, apps and conversations."""

from chat.admin import apps

__all__ = ["apps"]
