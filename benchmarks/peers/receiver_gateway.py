"""`sourcebus gateway` as it is started anywhere, with the benchmark's connector registered: ``python -m … PORT``."""

from __future__ import annotations

import sys

from benchmarks.github_deliveries import GitHubDeliveries
from sourcebus.cli import main
from sourcebus.connectors import register

register(GitHubDeliveries.name, GitHubDeliveries)
sys.exit(main(["gateway", "--port", sys.argv[1]]))
