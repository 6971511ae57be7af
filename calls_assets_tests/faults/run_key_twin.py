"""The definitions with a twin of `new_call_ids` that takes run keys for its memory, for `test_dagster_killed` to catch.

Dagster starts one run for each run key and sensor, whatever becomes of it: a call that was seen is asked for once.
"""

from typing import Any

import dagster as dg

from calls_assets import definitions
from calls_assets.defs.jobs import SWEEP_JOB

_REAL = definitions.defs.resolve_sensor_def("new_call_ids")


@dg.sensor(
    name=_REAL.name,
    job_name=SWEEP_JOB,
    minimum_interval_seconds=_REAL.minimum_interval_seconds,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"calls_api", "lake_store"},
)
def new_call_ids(context: dg.SensorEvaluationContext) -> Any:  # noqa: ANN401 - what sensors may give
    """Asks for what the real sensor asks for, once for each day and call seen."""
    outcome = _REAL(context)
    if not isinstance(outcome, dg.SensorResult):
        return outcome
    return [request.with_replaced_attrs(run_key=_key(request)) for request in outcome.run_requests or ()]


def _key(request: dg.RunRequest) -> str:
    config: Any = request.run_config or {"ops": {"call_records": {"config": {"seen_id": None}}}}
    return f"{request.partition_key}-{config['ops']['call_records']['config']['seen_id']}"


defs = dg.Definitions(
    assets=definitions.defs.assets,
    jobs=definitions.defs.jobs,
    schedules=definitions.defs.schedules,
    sensors=[new_call_ids, *(sensor for sensor in definitions.defs.sensors or () if sensor.name != _REAL.name)],
    executor=definitions.defs.executor,
    resources=definitions.defs.resources,
)
