"""A script with httpx over aiohttp: collects the answers in memory. No retries, no limiter, nothing stored."""

import asyncio
import os
import sys

import httpx
from httpx_aiohttp import HttpxAiohttpClient


async def main() -> None:
    """Asks for every id, so many at a time."""
    first, count, in_flight = (int(os.environ[name]) for name in ("FIRST_ID", "COUNT", "IN_FLIGHT"))
    ids = iter(range(first, first + count))
    bodies = []

    async with HttpxAiohttpClient(
        base_url=os.environ["BASE_URL"],
        headers={"Access-Token": os.environ["CALLS_API_TOKEN"]},
        limits=httpx.Limits(max_connections=in_flight),
    ) as client:

        async def work() -> None:
            for call_id in ids:
                response = await client.get(f"/calls/{call_id}")
                response.raise_for_status()
                bodies.append(response.content)

        await asyncio.gather(*(work() for _ in range(in_flight)))
    assert len(bodies) == count


if "--uvloop" in sys.argv:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
