"""A script with aiohttp: collects the answers in memory. No retries, no limiter, nothing stored."""

import asyncio
import os

import aiohttp


async def main() -> None:
    """Asks for every id, so many at a time."""
    first, count, in_flight = (int(os.environ[name]) for name in ("FIRST_ID", "COUNT", "IN_FLIGHT"))
    ids = iter(range(first, first + count))
    bodies = []

    async with aiohttp.ClientSession(
        headers={"Access-Token": os.environ["CALLS_API_TOKEN"]},
        connector=aiohttp.TCPConnector(limit=in_flight),
    ) as session:

        async def work() -> None:
            for call_id in ids:
                async with session.get(f"{os.environ['BASE_URL']}/calls/{call_id}") as response:
                    response.raise_for_status()
                    bodies.append(await response.read())

        await asyncio.gather(*(work() for _ in range(in_flight)))
    assert len(bodies) == count


asyncio.run(main())
