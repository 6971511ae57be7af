"""A store that fails a tenth of its requests loses nothing: sweeps, tables, many writers at once, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import median

import obstore
import pyarrow as pa
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError

from calls_assets.derive import publish_agents, publish_day
from calls_assets.ingest import probe_new_calls
from calls_assets.lake import DAILY_TABLES, TABLES, Lake, LakeError, open_storage
from calls_assets.lake.object_storage import ObjectStorage
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.counts import SEED, choose, tell
from calls_assets_tests.ingest.model import RUNGS, ModelCall, ModelVendor, options_in
from calls_assets_tests.stores import FAULTS, Heard, StoreProxy

pytestmark = pytest.mark.timeout(900)
SHARE = 0.1
READ_COLUMNS = {"first_read_at", "last_read_at", "last_changed_at", "changed_at", "seen_at"}
"""When calls were read: not the same in two sweeps."""


def fail_some(store: StoreProxy, random: Random, share: float = SHARE) -> Counter[str]:
    """Lets a share of the requests go wrong from now on, each in a way that its kind can; counts what befalls."""
    lock = threading.Lock()
    befell: Counter[str] = Counter()

    def choose_fault(heard: Heard) -> str | None:
        with lock:
            if random.random() >= share:
                return None
            # What has befallen least, so that short runs have something of everything.
            fault = min((f for f, methods in FAULTS.items() if heard.method in methods), key=befell.__getitem__)
            befell[fault] += 1
            return fault

    store.heard.clear()
    store.choose = choose_fault
    return befell


def live(lake: Lake, world: w.World) -> list[str]:
    """Sweeps, merges and publishes an account twice; names the answers that were paid for and are not stored."""
    lost = []
    paid: set[tuple[int, int]] = set()
    for instant in (world.early, world.late):
        vendor = world.vendor(instant)
        fetch = vendor.fetch

        async def note(call_id: int, fetch: object = fetch) -> object:
            answer = await fetch(call_id)  # type: ignore[operator] # bound for this turn of the loop
            paid.add((call_id, w.to_us(answer.fetched_at)))
            return answer

        vendor.fetch = note  # type: ignore[method-assign, assignment] # notes and passes on
        w.sweep_and_compact(lake, vendor, world.days)
        w.publish_days(lake, world.days)
        stored = {(id_, moment) for _, id_, moment, _ in w.stored_reads(lake)}
        lost += [f"the answer about {id_} is not stored" for id_, _ in sorted(paid - stored)]
    return lost


def read_tables(lake: Lake, world: w.World) -> dict[str, pa.Table]:
    """Gives all tables without the instants of reading."""
    found = {}
    for name, table in TABLES.items():
        for day in world.days if table.is_daily else [None]:
            rows = lake.read_table(name, day)
            found[lake.table_key(name, day)] = rows.select([c for c in rows.column_names if c not in READ_COLUMNS])
    return found


def count_faults(store: StoreProxy) -> dict[str, int]:
    """Counts what befell."""
    return dict(sorted(Counter(one.fault for one in store.heard if one.fault).items()))


def test_a_store_that_fails_a_tenth_of_its_requests_loses_nothing(store: StoreProxy, address: str) -> None:
    """Every answer is stored, and the tables are row for row those of a lake in a directory."""
    random = Random(SEED)
    started, problems, rows, requests = time.monotonic(), [], 0, 0
    befell = fail_some(store, random)
    fail = store.choose
    rounds = choose(3, 12)
    for turn in range(rounds):
        world = w.World.draw(random, calls_per_day=choose(10, 40), days=2)
        with w.fast_directory() as root:
            local = Lake.open(root)
            assert live(local, world) == []
            expected = read_tables(local, world)
        store.choose = fail
        store.heard.clear()
        lake = Lake.open(f"{address}/{turn}")
        problems += live(lake, world)
        requests += store.count()
        store.choose = lambda _heard: None
        problems += w.find_differences(lake, world.vendor(world.late), world.days)
        found = read_tables(lake, world)
        problems += [f"{key} has other rows" for key in expected if not expected[key].equals(found[key])]
        rows += sum(len(table) for table in found.values())
    tell(
        "object store, 10 % of requests fail",
        lakes=rounds,
        requests=requests,
        faults=befell.total(),
        by_kind=dict(sorted(befell.items())),
        rows=rows,
        violations=len(problems),
        seconds=round(time.monotonic() - started, 1),
    )
    assert problems == []
    assert befell.keys() == set(FAULTS)


class HastyStorage(ObjectStorage):
    """A twin that reports a file as stored before the store has answered, and does not look at the answer."""

    def _put(self, key: str, data: bytes | memoryview, *, is_new: bool) -> None:
        def send() -> None:
            with contextlib.suppress(BaseError):
                obstore.put(self._store, key, bytes(data), mode="create" if is_new else "overwrite")

        thread = threading.Thread(target=send)
        thread.start()
        thread.join()


def test_a_storage_that_reports_before_the_answer_is_caught(store: StoreProxy, address: str) -> None:
    """The harness above names answers that are not stored, or tables that are not what they should be."""
    random = Random(SEED)
    problems: list[str] = []
    for turn in range(5):
        world = w.World.draw(random, calls_per_day=10, days=2)
        fail_some(store, random, 0.3)
        lake = Lake(HastyStorage(f"{address}/{turn}"))
        try:
            problems += live(lake, world)
        except (LakeError, FileNotFoundError) as error:
            problems.append(str(error))
        if problems:
            return
    pytest.fail("nothing was noticed")


def race(storages: list[ObjectStorage], keys: list[str]) -> list[str]:
    """Lets several writers create the same files at once; gives what is wrong afterwards."""
    winners: dict[str, list[str]] = {key: [] for key in keys}
    barrier = threading.Barrier(len(storages))

    def write(number: int) -> None:
        barrier.wait()
        for key in keys:
            with contextlib.suppress(FileExistsError, AlreadyExistsError):
                storages[number].put_new(key, f"{key} by {number}".encode() * 20)
                winners[key].append(f"{key} by {number}")

    with ThreadPoolExecutor(len(storages)) as pool:
        list(pool.map(write, range(len(storages))))
    problems = [f"{key} has {len(found)} winners" for key, found in winners.items() if len(found) != 1]
    for key, found in winners.items():
        with contextlib.suppress(FileNotFoundError):
            held = storages[0].read(key)
            problems += [f"{key} is not the winner's" for winner in found if held != winner.encode() * 20]
    return problems


class OverwritingStorage(ObjectStorage):
    """A twin that creates by a plain PUT."""

    def put_new(self, key: str, data: bytes | memoryview) -> None:
        """Overwrites."""
        self.replace(key, data)


class BelievingStorage(ObjectStorage):
    """A twin that takes every refusal for another writer's file."""

    def put_new(self, key: str, data: bytes | memoryview) -> None:
        """Tries until there is an answer."""
        while True:
            with contextlib.suppress(AlreadyExistsError, BaseError):
                obstore.put(self._store, key, bytes(data), mode="create")
                return
            if any(file.key == key for file in self.list(f"{key.rpartition('/')[0]}/")):
                raise FileExistsError(key)


