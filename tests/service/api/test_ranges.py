import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramend.contracts.errors import RequestError
from service.api.ranges import parse_range, range_applies


@pytest.mark.parametrize(
    ("header", "size", "asked"),
    [
        (None, 10, None),
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=2-5", 10, (2, 6)),
        ("bytes=2-", 10, (2, 10)),
        ("bytes=2-99", 10, (2, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-99", 10, (0, 10)),
        ("Bytes = 1 - 2 ", 10, (1, 3)),
        ("bytes=5-2", 10, None),
        ("bytes=0-1,4-5", 10, None),
        ("items=0-1", 10, None),
        ("bytes=a-b", 10, None),
        ("bytes=-", 10, None),
    ],
)
def test_ranges(header: str | None, size: int, asked: tuple[int, int] | None) -> None:
    assert parse_range(header, size) == asked


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_a_range_without_a_byte_is_refused(header: str, size: int) -> None:
    with pytest.raises(RequestError) as caught:
        parse_range(header, size)
    assert caught.value.code == "range_not_satisfiable"


@given(size=st.integers(1, 50), first=st.integers(0, 60), last=st.one_of(st.none(), st.integers(0, 60)))
def test_a_range_is_what_slicing_gives(size: int, first: int, last: int | None) -> None:
    content = bytes(range(size))
    wanted = content[first:] if last is None else content[first : last + 1]
    header = f"bytes={first}-{'' if last is None else last}"
    if last is not None and last < first:
        assert parse_range(header, size) is None
    elif not wanted:
        with pytest.raises(RequestError):
            parse_range(header, size)
    else:
        asked = parse_range(header, size)
        assert asked is not None
        assert content[slice(*asked)] == wanted


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [(None, True), ('"a"', True), ('"b"', False), ('W/"a"', False), ("Wed, 21 Oct 2015 07:28:00 GMT", False)],
)
def test_if_range_compares_strongly(if_range: str | None, applies: bool) -> None:
    assert range_applies(if_range, '"a"') is applies
