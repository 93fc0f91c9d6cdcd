"""The connector ``slack``: the threads of channels, each with its replies as one document.

The rooms inside: `settings` (what a source's config says), `web` (the Web API: what its errors mean), `threads` (what a thread
shows, and its version), `events` (what a delivery of the Events API says) and `connector`. What it promises is in
docs/connectors/slack.md.
"""

from sourcebus.connectors.slack.connector import SlackConnector

__all__ = ["SlackConnector"]
