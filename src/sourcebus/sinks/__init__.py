"""Where documents go besides the built-in index: a `Sink` gets every outcome that changes documents.

`HttpSink` stands in `sourcebus.sinks.http` and needs the packages httpx and stamina, so it is not imported here.
"""

from sourcebus.sinks.base import Sink, as_json, concerns
from sourcebus.sinks.callback import CallbackSink

__all__ = ["CallbackSink", "Sink", "as_json", "concerns"]
