"""The command line: `sourcebus …`. It reads what was typed, asks the rooms below and shows what they answer.

Exit codes: 0 good, 1 not good (a check failed, a server does not answer), 2 wrong usage. What a command found goes to
standard output, everything about the command itself to standard error, so that ``--json`` can be piped.
Nothing heavy is imported before a command really needs it: `sourcebus --help` answers at once.
"""

from sourcebus.cli.app import main

__all__ = ["main"]
