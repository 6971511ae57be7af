"""The run queue, as `dagster.yaml` names it: Dagster's own, with the limits of pools written down before a run waits.

What belongs here: that one step, which Dagster leaves out. Its queue reads which pools have a limit, then gives new
pools the default one, then holds back what it had read (1.13,
`QueuedRunCoordinatorDaemon._get_runs_to_dequeue`). So the first look in a new storage would launch several fetching
runs at once.

Whoever submits a run loads this module: web server, daemon and the dagster command. So it imports Dagster and nothing
of the rest.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator
from sqlalchemy.exc import SQLAlchemyError


class PooledRunCoordinator(QueuedRunCoordinator):
    """Dagster's run queue; a run is queued when all its pools have their limit in the storage."""

    def submit_run(self, context: dg.SubmitRunContext) -> dg.DagsterRun:
        """Gives new pools the default limit, then queues the run."""
        needs = context.dagster_run.run_op_concurrency
        pools = set() if needs is None else needs.all_pools or set()
        storage = self._instance.event_log_storage
        for pool in pools - storage.get_concurrency_keys():
            try:
                storage.initialize_concurrency_limit_to_default(pool)
            except SQLAlchemyError:  # another process did so at the same moment
                if pool not in storage.get_concurrency_keys():
                    raise
        return super().submit_run(context)
