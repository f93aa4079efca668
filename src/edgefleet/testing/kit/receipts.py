"""What a deployer must do that takes what devices wrote on a stick: believe their keys alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from edgefleet.capabilities import require
from edgefleet.errors import AccessDeniedError, DocumentError, LimitExceededError, NotFoundError
from edgefleet.interfaces.abilities import CanEnroll
from edgefleet.interfaces.deployer import Deployer
from edgefleet.interfaces.inviting import CanInvite
from edgefleet.interfaces.receipts import CanTakeReceipts
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import encode
from edgefleet.protocol.stick import MAX_RECEIPT_BYTES, Receipt, SignedReceipt
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.devices import AddDevice, enrolling
from edgefleet.testing.kit.gaps import Conformance

Sign = Callable[[str, bytes], SignedReceipt]

LONG = b" " * (MAX_RECEIPT_BYTES + 1)


class ReceiptsConformance(Conformance):
    """Fixtures: ``deployer``, one that `CanTakeReceipts`, ``sign`` and ``fleet_id``; and
    ``add_device`` where the deployer lacks `CanEnroll`.

    Each test has devices of its own, so one deployer may serve all of them.
    """

    @pytest.fixture
    def deployer(self) -> Deployer:
        """A deployer that takes what devices wrote on a stick."""
        return self.lacks("deployer", "a deployer that CanTakeReceipts")

    @pytest.fixture
    def sign(self) -> Sign:
        """Has a device that is in the fleet sign the bytes of a receipt, as its runtime does."""
        return self.lacks("sign", "a callable: a device of the fleet signs bytes of a receipt")

    @pytest.fixture
    def fleet_id(self) -> str:
        """UUID of the fleet, as its devices know it."""
        return self.lacks("fleet_id", "the UUID that the fleet's devices were given")

    @pytest.fixture
    def add_device(self, deployer: Deployer) -> AddDevice:
        """Makes a device part of the fleet."""
        return enrolling(self, deployer)

    @pytest.fixture
    def taking(self, deployer: Deployer) -> CanTakeReceipts:
        """The deployer, as one that can."""
        return require(deployer, CanTakeReceipts)

    def test_what_a_device_signed_is_believed(
        self, taking: CanTakeReceipts, add_device: AddDevice, sign: Sign, fleet_id: str
    ) -> None:
        """If this fails, nothing comes back from devices that only a stick reaches."""
        add_device("honest", group="line-3")
        said = receipt("honest", fleet_id)
        signed = encode(sign("honest", encode(said)))
        for _ in range(2):
            assert taking.check_receipt("honest", signed) == said

    def test_what_its_key_did_not_sign_is_refused(
        self, taking: CanTakeReceipts, add_device: AddDevice, sign: Sign, fleet_id: str
    ) -> None:
        """If this fails, whoever holds the stick speaks for any device."""
        for name in ("victim", "thief"):
            add_device(name, group="line-3")
        own = encode(receipt("victim", fleet_id))
        good, theirs = sign("victim", own), sign("thief", own)
        assert good.signature is not None
        forged = bytes((*good.signature[:-1], good.signature[-1] ^ 1))
        other = encode(receipt("victim", fleet_id, digest=digest_of(b"other")))
        elsewhere = encode(receipt("victim", "0" * 8 + fleet_id[8:]))
        change: Callable[..., SignedReceipt] = partial(msgspec.structs.replace, good)
        for attack in (
            theirs,
            sign("thief", encode(receipt("thief", fleet_id))),
            sign("victim", encode(receipt("thief", fleet_id))),
            sign("victim", elsewhere),
            change(receipt=other),
            change(signature=forged),
            change(signature=None, certificate=None),
            change(certificate=theirs.certificate),
            change(certificate="no certificate"),
        ):
            with pytest.raises(AccessDeniedError):
                taking.check_receipt("victim", encode(attack))

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", LONG], ids=["empty", "cut", "list", "long"])
    def test_what_is_no_receipt_is_malformed(
        self, taking: CanTakeReceipts, add_device: AddDevice, sign: Sign, data: bytes
    ) -> None:
        """If this fails, a file that somebody left on the stick ends the taking of all others."""
        add_device("careless", group="line-3")
        for wrong in (data, encode(sign("careless", data))):
            with pytest.raises((DocumentError, LimitExceededError)):
                taking.check_receipt("careless", wrong)

    def test_only_devices_of_the_fleet_are_believed(
        self,
        deployer: Deployer,
        taking: CanTakeReceipts,
        add_device: AddDevice,
        sign: Sign,
        fleet_id: str,
    ) -> None:
        """If this fails, a device that was let go still speaks by its old key."""
        with pytest.raises(NotFoundError):
            taking.check_receipt("never-seen", b"{}")
        add_device("retired", group="line-3")
        signed = encode(sign("retired", encode(receipt("retired", fleet_id))))
        require(deployer, CanEnroll).retire("retired")
        with pytest.raises(NotFoundError):
            taking.check_receipt("retired", signed)

    def test_a_revoked_device_is_not_believed(
        self,
        deployer: Deployer,
        taking: CanTakeReceipts,
        add_device: AddDevice,
        sign: Sign,
        fleet_id: str,
    ) -> None:
        """If this fails, a stolen device attests by a stick what it can't by the network."""
        add_device("stolen", group="line-3")
        signed = encode(sign("stolen", encode(receipt("stolen", fleet_id))))
        require(deployer, CanInvite).revoke("stolen")
        with pytest.raises(AccessDeniedError):
            taking.check_receipt("stolen", signed)

    def test_a_newer_report_takes_the_place_of_an_older(
        self, deployer: Deployer, taking: CanTakeReceipts, add_device: AddDevice
    ) -> None:
        """If this fails, a stick that lay in a drawer takes a device's state back."""
        add_device("slow", group="line-3")
        newer, older, newest = (samples.report(sequence=number) for number in (7, 4, 8))
        assert taking.take_report("slow", newer.encoded())
        for again in (newer, older):
            assert not taking.take_report("slow", again.encoded())
            assert deployer.device("slow").report == newer
        assert taking.take_report("slow", newest.encoded())
        assert deployer.device("slow").report == newest

    def test_of_reports_at_once_the_newest_is_kept(
        self, deployer: Deployer, taking: CanTakeReceipts, add_device: AddDevice
    ) -> None:
        """If this fails, two sticks at once leave whichever report was written last."""
        add_device("busy", group="line-3")
        reports = [samples.report(sequence=number).encoded() for number in range(1, 7)]
        samples.at_once([partial(taking.take_report, "busy", report) for report in reports])
        found = deployer.device("busy").report
        assert found is not None
        assert found.sequence == 6

    def test_what_is_no_report_leaves_the_one_that_is_there(
        self, deployer: Deployer, taking: CanTakeReceipts, add_device: AddDevice
    ) -> None:
        """If this fails, what a device's own fault wrote hides what it runs."""
        add_device("torn", group="line-3")
        said = samples.report(sequence=1)
        assert taking.take_report("torn", said.encoded())
        for data in (b"", b"{", b"[]", LONG):
            with pytest.raises((DocumentError, LimitExceededError)):
                taking.take_report("torn", data)
        assert deployer.device("torn").report == said


def receipt(device: str, fleet: str, **changed: Any) -> Receipt:  # noqa: ANN401 - the fields' own
    """What a device says of its report."""
    content = b"content"
    said = Receipt(
        device=device,
        path="report.json",
        digest=digest_of(content),
        size=len(content),
        fleet=fleet,
    )
    return msgspec.structs.replace(said, **changed)
