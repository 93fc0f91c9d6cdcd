"""Measures what the project promises, beside what others reach on the same machine in the same run.

``python -m benchmarks`` runs all, ``python -m benchmarks bus`` what needs only Redis and Celery. One module per question;
each has `run(quick) -> Result`. README.md says how to read the numbers.
"""
