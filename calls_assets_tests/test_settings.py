"""Settings: defaults, bounds, one clear line for a wrong value."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from calls_assets.settings import Settings, SettingsError


def test_three_variables_are_enough_for_the_real_api() -> None:
    """URL, token and start date configure a deployment; everything else has a default."""
    settings = Settings.from_env(
        {
            "CALLS_API_BASE_URL": "https://api.example.com/v2/",
            "CALLS_API_TOKEN": "canary",
            "CALLS_START_DATE": "2025-05-01",
        }
    )
    assert settings.api_problem() is None
    assert settings.api_base_url == "https://api.example.com/v2"
    assert settings.start_date == date(2025, 5, 1)
    assert settings.reread_after == (timedelta(hours=1), timedelta(days=1), timedelta(days=7))
    assert "canary" not in repr(settings)


def test_without_an_api_the_settings_load_and_say_what_is_missing() -> None:
    """Tables can be rebuilt without an API, so its absence is a problem only when it is used."""
    assert "CALLS_API_BASE_URL" in str(Settings.from_env({}).api_problem())
    assert "CALLS_API_TOKEN" in str(Settings.from_env({"CALLS_API_BASE_URL": "http://127.0.0.1:1"}).api_problem())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CALLS_API_BASE_URL", "api.example.com"),
        ("CALLS_API_BASE_URL", "ftp://api.example.com"),
        ("CALLS_API_BASE_URL", "https://user:canary@api.example.com"),
        ("CALLS_API_BASE_URL", "https://api.example.com?x=1"),
        ("CALLS_API_BASE_URL", "http://[::1"),
        ("CALLS_API_TOKEN", "canary canary"),
        ("CALLS_WEBHOOK_SECRET", "canary"),
        ("CALLS_ALERT_URL", "chat.example.com/canary"),
        ("CALLS_ALERT_URL", "https://user:canary@chat.example.com"),
        ("CALLS_ALERT_URL", "https://chat.example.com/hook?key=canary#canary"),
        ("CALLS_ALERT_URL", "https://chat.example.com/hook?key=can ary"),
        ("CALLS_UI_URL", "dagster.example.com"),
        ("CALLS_CATALOG_PATHS", "canary"),
        ("CALLS_POLL_SECONDS", "4"),
        ("CALLS_SINGLE_WRITER", "maybe"),
        ("CALLS_DATA_DIR", "ftp://canary/lake"),
        ("CALLS_DATA_DIR", "S3://canary/lake"),
        ("CALLS_DATA_DIR", "s3://"),
        ("CALLS_DATA_DIR", "s3://bucket//lake"),
        ("CALLS_DATA_DIR", "s3://bucket/../lake"),
        ("CALLS_DATA_DIR", "s3://canary:canary@bucket/lake"),
        ("CALLS_DATA_DIR", "s3://bucket/lake?secret=canary"),
        ("CALLS_DATA_DIR", "s3://bucket/*"),
        ("CALLS_WEBHOOK_SECRET", "canary-canary-canary,canary/canary/canary"),
        ("CALLS_WEBHOOK_SIGNING_KEY", "canary"),
        ("CALLS_TIMEZONE", "Mars/Olympus"),
        ("CALLS_TIMEZONE", "../etc/passwd"),
        ("CALLS_START_DATE", "2025-13-01"),
        ("CALLS_START_DATE", "yesterday"),
        ("CALLS_REREAD_AFTER", "1h,1h"),
        ("CALLS_REREAD_AFTER", "24h,1h"),
        ("CALLS_REREAD_AFTER", "0h"),
        ("CALLS_REREAD_AFTER", "soon"),
        ("CALLS_API_REQUESTS_PER_SECOND", "0"),
        ("CALLS_API_REQUESTS_PER_SECOND", "nan"),
        ("CALLS_API_REQUESTS_PER_SECOND", "fast"),
        ("CALLS_API_CONCURRENCY", "0"),
        ("CALLS_API_CONCURRENCY", "1.5"),
        ("CALLS_API_MAX_ATTEMPTS", "0"),
        ("CALLS_API_TIMEOUT_SECONDS", "0"),
        ("CALLS_BACKFILL_DAYS_PER_RUN", "-1"),
        ("CALLS_ID_SCAN", "maybe"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(name: str, text: str) -> None:
    """The message names the variable, is one line, and never repeats a secret."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: text})
    message = str(caught.value)
    assert message.startswith(name)
    assert "\n" not in message
    assert "canary" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket", "s3://bucket"),
        ("gs://bucket/a/b/", "gs://bucket/a/b"),
        ("az://container/lake_1.x=y-z", "az://container/lake_1.x=y-z"),
        ("relative/lake", Path("relative/lake")),
        ("~/lake", Path.home() / "lake"),
    ],
)
def test_the_lake_is_a_directory_or_an_address(text: str, expected: object) -> None:
    """A slash at the end of an address changes nothing: it would be another lake's name."""
    assert Settings.from_env({"CALLS_DATA_DIR": text}).data_dir == expected


def test_a_catalogue_with_relative_paths_needs_a_directory() -> None:
    """An address has no working directory."""
    with pytest.raises(SettingsError, match="CALLS_CATALOG_PATHS=relative needs a CALLS_DATA_DIR that is a directory"):
        Settings.from_env({"CALLS_DATA_DIR": "s3://bucket", "CALLS_CATALOG_PATHS": "relative"})


@pytest.mark.parametrize(("word", "expected"), [("on", True), ("OFF", False), ("0", False), ("true", True)])
def test_the_switch_takes_the_usual_words(word: str, expected: bool) -> None:
    """On and off in the usual spellings."""
    assert Settings.from_env({"CALLS_ID_SCAN": word}).id_scan is expected


def test_the_address_of_alerts_may_hold_a_secret() -> None:
    """It is taken as it is, query and last slash included, and shown by nothing."""
    settings = Settings.from_env(
        {"CALLS_ALERT_URL": "https://chat.example.com/hook/?key=canary", "CALLS_UI_URL": "https://ui.example.com/"}
    )
    assert settings.alert_url == "https://chat.example.com/hook/?key=canary"
    assert settings.ui_url == "https://ui.example.com"
    assert "canary" not in repr(settings)
