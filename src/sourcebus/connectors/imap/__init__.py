"""The messages of an IMAP account: listed by CONDSTORE and QRESYNC, watched by IDLE, read as RFC 5322.

`connector` is the connector itself, `session` one connection, `pool` several of them, `listing` what changed in a mailbox,
`watching` the IDLE connections, `message` from a message's bytes to documents, `names` references and mailbox patterns,
`settings` and `oauth` how to get in.
"""

from sourcebus.connectors.imap.connector import ImapConnector

__all__ = ["ImapConnector"]
