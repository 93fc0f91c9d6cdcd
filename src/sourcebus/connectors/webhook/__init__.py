"""The connectors ``webhook`` and ``cloudevents``: any system that posts its changes, set up by configuration alone.

The rooms inside: `settings` (what may be configured), `proof` (who sent it), `payload` (what it says), `reading` (getting the
object), `connector` (all of it together), `cloud_events` (the same for CloudEvents). What they promise is in
docs/connectors/webhook.md and docs/connectors/cloudevents.md.
"""

from sourcebus.connectors.webhook.cloud_events import CloudEventsConnector
from sourcebus.connectors.webhook.connector import WebhookConnector

__all__ = ["CloudEventsConnector", "WebhookConnector"]
