"""The Celery side: runs jobs, owns the GPU, talks to the Hub."""
