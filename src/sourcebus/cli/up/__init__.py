"""`sourcebus up`: everything on one machine, under one supervisor.

``command.py`` reads the flags, ``instance.py`` takes the data folder and writes what other commands need, ``server.py``
knows the embedded Valkey, ``supervisor.py`` starts, restarts and stops the processes (``child.py``, ``guard.py``), and
``companion.py`` brings the watched folders in and tells how far the first listing is, on ``screen.py``.
"""
