"""The connector ``github``: files of one branch, issues, pull requests and wiki pages of one repository.

The rooms inside: `settings` (what a source's config says), `repository` (the REST API of one repository: throttling,
conditional requests, what a 404 is worth), `contents`, `threads` and `wiki` (one kind of object each), `webhooks` (what a
delivery says) and `connector`. What it promises is in docs/connectors/github.md.
"""

from sourcebus.connectors.github.connector import GithubConnector

__all__ = ["GithubConnector"]
