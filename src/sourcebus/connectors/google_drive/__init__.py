"""Google Drive: a shared drive, a user's My Drive, or folders of either; how to set it up: docs/connectors/google_drive.md."""

from sourcebus.connectors.google_drive.connector import GoogleDriveConnector

__all__ = ["GoogleDriveConnector"]