@pytest.mark.parametrize(
    ("kind", "sign"),
    [(ObjectStorage, None), (OverwritingStorage, "winners"), (BelievingStorage, "has 0 winners")],
    ids=["as it is", "plain PUT", "believing"],
)
def test_of_several_writers_each_file_has_one(
    store: StoreProxy, address: str, kind: type[ObjectStorage], sign: str | None
) -> None:
    """While a fifth of the requests goes wrong; two broken storages are caught, at the latest after a few rounds."""
    fail_some(store, Random(SEED), 0.2)
    keys = [f"raw/{number}" for number in range(choose(12, 100))]
    if sign is not None:
        rounds = (race([kind(f"{address}/{number}") for _ in range(4)], keys) for number in range(20))
        assert any(sign in problem for problems in rounds for problem in problems)
        return
    problems = race([kind(address) for _ in range(4)], keys)
    tell(
        "object store, writers at once",
        writers=4,
        files=len(keys),
        requests=store.count(),
        by_kind=count_faults(store),
        violations=len(problems),
    )
    assert problems == []


def test_several_sweeps_of_the_same_days_at_once_lose_nothing(store: StoreProxy, address: str) -> None:
    """Each in a thread with an opening of its own, merging and publishing, while a tenth of the requests fails."""
    random = Random(SEED)
    world = w.World.draw(random, calls_per_day=choose(8, 30), days=2)
    store.is_strict = True  # else one sees what another has not yet mended
    fail_some(store, random)
    vendors: list[ModelVendor] = [world.vendor(world.late) for _ in range(choose(3, 6))]
    for number, vendor in enumerate(vendors):
        vendor.time = vendor.time.replace(microsecond=number * 100_000)

    def work(vendor: ModelVendor) -> None:
        lake = Lake.open(address)
        w.sweep_and_compact(lake, vendor, world.days)
        w.publish_days(lake, world.days)

    with ThreadPoolExecutor(len(vendors)) as pool:
        list(pool.map(work, vendors))
    befell = count_faults(store)
    requests = store.count()
    store.choose = lambda _heard: None
    lake = Lake(open_storage(address, is_writable=False))
    problems = w.find_differences(lake, world.vendor(world.late), world.days)
    tell(
        "object store, sweeps at once",
        sweeps=len(vendors),
        requests=requests,
        by_kind=befell,
        reads=len(w.stored_reads(lake)),
        violations=len(problems),
    )
    assert problems == []
    assert befell


