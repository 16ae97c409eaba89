"""A job store on the real server."""

import pytest
import redis

from service.jobs.store import JobStore

RESEND_SECONDS = 0.05


@pytest.fixture
def store(redis_client: "redis.Redis") -> JobStore:
    return JobStore(redis_client, max_attempts=2, resend_seconds=RESEND_SECONDS)
