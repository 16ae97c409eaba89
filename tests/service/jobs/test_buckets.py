"""Token buckets on the real server, whose clock they go by."""

import time

import pytest
import redis

from service.jobs.buckets import Buckets, Rate


@pytest.fixture
def buckets(redis_client: "redis.Redis") -> Buckets:
    return Buckets(redis_client)


def test_a_burst_and_then_the_rate(buckets: Buckets) -> None:
    slow = Rate(amount=1, seconds=60, most=3)
    assert [buckets.take("a", slow) for _ in range(3)] == [0, 0, 0]
    assert 30 <= buckets.take("a", slow) <= 60
    assert buckets.take("b", slow) == 0, "another has its own"


def test_it_fills_up_again(buckets: Buckets) -> None:
    fast = Rate(amount=1, seconds=1, most=1)
    assert buckets.take("a", fast) == 0
    assert buckets.take("a", fast) == 1
    time.sleep(1.05)
    assert buckets.take("a", fast) == 0


def test_refusals_cost_nothing(buckets: Buckets) -> None:
    rate = Rate(amount=5, seconds=1, most=1)
    begun = time.monotonic()
    taken = 0
    while time.monotonic() - begun < 1:
        taken += buckets.take("a", rate) == 0
    assert 2 <= taken <= 7


def test_a_debt_is_refilled_first(buckets: Buckets) -> None:
    rate = Rate(amount=1000, seconds=100, most=1000)
    assert buckets.wait("a", rate) == 0
    buckets.charge("a", rate, 1500)
    assert 30 <= buckets.wait("a", rate) <= 51
    buckets.charge("a", rate, 500)
    assert 80 <= buckets.wait("a", rate) <= 101


def test_no_amount_is_no_limit_and_leaves_nothing(buckets: Buckets, redis_client: "redis.Redis") -> None:
    free = Rate(amount=0, seconds=60, most=1)
    assert [buckets.take("a", free) for _ in range(5)] == [0] * 5
    buckets.charge("a", free, 1e12)
    assert buckets.wait("a", free) == 0
    assert redis_client.keys("*") == []


def test_a_full_bucket_is_dropped(buckets: Buckets, redis_client: "redis.Redis") -> None:
    buckets.take("a", Rate(amount=100, seconds=1, most=10))
    (name,) = redis_client.keys("*")
    assert 0 < int(str(redis_client.pttl(name))) <= 1100
