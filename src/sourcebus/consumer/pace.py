"""How much a consumer claims at once: what comes meanwhile waits for all that is claimed, so it is little work, however
many objects that are."""

from __future__ import annotations


class Pace:
    """Learns from batches. `most` leases take about `claim_ms` together, and are at most `claim_batch`."""

    def __init__(self, claim_ms: float, claim_batch: int) -> None:
        self._claim_ms, self._claim_batch = claim_ms, claim_batch
        self._mean_ms = claim_ms / 4  # unknown yet: begin with small claims

    def most(self) -> int:
        return max(1, min(self._claim_batch, int(self._claim_ms / max(self._mean_ms, 0.001))))

    def learn(self, mean_ms: float) -> None:
        """A batch took `mean_ms` per lease."""
        self._mean_ms += 0.3 * (mean_ms - self._mean_ms)
