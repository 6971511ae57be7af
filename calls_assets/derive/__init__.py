"""Raw reads to tables: pure functions from tables to tables.

Belongs here: what a row of a table is. Stays out: reading and writing (`lake`), what to ask the API (`ingest`).
"""

from calls_assets.derive.agents import derive_agents
from calls_assets.derive.agents_publish import publish_agents
from calls_assets.derive.check import count_doubles, count_orphans
from calls_assets.derive.day import derive_day
from calls_assets.derive.publish import PublishReport, publish_day

__all__ = [
    "PublishReport",
    "count_doubles",
    "count_orphans",
    "derive_agents",
    "derive_day",
    "publish_agents",
    "publish_day",
]
