"""Registers the pages of knowledge bases."""

from datasets.admin import collections, data, datasets

__all__ = ["collections", "data", "datasets"]
