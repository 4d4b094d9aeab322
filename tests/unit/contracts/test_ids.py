"""Ids are for ever: these are the ones that logs and tables hold."""

from services.contracts import ids

EXECUTION = "c0e254db788fe99f4f90559488b120a52b558ace"


def test_ids_stay_what_they_are() -> None:
    assert ids.execution_id("t", "p", "r", "k") == "7ce797cb5225bcac7c1873fee636297e036596db"
    assert ids.attempt_id(EXECUTION, "export", 1) == "7d1ad6ed70923d645275316eee3f1b92b1ad2976"
    assert ids.event_id(EXECUTION, 12) == "6be89ec8f901c3723cc9bff086be1703"
    assert ids.delivery_id("e", "l") == "b20f0dbce8644f3124e7c51baaf53a5a"
    assert ids.rerun_id(EXECUTION, 1) == "d0023198c70d38a98573eacfff7c03261c0e4bb1"
    assert ids.command_id("t", "p", EXECUTION, "cancel", "k") == "3b74520798c761da6b4e3d2143e387282e15679d"


def test_parts_do_not_flow_together() -> None:
    assert ids.execution_id("ab", "c", "r", "k") != ids.execution_id("a", "bc", "r", "k")
