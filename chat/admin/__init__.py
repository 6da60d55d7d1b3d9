"""Registers the pages of providers, apps and conversations."""

from chat.admin import apps, conversations, providers

__all__ = ["apps", "conversations", "providers"]
