"""What a fleet tells of what its devices recorded: drift, losses and cost."""

from __future__ import annotations

from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError, ProfileError
from edgefleet.plugins import discovery
from edgefleet.policy_files import read_policy
from edgefleet.protocol.policy import TelemetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.analysis.bill import Bill
    from edgefleet.analysis.drift_report import DriftReport
    from edgefleet.analysis.drift_rows import Level
    from edgefleet.analysis.losses_report import Losses
    from edgefleet.analysis.windows import Place
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.pricing import Prices
    from edgefleet.interfaces.values import DeviceInfo
    from edgefleet.protocol.drift import Limits
    from edgefleet.services import Services


class Insights:
    """The part of a fleet that looks at what its devices recorded."""

    _services: Services

    def drift(
        self,
        model: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        group: str | None = None,
        by: Level = "device",
        limits: Limits | None = None,
    ) -> DriftReport:
        """How far what devices saw lies from what a model's bundle expects.

        Sketches are merged over devices and weeks, for each version of the model by itself.

        Args:
            model: name for all versions that devices served, or a reference to one.
            since: not before this time, time zone required.
            until: before this time.
            group: only devices of this group.
            by: the finest level to judge: ``device``, ``group`` or ``fleet``.
            limits: from where on a distance counts; None for the customary ones.

        Raises:
            NotFoundError: no such model, version or group.
            MissingExtraError: the datasketches library isn't installed.
        """
        from edgefleet.analysis.drift import drift_of  # noqa: PLC0415 - pulls what others don't need

        return drift_of(
            model,
            telemetry=self._services.telemetry,
            registry=self._services.registry,
            places=dict(self._places(group)),
            since=since,
            until=until,
            only_placed=group is not None,
            by=by,
            limits=limits,
        )

    def losses(
        self,
        model: str | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        group: str | None = None,
    ) -> Losses:
        """What devices had to drop for lack of room, by their own accounts.

        Args:
            model: only tallies of this model or stream.
            since: only days that end after this time, time zone required.
            until: only days that begin before it.
            group: only devices of this group.

        Raises:
            NotFoundError: no such group.
        """
        from edgefleet.analysis.losses import losses_of  # noqa: PLC0415 - as above

        places = dict(self._places(group))
        return losses_of(
            self._services.telemetry,
            model=model,
            since=since,
            until=until,
            devices=None if group is None else places,
            reported={name: place.dropped for name, place in places.items()},
        )

    def cost(
        self,
        *,
        policy: TelemetryPolicy | str | PathLike[str] | None = None,
        devices: int | None = None,
        predictions_per_s: float = 1.0,
        alarms_per_day: float = 1.0,
        features: int = 16,
        since: datetime | None = None,
        until: datetime | None = None,
        prices: Path | str | None = None,
        keep_days: float = 365.0,
        reads: float = 1.0,
        status_per_day: float = 24.0,
        releases_per_month: float = 1.0,
        model_bytes: int = 10_000_000,
    ) -> Bill:
        """What telemetry and delivery cost a month, by the meters of the profile's providers.

        Measured from the events of a span, by default of the last 30 days, and scaled to a month;
        or, where a number of devices is given, estimated before anything is deployed.

        Args:
            policy: to estimate with, itself or the path of a TOML file that holds one; None for
                the profile's, or the default one.
            devices: how many to estimate for.
            predictions_per_s: of each of them.
            alarms_per_day: likewise, health events included.
            features: numeric ones that are sketched where the policy says so.
            since: measure events from this time on, time zone required; None for the first one in
                the 30 days before ``until``.
            until: and before this time; None for the last one there is now.
            prices: a file of prices, which go before those that a provider brings; see
                `edgefleet.interfaces.pricing`.
            keep_days: recordings are deleted after so many days.
            reads: how often each recording is read.
            status_per_day: how often the state of each device is asked for in a day.
            releases_per_month: how often each device gets a new model.
            model_bytes: of the variant that a device fetches.

        Raises:
            InvalidInputError: there is nothing to measure, a number is senseless, or the file of
                prices is malformed or of a provider that the profile doesn't name.
        """
        from edgefleet.analysis.bill import bill_of  # noqa: PLC0415 - as above
        from edgefleet.analysis.usage import Habits, estimated, measured  # noqa: PLC0415

        if policy is not None and devices is None:
            msg = "a policy alone tells no cost"
            raise InvalidInputError(msg, cure="give a number of devices, too, to estimate")
        known, unpriced = self._prices(None if prices is None else Path(prices))
        habits = Habits(
            keep_days=keep_days,
            reads=reads,
            status_per_day=status_per_day,
            releases_per_month=releases_per_month,
            model_bytes=model_bytes,
        )
        recorded = self._services.profile.recorded or TelemetryPolicy()
        if devices is None:
            usage = measured(
                self._services.telemetry,
                since=since,
                until=until,
                now=datetime.now(UTC),
                reports=[info.report for _, info in self._listed(None)],
                heartbeat_s=recorded.heartbeat_s,
                habits=habits,
            )
        else:
            if isinstance(policy, str | PathLike):
                policy = read_policy(policy)
            usage = estimated(
                policy or recorded,
                devices=devices,
                predictions_per_s=predictions_per_s,
                alarms_per_day=alarms_per_day,
                features=features,
                habits=habits,
            )
        return bill_of(usage, known).model_copy(update={"unpriced": unpriced})

    def _prices(
        self, file: Path | None
    ) -> tuple[list[tuple[Prices, frozenset[str]]], tuple[str, ...]]:
        """Prices of the profile's providers with the roles of each, and who has none."""
        from edgefleet.interfaces.pricing import read_prices  # noqa: PLC0415 - as above

        profile = self._services.profile
        roles: dict[str, set[str]] = {profile.provider_of("telemetry"): {"telemetry"}}
        for name in profile.deployer_names():
            roles.setdefault(name, set()).add("delivery")
        found = {name: discovery.provider(name).prices() for name in roles}
        if file is not None:
            given = read_prices(file.read_bytes(), name=str(file))
            if given.provider not in roles:
                msg = f"{file}: the profile names no provider {given.provider!r}"
                raise InvalidInputError(msg, cure=f"providers it names: {', '.join(roles)}")
            found[given.provider] = given.over(found[given.provider])
        known = [(one, frozenset(roles[name])) for name, one in found.items() if one is not None]
        return known, tuple(name for name, one in found.items() if one is None)

    def _places(self, group: str | None) -> Iterator[tuple[str, Place]]:
        """Devices of a group or all, by name."""
        from edgefleet.analysis.windows import Place  # noqa: PLC0415 - as above

        for deployer, info in self._listed(group):
            home = f"{deployer.name}/{info.group}"
            if info.report is None:
                yield info.name, Place(home)
            else:
                serves = frozenset(one.name for one in info.report.models)
                yield info.name, Place(home, serves, info.report.health.events_dropped)

    def _listed(self, group: str | None) -> Iterator[tuple[Deployer, DeviceInfo]]:
        if group is not None:
            deployer, name = self._services.find_group(group)
            yield from ((deployer, info) for info in deployer.devices(name))
            return
        try:
            deployers = tuple(self._services.deployers.values())
        except ProfileError:  # telemetry without a deployer: what was recorded is still there
            return
        for deployer in deployers:
            yield from ((deployer, info) for info in deployer.devices())
