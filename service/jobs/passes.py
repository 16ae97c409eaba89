"""Passes: what a browser, whose own requests carry no API key, shows to be given the results of one job.

A pass stands for the key that took it: it holds 256 random bits, and Redis has their SHA-256 alone.
"""

import secrets
from typing import cast

from redis import Redis

from service.jobs.keys import digest_of
from service.jobs.state import PREFIX

PASS_SECONDS = 600
"""How long a pass is good for: to read a report, to reload it, to begin a download again."""


class Passes:
    """Passes by their text. They go by themselves when their time is over."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    def make(self, job_id: str, key_id: str) -> str:
        """A new pass to that job's results, for the holder of that key."""
        text = secrets.token_urlsafe(32)
        self._redis.set(_name(text), f"{job_id} {key_id}", ex=PASS_SECONDS)
        return text

    def key_of(self, text: str, job_id: str) -> str | None:
        """The ID of the key that took the pass; None where it is none, is over, or is another job's."""
        job, _, key_id = (cast(str | None, self._redis.get(_name(text))) or "").partition(" ")
        return key_id if job == job_id else None

    def drop(self, text: str) -> None:
        """Let it open nothing from now on."""
        self._redis.delete(_name(text))


def _name(text: str) -> str:
    return f"{PREFIX}pass:{digest_of(text)}"
