"""Notion: the pages that an integration may see, rows of databases among them; how to set it up: docs/connectors/notion.md."""

from sourcebus.connectors.notion.connector import NotionConnector

__all__ = ["NotionConnector"]
