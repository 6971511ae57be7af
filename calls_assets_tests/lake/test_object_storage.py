"""The object store over real HTTP: what befalls requests on the way, and stores that cannot do what is needed."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError

from calls_assets.lake import Lake, LakeError, location, object_storage, open_storage
from calls_assets.lake.object_storage import PROBE_KEY, ObjectStorage
from calls_assets.read import read_table
from calls_assets.settings import Settings
from calls_assets_tests.stores import (
    BROKEN_OFF_PUT,
    BUCKET,
    CONFLICT,
    DROPPED_ANSWER,
    FAILED_AFTER,
    FAULTS,
    REPEATED_PUT,
    SECRET,
    SLOW_DOWN,
    TRUNCATED_GET,
    TRUNCATED_PUT,
    Heard,
    StoreProxy,
    ask,
)

CONTENT = b"what was meant to be stored"
VERBS: dict[str, Callable[[ObjectStorage], object]] = {
    "list": lambda storage: storage.list("raw/"),
    "read": lambda storage: storage.read("raw/old"),
    "put_new": lambda storage: storage.put_new("raw/new", CONTENT),
    "replace": lambda storage: storage.replace("raw/old", CONTENT),
    "delete": lambda storage: storage.delete("raw/old"),
    "has_files": lambda storage: storage.has_files(),
}
METHODS = {"list": "GET", "read": "GET", "put_new": "PUT", "replace": "PUT", "delete": "POST", "has_files": "GET"}


def befall(store: StoreProxy, fault: str, times: int = 2) -> None:
    """Lets the next requests of the right kind go wrong."""
    left = times

    def choose(heard: Heard) -> str | None:
        nonlocal left
        if heard.method not in FAULTS[fault] or not left:
            return None
        left -= 1
        return fault

    store.choose = choose
    store.heard.clear()


@pytest.fixture
def storage(store: StoreProxy, address: str) -> ObjectStorage:
    """Gives a storage with one object."""
    storage = ObjectStorage(address)
    storage.put_new("raw/old", b"old")
    store.heard.clear()
    return storage


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_keeps_its_promise_whatever_befalls_its_requests(
    store: StoreProxy, storage: ObjectStorage, verb: str, fault: str
) -> None:
    """Twice in a row; and what is stored afterwards is what was meant, byte for byte."""
    befall(store, fault)
    result = VERBS[verb](storage)
    assert sum(one.fault is not None for one in store.heard) == (
        0 if METHODS[verb] not in FAULTS[fault] else 1 if (fault, verb) in ONCE else 2
    )
    befall(store, fault, 0)
    held = {file.key: storage.read(file.key) for file in storage.list("raw/")}
    expected = {
        "put_new": {"raw/new": CONTENT, "raw/old": b"old"},
        "replace": {"raw/old": CONTENT},
        "delete": {},
    }
    assert held == expected.get(verb, {"raw/old": b"old"})
    if verb == "read":
        assert result == b"old"
    if verb == "list":
        assert [file.key for file in result] == ["raw/old"]  # type: ignore[attr-defined] # the verb's own result


ONCE = {(REPEATED_PUT, "put_new"), (REPEATED_PUT, "replace")}
"""What is over when it has happened once: the answer to a repeated PUT is believed, or looked into."""


@pytest.mark.parametrize("fault", [SLOW_DOWN, CONFLICT, FAILED_AFTER, DROPPED_ANSWER, REPEATED_PUT, TRUNCATED_PUT])
def test_a_conflict_is_reported_through_every_fault(store: StoreProxy, storage: ObjectStorage, fault: str) -> None:
    """Another writer's object stays, whatever befalls the requests of the one that comes late."""
    befall(store, fault)
    with pytest.raises(FileExistsError):
        storage.put_new("raw/old", CONTENT)
    befall(store, fault, 0)
    assert storage.read("raw/old") == b"old"


def test_a_write_is_one_put_with_a_checksum(store: StoreProxy, storage: ObjectStorage) -> None:
    """Nothing is listed, asked before or moved afterwards."""
    storage.put_new("raw/new", CONTENT)
    storage.replace("raw/new", CONTENT)
    assert store.heard == [
        Heard("PUT", store.heard[0].key, len(CONTENT), is_create=True, is_checked=True),
        Heard("PUT", store.heard[0].key, len(CONTENT), is_create=False, is_checked=True),
    ]


@pytest.mark.parametrize("fault", [TRUNCATED_PUT, BROKEN_OFF_PUT])
def test_what_a_store_refuses_as_damaged_on_its_way_is_sent_again(
    store: StoreProxy, storage: ObjectStorage, fault: str
) -> None:
    """S3 keeps nothing of it."""
    store.is_strict = True
    befall(store, fault, 1)
    storage.put_new("raw/new", CONTENT)
    assert [one.method for one in store.heard] == ["PUT", "PUT"]
    assert storage.read("raw/new") == CONTENT


