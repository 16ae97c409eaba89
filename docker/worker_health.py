"""Exit 0 where a worker of this container has told the job store lately that it lives."""

import socket
import sys

from service.jobs.connect import redis_from_url
from service.jobs.settings import JobsSettings
from service.jobs.store import JobStore

with redis_from_url(JobsSettings().broker_url) as client:
    names = JobStore(client).workers()
sys.exit(not any(f"@{socket.gethostname()}-" in name for name in names))
