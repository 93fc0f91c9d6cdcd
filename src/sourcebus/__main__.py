"""``python -m sourcebus`` is the ``sourcebus`` command."""

from sourcebus.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