def test_where_tags_are_no_digests_what_was_written_is_read_back(store: StoreProxy, storage: ObjectStorage) -> None:
    """As with keys of the customer's own, or on Azure; half an object is found all the same, and written again."""
    store.has_opaque_tags = True
    storage.put_new("raw/new", CONTENT)
    assert [one.method for one in store.heard] == ["PUT", "GET"]
    befall(store, TRUNCATED_PUT, 1)
    storage.replace("raw/new", CONTENT[::-1])
    assert [one.method for one in store.heard] == ["PUT", "GET", "PUT", "GET"]
    assert storage.read("raw/new") == CONTENT[::-1]


@pytest.mark.parametrize(("verb", "key"), [("put_new", "raw/new"), ("replace", "raw/old")])
@pytest.mark.parametrize("method", ["DELETE", "PUT"])
def test_an_object_that_is_gone_or_replaced_when_it_is_looked_at_was_stored(
    store: StoreProxy, storage: ObjectStorage, verb: str, key: str, method: str
) -> None:
    """Somebody has merged it, or written after us, between the PUT and the look."""
    store.has_opaque_tags = True

    def meddle(heard: Heard) -> None:
        if heard.method == "GET":
            ask(store.store_url, method, f"/{BUCKET}/{heard.key}", b"newer" if method == "PUT" else b"")

    store.choose = meddle
    VERBS[verb](storage)
    assert [one.method for one in store.heard] == ["PUT", "GET"]
    store.choose = lambda _heard: None
    held = [storage.read(file.key) for file in storage.list("raw/") if file.key == key]
    assert held == ([b"newer"] if method == "PUT" else [])


class PlainPutStorage(ObjectStorage):
    """A twin that creates by overwriting."""

    def put_new(self, key: str, data: bytes | memoryview) -> None:
        """Overwrites."""
        self.replace(key, data)


def test_a_plain_put_for_a_new_object_is_caught(address: str) -> None:
    """The test of two writers fails for a twin that overwrites."""
    storage = PlainPutStorage(address)
    storage.put_new("raw/x", b"first")
    storage.put_new("raw/x", b"second")
    assert storage.read("raw/x") != b"first"


