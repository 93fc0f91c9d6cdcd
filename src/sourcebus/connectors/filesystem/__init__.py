"""The connector ``filesystem``: the files below one directory.

The rooms inside: `patterns` (which files), `tree` (listing and reading without leaving the root), `inotify` and `watching`
(what changes, at once). What it promises is in docs/connectors/filesystem.md.
"""

from sourcebus.connectors.filesystem.connector import FilesystemConnector
from sourcebus.connectors.patterns import DEFAULT_EXCLUDES

__all__ = ["DEFAULT_EXCLUDES", "FilesystemConnector"]
