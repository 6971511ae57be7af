"""Configuration: the `CALLS_*` environment variables, read once and checked as a whole.

What belongs here: names, defaults and bounds of settings. What stays out: anything that uses them.
A wrong value raises `SettingsError` with one line that names the variable, the value's fault and an example;
the value of a secret is never repeated.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv import load_dotenv

_AGE_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TRUE_WORDS = frozenset({"on", "true", "yes", "1"})
_FALSE_WORDS = frozenset({"off", "false", "no", "0"})
_STORE_SCHEMES = ("s3", "gs", "az")

Location: TypeAlias = Path | str
"""Where a lake is: a directory, or the address of an object store such as `s3://bucket/prefix`."""


def load_environment() -> None:
    """Adds the variables of `.env` in the working directory to the environment; those set already stay."""
    load_dotenv(Path(".env"))


class SettingsError(ValueError):
    """A setting is missing or wrong; the message is one line that says which and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one deployment (one account of the vendor).

    Attributes:
        data_dir: Directory of the lake, or its address in an object store.
        timezone: Zone whose midnight separates the days.
        start_date: First day of the partition set.
        api_base_url: Base of `{base}/calls/{id}`, without a trailing slash; None when not configured.
        api_token: The access token given directly.
        api_token_file: File that holds the token; read again after a 401.
        reread_after: Ages after a call's start at which it is read again, rising.
        requests_per_second: Upper bound of the request rate.
        concurrency: Upper bound of requests in flight.
        timeout_seconds: Total time of one attempt.
        max_attempts: Attempts per id and sweep.
        backfill_days_per_run: Days per run of a backfill; 0 means the whole range in one run.
        id_scan: Whether ids are dense, so that days can be located and the frontier probed.
        poll_seconds: How often the sensor looks for new ids.
        has_relative_catalog: Whether the catalogue names files by their path below the data directory.
        is_single_writer: The user's word that one process at a time writes to the lake.
        webhook_secrets: Any of these lets a delivery of the webhook in; several while they are rotated.
        webhook_signing_key: Key of the signature that a delivery must carry; None for no signatures.
        alert_url: Where failed runs and checks are posted; None for nowhere. It may hold a secret.
        keep_runs_days: Age in days after which runs that newer ones replaced are deleted; 0 for never.
        ui_url: Where people reach Dagster's web server, without a trailing slash: for links in alerts.
    """

    data_dir: Location = Path("data")
    timezone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    start_date: date
    api_base_url: str | None = None
    api_token: str | None = field(default=None, repr=False)
    api_token_file: Path | None = None
    reread_after: tuple[timedelta, ...] = (timedelta(hours=1), timedelta(hours=24), timedelta(days=7))
    requests_per_second: float = 10.0
    concurrency: int = 16
    timeout_seconds: float = 30.0
    max_attempts: int = 5
    backfill_days_per_run: int = 7
    id_scan: bool = True
    poll_seconds: int = 30
    has_relative_catalog: bool = False
    is_single_writer: bool = False
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)
    webhook_signing_key: str | None = field(default=None, repr=False)
    alert_url: str | None = field(default=None, repr=False)
    ui_url: str | None = None
    keep_runs_days: int = 30

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Reads and checks the environment.

        Args:
            env: The variables; the process environment when None.

        Raises:
            SettingsError: On the first wrong value.
        """
        source = os.environ if env is None else env
        values = {name: text.strip() for name, text in source.items() if name.startswith("CALLS_") and text.strip()}
        token_file = values.get("CALLS_API_TOKEN_FILE")
        token = values.get("CALLS_API_TOKEN")
        if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
            raise SettingsError(
                "CALLS_API_TOKEN holds a blank or a character that no HTTP header may carry: copy it again"
            )
        data_dir = parse_location("CALLS_DATA_DIR", values.get("CALLS_DATA_DIR", "data"))
        has_relative_catalog = _parse_catalog_paths(values.get("CALLS_CATALOG_PATHS", "absolute"))
        if has_relative_catalog and isinstance(data_dir, str):
            raise SettingsError("CALLS_CATALOG_PATHS=relative needs a CALLS_DATA_DIR that is a directory")
        return cls(
            data_dir=data_dir,
            timezone=_parse_zone(values.get("CALLS_TIMEZONE", "UTC")),
            start_date=_parse_date(values.get("CALLS_START_DATE", "2024-01-01")),
            api_base_url=_parse_base_url(values.get("CALLS_API_BASE_URL")),
            api_token=token,
            api_token_file=Path(token_file).expanduser() if token_file else None,
            reread_after=_parse_ages(values.get("CALLS_REREAD_AFTER", "1h,24h,7d")),
            requests_per_second=_parse_number(values, "CALLS_API_REQUESTS_PER_SECOND", 10.0, 0.01, 100_000.0),
            concurrency=_parse_whole(values, "CALLS_API_CONCURRENCY", 16, 1, 1_000),
            timeout_seconds=_parse_number(values, "CALLS_API_TIMEOUT_SECONDS", 30.0, 0.1, 600.0),
            max_attempts=_parse_whole(values, "CALLS_API_MAX_ATTEMPTS", 5, 1, 20),
            backfill_days_per_run=_parse_whole(values, "CALLS_BACKFILL_DAYS_PER_RUN", 7, 0, 10_000),
            id_scan=_parse_switch(values, "CALLS_ID_SCAN", "on"),
            poll_seconds=_parse_whole(values, "CALLS_POLL_SECONDS", 30, 5, 86_400),
            has_relative_catalog=has_relative_catalog,
            is_single_writer=_parse_switch(values, "CALLS_SINGLE_WRITER", "off"),
            webhook_secrets=tuple(
                _parse_secret("CALLS_WEBHOOK_SECRET", text)
                for text in values.get("CALLS_WEBHOOK_SECRET", "").split(",")
                if text.strip()
            ),
            webhook_signing_key=_parse_secret("CALLS_WEBHOOK_SIGNING_KEY", values["CALLS_WEBHOOK_SIGNING_KEY"])
            if "CALLS_WEBHOOK_SIGNING_KEY" in values
            else None,
            alert_url=_parse_alert_url(values.get("CALLS_ALERT_URL")),
            ui_url=_parse_base_url(values.get("CALLS_UI_URL"), "CALLS_UI_URL", "https://dagster.example.com"),
            keep_runs_days=_parse_whole(values, "CALLS_KEEP_RUNS_DAYS", 30, 0, 36_500),
        )

    def api_problem(self) -> str | None:
        """Says what keeps the API from being used, or None when it can be."""
        if self.api_base_url is None:
            return "CALLS_API_BASE_URL is not set: give the API's base URL, for example https://api.example.com/v2"
        if self.api_token is None and self.api_token_file is None:
            return "neither CALLS_API_TOKEN nor CALLS_API_TOKEN_FILE is set: give the vendor's access token"
        if self.api_token is not None and self.api_token_file is not None:
            return "CALLS_API_TOKEN and CALLS_API_TOKEN_FILE are both set: keep one"
        return None


