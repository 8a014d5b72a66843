"""Fetches what a replica's mounts are made of to the node: git trees, files of images, prefixes of object stores."""

from easel_agent.sources.fetching import Sources
from easel_agent.sources.model import CannotFetch, Fetched, ImageFiles, Login, SourceLimits
from easel_agent.sources.object_stores import ObjectStores
from easel_agent.sources.writable import inside

__all__ = ["CannotFetch", "Fetched", "ImageFiles", "Login", "ObjectStores", "SourceLimits", "Sources", "inside"]
