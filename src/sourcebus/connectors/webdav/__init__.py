"""The files, calendar entries or contacts of a WebDAV collection (RFC 4918), listed by sync tokens (RFC 6578) or by ETags.

`connector` is the connector itself, `listing` what changed, `members` what is said of one object, `multistatus` the XML that
goes both ways, `paths` references and hrefs.
"""

from sourcebus.connectors.webdav.connector import WebdavConnector

__all__ = ["WebdavConnector"]
