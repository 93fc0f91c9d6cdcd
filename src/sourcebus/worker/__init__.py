"""The Celery application; see `sourcebus.worker.app`."""

from sourcebus.worker.app import app, invite

__all__ = ["app", "invite"]
