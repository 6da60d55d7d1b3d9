"""Registers the pages of providers, models, apps and conversations."""

from chat.admin import apps, catalog, conversations, providers

__all__ = ["apps", "catalog", "conversations", "providers"]
