"""Any filesystem that fsspec has, by polling: FTP, SFTP, SMB, object stores, a git host, an archive.

`connector` is the connector itself, `store` the filesystem as the connector sees it, `tokens` what its listings are worth.
"""

from sourcebus.connectors.fsspec.connector import FsspecConnector

__all__ = ["FsspecConnector"]
