"""HTTP: events, sources, search, dead letters and the doors for monitoring. `create_app` makes the application.

A request passes the shield (host, origin, error ids), then one route. Routes read and check what was sent, call one
method of the runtime's parts in a thread, and write down its answer; they decide nothing themselves.
"""

from sourcebus.gateway.app import create_app

__all__ = ["create_app"]
