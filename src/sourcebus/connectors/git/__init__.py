"""The connector ``git``: the files at the head of a branch of any git repository.

The rooms inside: `settings`, `command` (running git safely), `remote` (which commit is the newest), `mirror` (a copy to read
from), `snapshot` (the files of a commit), `hooks` (what a push hook says). What it promises is in docs/connectors/git.md.
"""

from sourcebus.connectors.git.connector import GitConnector

__all__ = ["GitConnector"]
