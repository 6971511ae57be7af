"""Connecting: a client for the settings of a deployment."""

from __future__ import annotations

from calls_assets.api.client import CallsClient, ClientConfig
from calls_assets.settings import Settings, SettingsError

_PROBE_TIMEOUT_SECONDS = 10.0


def connect(settings: Settings, *, is_probe: bool = False) -> CallsClient:
    """Makes a client, to be used as an asynchronous context.

    Args:
        settings: The deployment's settings.
        is_probe: Give up after one attempt of at most 10 s: for callers that come again soon.

    Raises:
        SettingsError: The settings name no usable API.
    """
    problem = settings.api_problem()
    if problem is not None or settings.api_base_url is None:
        raise SettingsError(problem or "CALLS_API_BASE_URL is not set")
    try:
        return CallsClient(
            ClientConfig(
                base_url=settings.api_base_url,
                token=settings.api_token or "",
                token_file=settings.api_token_file,
                requests_per_second=settings.requests_per_second,
                concurrency=settings.concurrency,
                timeout_seconds=min(settings.timeout_seconds, _PROBE_TIMEOUT_SECONDS)
                if is_probe
                else settings.timeout_seconds,
                max_attempts=1 if is_probe else settings.max_attempts,
            )
        )
    except ValueError as problem_found:
        raise SettingsError(f"the API cannot be used: {problem_found}") from None
