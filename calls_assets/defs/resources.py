"""Resources: the API and the lake, as configured for this deployment.

They are plain objects, not configurable resources: nobody can point a run at another host, token or directory from
the launchpad.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime

from calls_assets.api import CallsClient, connect
from calls_assets.ingest import SweepOptions
from calls_assets.lake import CorruptFileError, Lake
from calls_assets.settings import Settings


@dataclass(frozen=True, slots=True)
class CallsApi:
    """The vendor's API.

    Attributes:
        settings: The deployment's settings.
    """

    settings: Settings

    def connect(self, *, is_probe: bool = False) -> CallsClient:
        """Makes a client, to be used as an asynchronous context.

        Args:
            is_probe: Give up early: for sensors, which come again soon.

        Raises:
            SettingsError: The settings name no usable API.
        """
        return connect(self.settings, is_probe=is_probe)

    @property
    def options(self) -> SweepOptions:
        """What a sweep needs to know of the settings."""
        return SweepOptions.from_settings(self.settings)

    def today(self) -> date:
        """Gives the local day."""
        return self.now().astimezone(self.settings.timezone).date()

    @staticmethod
    def now() -> datetime:
        """Gives the time (UTC)."""
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class LakeStore:
    """The lake.

    Attributes:
        settings: The deployment's settings.
    """

    settings: Settings

    def open(self, on_corrupt: Callable[[CorruptFileError], None] | None = None) -> Lake:
        """Opens the lake, and compares its time zone with the settings'.

        Args:
            on_corrupt: Told of damaged raw files, which are left out; None lets reading them fail.

        Raises:
            LakeError: It cannot be used, or has days of another zone.
        """
        settings = self.settings
        lake = Lake.open(settings.data_dir, on_corrupt=on_corrupt, is_single_writer=settings.is_single_writer)
        lake.bind(settings.timezone.key)
        return lake