def test_a_client_that_believes_every_answer_is_caught(store: StoreProxy, storage: ObjectStorage) -> None:
    """Without our look into refusals and tags, a repeated PUT is a false conflict and half an object is a success."""
    befall(store, REPEATED_PUT, 1)
    with pytest.raises(AlreadyExistsError):
        obstore.put(storage._store, "raw/new", CONTENT, mode="create")
    befall(store, TRUNCATED_PUT, 1)
    obstore.put(storage._store, "raw/other", CONTENT)
    assert storage.read("raw/other") == CONTENT[: len(CONTENT) // 2]


def test_the_store_is_tried_out_once_by_each_process(store: StoreProxy, address: str) -> None:
    """Two requests the first time, one in the next process, none for readers and when the store is known."""
    open_storage(address, is_writable=False)
    assert store.count() == 0
    open_storage(address)
    assert [one.is_create for one in store.heard] == [True, True]
    open_storage(address)
    assert store.count() == 2
    location._create_only.clear()
    open_storage(address)
    assert store.count() == 3


@pytest.mark.parametrize("fault", [SLOW_DOWN, FAILED_AFTER, DROPPED_ANSWER, REPEATED_PUT, CONFLICT])
def test_trying_out_is_not_deceived_by_lost_answers(store: StoreProxy, address: str, fault: str) -> None:
    """A store that can is never taken for one that cannot."""
    befall(store, fault)
    assert ObjectStorage(address).can_create_only()


def test_a_store_without_conditions_demands_a_single_writer(store: StoreProxy, address: str) -> None:
    """One line says what to do; who promises it gets a storage that looks before it creates."""
    store.ignores_conditions = True
    with pytest.raises(LakeError, match="one process at a time writes and say so with CALLS_SINGLE_WRITER=on"):
        Lake.open(address)
    storage = Lake.open(address, is_single_writer=True).storage
    assert not storage.is_create_only
    storage.put_new("raw/x", b"first")
    with pytest.raises(FileExistsError):
        storage.put_new("raw/x", b"second")
    assert storage.read("raw/x") == b"first"
    befall(store, DROPPED_ANSWER)
    storage.put_new("raw/y", b"first")
    with pytest.raises(LakeError, match="CALLS_SINGLE_WRITER"):
        Lake.open(address)


def test_a_store_that_says_it_cannot_is_believed(
    store: StoreProxy, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its answer, or by the word of its owner in the environment."""
    store.choose = lambda heard: "501 NotImplemented" if heard.is_create else None
    assert not ObjectStorage(address).can_create_only()
    assert store.count() == 1
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    assert not ObjectStorage(address).can_create_only()


def test_no_error_repeats_what_the_store_said(store: StoreProxy, storage: ObjectStorage) -> None:
    """Stores quote keys and signatures; an error has the status and one word, also in its traceback."""
    befall(store, SLOW_DOWN, 100)
    for verb in VERBS.values():
        with pytest.raises(OSError, match="failed 8 times in a row, at last with: 503 SlowDown") as caught:
            verb(storage)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(LakeError, match="cannot list raw/: the object store failed 8 times") as refused:
        Lake(storage).list_files("raw/")
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_a_slow_link_is_no_failure_and_a_silent_store_is_one(
    store: StoreProxy, storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a large object takes, as long as some of it comes or may still be on its way."""
    monkeypatch.setattr(object_storage, "_SILENT_SECONDS", 2.0)
    monkeypatch.setattr(object_storage, "_SLOWEST_BYTES_PER_SECOND", 2**20)
    monkeypatch.setattr(object_storage, "_LARGE_BYTES", 2**20)
    monkeypatch.setattr(object_storage, "_ATTEMPTS", 2)
    slow = ObjectStorage(storage.address)
    large = bytes(4 * 2**20)
    store.choose = lambda heard: time.sleep(3) if heard.method == "PUT" else None
    slow.replace("raw/large", large)
    assert store.count() == 1
    store.pause_seconds = 0.7
    assert slow.read("raw/large") == large
    assert store.count() == 2
    with pytest.raises(OSError, match=r"failed 2 times in a row, at last with: no answer \(Timeout\)"):
        slow.replace("raw/small", b"s")


@pytest.mark.parametrize(("status", "code"), [(403, "InvalidAccessKeyId"), (401, "Unauthorized")])
def test_refused_credentials_end_it_at_once(store: StoreProxy, storage: ObjectStorage, status: int, code: str) -> None:
    """Asking again would not help."""
    store.choose = lambda _heard: f"{status} {code}"
    with pytest.raises(PermissionError, match=rf"the object store refuses \({status} {code}\)") as caught:
        storage.read("raw/old")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert store.count() == 1


@pytest.mark.usefixtures("store")
def test_a_bucket_that_does_not_exist_is_not_a_missing_object() -> None:
    """Else an empty lake would be seen where there is none."""
    for verb in ("list", "read", "put_new", "replace", "has_files"):
        with pytest.raises(OSError, match="there is no such bucket") as caught:
            VERBS[verb](ObjectStorage("s3://none/lake"))
        assert not isinstance(caught.value, FileNotFoundError)
    with pytest.raises(LakeError, match="cannot use the object store s3://none/lake: there is no such bucket"):
        Lake.open("s3://none/lake")


def test_a_store_that_is_not_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """After eight attempts."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(LakeError, match=r"failed 8 times in a row, at last with: no answer \(connect\)"):
        Lake.open(address)


def test_a_forked_process_is_told_and_does_not_hang(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's threads are not in a fork: without a word it would wait for ever."""
    monkeypatch.setattr(object_storage, "_started_in", [os.getpid() + 1])
    with pytest.raises(OSError, match="this process was forked from one that used the object store"):
        storage.read("raw/old")


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only who has such an address needs it."""
    monkeypatch.delitem(sys.modules, "calls_assets.lake.object_storage")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(LakeError, match=r"needs the module obstore: pip install 'calls-assets\[object-store\]'"):
        open_storage("s3://bucket/lake", is_writable=False)


def test_settings_of_the_environment_that_make_no_sense_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be secrets in the wrong place."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", SECRET)
    with pytest.raises(LakeError, match="cannot use az://container/lake: the environment's settings") as caught:
        open_storage("az://container/lake")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_the_other_clouds_are_named_by_their_addresses(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their clients take their usual variables; they are not run here."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    settings = Settings.from_env({"CALLS_DATA_DIR": f"{scheme}://{BUCKET}/lake/"})
    assert settings.data_dir == f"{scheme}://{BUCKET}/lake"
    assert open_storage(settings.data_dir, is_writable=False).locate("x") == f"{scheme}://{BUCKET}/lake/x"


def test_a_lake_that_is_not_there_is_not_read_as_an_empty_one(address: str) -> None:
    """As with directories."""
    with pytest.raises(LakeError, match=f"there is no lake in {address}"):
        read_table("calls", data_dir=address)


def test_the_probe_is_no_file_of_the_lake(store: StoreProxy, store_url: str, address: str) -> None:
    """It stays, and nothing lists it but who asks for everything."""
    storage = open_storage(address)
    assert [file.key for file in storage.list("")] == [PROBE_KEY]
    assert ask(store_url, "GET", f"/{address.removeprefix('s3://')}/{PROBE_KEY}") == b""
    befall(store, TRUNCATED_GET, 1)
    assert storage.read(PROBE_KEY) == b""