def parse_location(name: str, text: str) -> Location:
    """Reads a directory, or the address of an object store.

    Args:
        name: What the user calls it.
        text: What the user gave; never repeated when it looks like an address, because of what may be in it.

    Raises:
        SettingsError: It is an address that no lake can be in.
    """
    scheme, mark, rest = text.partition("://")
    if not mark:
        return Path(text).expanduser()
    advice = "write it as s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    if scheme not in _STORE_SCHEMES:
        raise SettingsError(f"{name} is an address of a kind that is not known: {advice}")
    parts = rest.rstrip("/").split("/")
    # No characters that mean something in patterns, in URLs, or, as the @ before a host, credentials.
    if not all(re.fullmatch(r"[A-Za-z0-9_.=-]+", part) and part.strip(".") for part in parts):
        raise SettingsError(
            f"{name} may have letters, digits and _.=- between its slashes, and no credentials, which come from the "
            f"environment: {advice}"
        )
    return f"{scheme}://{'/'.join(parts)}"


def _parse_zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingsError(
            f"CALLS_TIMEZONE={text!r} is not a time zone: use a name such as Europe/Berlin or UTC"
        ) from None


def _parse_date(text: str) -> date:
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"CALLS_START_DATE={text!r} is not a date: write it as YYYY-MM-DD") from None


def _parse_base_url(
    text: str | None, name: str = "CALLS_API_BASE_URL", example: str = "https://api.example.com/v2"
) -> str | None:
    if text is None:
        return None
    advice = f"give something like {example}"
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise SettingsError(f"{name} is not a URL: {advice}") from None
    if parts.scheme not in {"http", "https"} or not host or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise SettingsError(f"{name} is not an http(s) URL: {advice}")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise SettingsError(f"{name} must have no user, password, query or fragment: {advice}")
    return text.rstrip("/")


def _parse_alert_url(text: str | None) -> str | None:
    """Checks the address of alerts, which may hold a secret: no message repeats any part of it."""
    if text is None:
        return None
    base, _, query = text.partition("?")
    _parse_base_url(base, "CALLS_ALERT_URL", "https://chat.example.com/hooks/secret")
    if "#" in query or not re.fullmatch(r"[\x21-\x7e]*", query):
        raise SettingsError("CALLS_ALERT_URL holds a blank, a fragment or a character that no URL may carry")
    return text


def _parse_ages(text: str) -> tuple[timedelta, ...]:
    ages = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,6})([smhd])", part.strip(), re.ASCII)
        if match is None:
            raise SettingsError(f"CALLS_REREAD_AFTER={text!r} is not a list of ages: write it as 1h,24h,7d")
        ages.append(timedelta(seconds=int(match[1]) * _AGE_UNITS[match[2]]))
    if any(later <= earlier for earlier, later in itertools.pairwise(ages)) or ages[0] <= timedelta(0):
        raise SettingsError(f"CALLS_REREAD_AFTER={text!r} must rise, each age greater than the one before: 1h,24h,7d")
    return tuple(ages)


def _parse_number(values: Mapping[str, str], name: str, default: float, lowest: float, highest: float) -> float:
    text = values.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not lowest <= number <= highest:
        raise SettingsError(f"{name}={text!r} is not a number from {lowest:g} to {highest:g}")
    return number


def _parse_whole(values: Mapping[str, str], name: str, default: int, lowest: int, highest: int) -> int:
    text = values.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not lowest <= int(text) <= highest:
        raise SettingsError(f"{name}={text!r} is not a whole number from {lowest} to {highest}")
    return int(text)


def _parse_catalog_paths(text: str) -> bool:
    if text.lower() not in {"absolute", "relative"}:
        raise SettingsError("CALLS_CATALOG_PATHS is neither absolute nor relative")
    return text.lower() == "relative"


def _parse_secret(name: str, text: str) -> str:
    # What may stand in a path and in a header alike.
    if not re.fullmatch(r"[A-Za-z0-9._~-]{16,200}", text.strip()):
        raise SettingsError(
            f"{name} needs secrets of 16 to 200 letters, digits or ._~- each: make one with openssl rand -hex 24"
        )
    return text.strip()


def _parse_switch(values: Mapping[str, str], name: str, default: str) -> bool:
    text = values.get(name, default)
    word = text.lower()
    if word in _TRUE_WORDS:
        return True
    if word in _FALSE_WORDS:
        return False
    raise SettingsError(f"{name}={text!r} is neither on nor off")
