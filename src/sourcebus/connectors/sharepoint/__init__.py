"""SharePoint document libraries and OneDrive through Microsoft Graph; how to set it up: docs/connectors/sharepoint.md."""

from sourcebus.connectors.sharepoint.connector import SharePointConnector

__all__ = ["SharePointConnector"]
