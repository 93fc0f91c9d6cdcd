"""Ends what a killed supervisor left behind. Run as a script by the supervisor; imports nothing of sourcebus.

Standard input is a pipe whose other end only the supervisor holds (and each child until it has told its number): a
line ``123`` names a process group to look after, ``-123`` one that has ended. End of file means that the supervisor is
gone, in whatever way; then the groups still known are asked to end, and after a while made to. A pipe instead of Linux's
parent-death signal: that one reaches only the direct child, not the pool processes of a worker, fires when the thread
that forked ends, and does not exist on macOS.
"""

import os
import signal
import sys
import time

_PATIENCE_S = 5.0


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        number = int(line)
        if number > 0:
            groups.add(number)
        else:
            groups.discard(-number)
    for patience_s, sent in ((_PATIENCE_S, signal.SIGTERM), (1.0, signal.SIGKILL)):
        deadline = time.monotonic() + patience_s
        groups = {group for group in groups if _signal(group, sent)}
        while groups and time.monotonic() < deadline:
            time.sleep(0.02)
            groups = {group for group in groups if _signal(group, 0)}


def _signal(group: int, number: int) -> bool:
    """Whether there was someone to send it to."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main()
