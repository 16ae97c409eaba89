import pytest

from loramend.contracts.errors import RequestError
from service.api.negotiation import choose, matches_any, preferred_wait

OFFERED = ["application/json", "text/event-stream"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/event-stream", "text/event-stream"),
        ("TEXT/Event-Stream; charset=utf-8", "text/event-stream"),
        ("text/*, application/json;q=0.5", "text/event-stream"),
        ("application/json;q=0.1, text/event-stream;q=0.2", "text/event-stream"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/json;q=0, */*", "text/event-stream"),
    ],
)
def test_the_best_offer_is_chosen(accept: str | None, chosen: str) -> None:
    assert choose(accept, OFFERED) == chosen


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/*", "application/json;q=abc"])
def test_nothing_that_fits_is_not_acceptable(accept: str) -> None:
    with pytest.raises(RequestError) as caught:
        choose(accept, ["application/json"])
    assert caught.value.code == "not_acceptable"
    assert "application/json" in caught.value.detail


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ([], None),
        (["wait=5"], 5),
        (["respond-async, wait=5"], 5),
        (["respond-async", 'Wait = "7"; foo=bar'], 7),
        (["wait=500"], 60),
        (["wait=0"], 0),
        (["wait=-1"], None),
        (["wait=soon"], None),
        (["waiting=3"], None),
    ],
)
def test_the_preferred_wait(prefer: list[str], seconds: int | None) -> None:
    assert preferred_wait(prefer, 60) == seconds


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        (None, False),
        ("*", True),
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", W/"abc"', True),
        ('"abcd"', False),
        ("abc", False),
    ],
)
@pytest.mark.parametrize("etag", ['"abc"', 'W/"abc"'])
def test_if_none_match_compares_weakly(header: str | None, matches: bool, etag: str) -> None:
    assert matches_any(header, etag) is matches
