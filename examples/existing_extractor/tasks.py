"""The same team's Celery task, as its sweep has always run it. It knows nothing of sourcebus either."""

from __future__ import annotations

from celery import Celery, Task
from extractor import page_text

app = Celery("wiki", broker="memory://")


@app.task(bind=True, max_retries=3)
def extract_page(self: Task, site: str, page_id: str) -> dict[str, str]:
    """Extract one page of one site."""
    try:
        return {"site": site, "text": page_text(page_id)}
    except TimeoutError as error:
        raise self.retry(exc=error, countdown=60) from error
