"""`sourcebus top`: every source, live, and why it is not running now.

`figures` looks at the bus and takes differences, `view` draws what was seen, `command` is the loop with its keys. Looking has a
thread of its own, so that the screen stays alive, and says how old its figures are, while the bus does not answer.
"""

from sourcebus.cli.top.command import top

__all__ = ["top"]