def measure_day(lake: Lake, count: Callable[[], dict[str, int]], calls: int) -> dict[str, tuple[dict[str, int], float]]:
    """Sweeps a day, again when nothing is due, ticks the sensor, makes the tables again; gives requests and seconds."""
    start = datetime(2025, 5, 20, tzinfo=UTC)
    account = [ModelCall(1 + index, start + index * timedelta(days=1) / calls) for index in range(calls)]
    vendor = ModelVendor(account, start + timedelta(days=30))
    days = [w.FIRST]

    def run() -> None:
        w.run_days(lake, vendor, days)

    def tick() -> None:
        asyncio.run(probe_new_calls(lake, vendor, now=vendor.now, options=options_in(w.ZONE)))

    def rebuild() -> None:
        for name in DAILY_TABLES:
            lake.storage.delete(lake.table_key(name, w.FIRST))
        count()
        publish_day(lake, w.FIRST, timezone=w.ZONE, reread_after=RUNGS)
        publish_agents(lake)

    found = {}
    for name, work in {"first sweep": run, "nothing due": run, "sensor tick": tick, "rebuild": rebuild}.items():
        count()
        began = time.monotonic()
        work()
        found[name] = count(), time.monotonic() - began
    return found


def test_a_day_costs_few_requests_of_the_store(
    store: StoreProxy, store_url: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of 2,000 calls: nothing is listed or asked for row by row. In the long form, seconds too."""

    def count() -> dict[str, int]:
        counted = Counter("LIST" if one.method == "GET" and not one.key else one.method for one in store.heard)
        store.heard.clear()
        return dict(sorted(counted.items()))

    lake = Lake.open(f"{address}/counted")
    requests = {name: counted for name, (counted, _) in measure_day(lake, count, 2_000).items()}
    ratios: dict[str, list[float]] = {}
    monkeypatch.setenv("AWS_ENDPOINT_URL", store_url)  # without the proxy, which is Python and slow
    for turn in range(choose(0, 7)):
        with w.fast_directory() as root:
            here = measure_day(Lake.open(root), count, 2_000)
        there = measure_day(Lake.open(f"{address}/{turn}"), count, 2_000)
        for name, (_, seconds) in there.items():
            ratios.setdefault(name, []).append(seconds / here[name][1])
    tell(
        "object store, requests of a day of 2,000 calls",
        **requests,
        seconds_to_those_in_memory={name: round(median(found), 2) for name, found in ratios.items()},
    )
    totals = {name: sum(counted.values()) for name, counted in requests.items()}
    assert totals["first sweep"] <= 60
    assert totals["nothing due"] <= 40
    assert totals["sensor tick"] <= 3  # two listings, as there is one day only
    assert totals["rebuild"] <= 40
    assert requests["nothing due"].get("PUT", 0) == requests["sensor tick"].get("PUT", 0) == 0
