"""Places and rates: what one client may take, and that nobody else is kept from theirs."""

from typing import Any

import pytest

from services.api.door import Door
from services.api.keys import Caller, Role
from services.api.limits import BUCKETS_MAX, Places, Rates, of_address, release
from services.api.problems import Problem
from services.runtime.settings import Api

ALICE = Caller("acme", "alice", Role.AUTHOR, key_id="a")
BOB = Caller("acme", "bob", Role.AUTHOR, key_id="b")


def scope(address: str = "10.0.0.1") -> dict[str, Any]:
    return {"type": "http", "client": (address, 1)}


def test_places_are_bounded_for_each_and_for_all_and_come_back() -> None:
    places = Places(each=2, total=3)
    assert [places.take("a") for _ in range(3)] == [True, True, False]
    assert [places.take("b"), places.take("b")] == [True, False]
    assert places.is_full()
    places.give_back("a")
    assert places.take("b")
    assert Places().take("a")


def test_a_request_gives_back_what_it_held() -> None:
    places, request = Places(each=1), scope()
    assert places.hold(request, "a")
    assert not places.hold(scope(), "a")
    release(request)
    release(request)
    assert places.taken == 0


def test_a_bucket_fills_at_its_rate_up_to_two_seconds_worth() -> None:
    rates = Rates(10)
    assert [rates.take("a", 0.0) for _ in range(20)] == [0.0] * 20
    assert rates.take("a", 0.0) == pytest.approx(0.1)
    assert rates.take("b", 0.0) == 0.0
    assert rates.take("a", 0.1) == 0.0
    assert [rates.take("a", 100.0) for _ in range(20)] == [0.0] * 20
    assert rates.take("a", 100.0) > 0


def test_no_rate_is_no_bound() -> None:
    assert not any(Rates(0).take("a", 0.0) for _ in range(10_000))


def test_clients_without_number_do_not_fill_the_memory() -> None:
    rates = Rates(1)
    for number in range(3 * BUCKETS_MAX):
        rates.take(str(number), 0.0)
    assert len(rates._buckets) <= BUCKETS_MAX


def test_an_address_of_ipv6_counts_as_its_network() -> None:
    assert of_address("2001:db8::1") == of_address("2001:db8::ffff:1") != of_address("2001:db8:0:1::1")
    assert of_address("::ffff:10.0.0.1") == of_address("10.0.0.1") == "10.0.0.1"
    assert of_address("") == ""


def test_one_key_leaves_places_to_others() -> None:
    door = Door(Api(waits=1, connections=3, requests_per_s=0))
    door.wait(scope(), ALICE)
    with pytest.raises(Problem, match="too many requests that wait") as refused:
        door.wait(scope(), ALICE)
    assert refused.value.status == 429
    assert refused.value.headers["Retry-After"]
    door.wait(scope("10.0.0.2"), BOB)


def test_one_address_leaves_places_to_others_whatever_its_keys() -> None:
    door = Door(Api(waits=1))
    for number in range(5):
        door.wait(scope(), Caller("acme", "x", Role.AUTHOR, key_id=str(number)))
    with pytest.raises(Problem):
        door.wait(scope(), ALICE)
    door.wait(scope("10.0.0.2"), ALICE)


def test_requests_of_a_key_are_counted_in_a_second_and_under_way() -> None:
    door, request = Door(Api(requests_per_s=1, connections=1)), scope()
    door.enter(request, ALICE)
    with pytest.raises(Problem, match="under way"):
        door.enter(scope(), ALICE)
    release(request)
    with pytest.raises(Problem, match="in a second"):
        door.enter(scope(), ALICE)
    door.enter(scope(), BOB)


@pytest.mark.parametrize(
    ("forwarded", "origin"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.1.1.1", "203.0.113.9"),
        ("203.0.113.9, nonsense", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_what_a_trusted_proxy_says_counts_from_the_right(forwarded: str, origin: str) -> None:
    assert Door(Api(trusted_proxies="10.0.0.0/8")).origin("10.0.0.1", forwarded) == origin
