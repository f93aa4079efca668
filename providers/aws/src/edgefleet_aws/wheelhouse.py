"""The runtime as an archive that a device installs without an index: a plant's firewall stops pip.

The archive holds wheels, for as many kinds of devices as there are; pip on the device takes the
ones that fit. The same wheels give the same archive, so its name is its digest.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.protocol.digest import digest_of_file, hex_of
from edgefleet.runtime_archive.packing import Member, pack_zip
from edgefleet.runtime_archive.wheelhouse import check_some_target
from edgefleet_aws.errors import code_of
from edgefleet_aws.recipes import RUN_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_aws.clients import S3
    from edgefleet_aws.settings import AwsSettings

NEEDS = "edgefleet-runtime[cpu,greengrass]"
INSTALL_S = 900  # a slow card takes minutes to write 200 MB


class Archive(NamedTuple):
    """A wheelhouse as one file.

    Attributes:
        path: where it lies while the block runs.
        name: digest of its content, in hexadecimal.
    """

    path: Path
    name: str

    def address(self, settings: AwsSettings) -> str:
        """Where devices find it."""
        return f"{settings.root}/components/runtime/{self.name}.zip"

    def lifecycle(self) -> dict[str, Any]:
        """Scripts that install and run what is in it."""
        wheels, site = f"{{artifacts:decompressedPath}}/{self.name}", f"{{work:path}}/{self.name}"
        pip = "python3 -m pip install --quiet --no-index --disable-pip-version-check"
        return {
            "install": {
                "script": f"{pip} -f {wheels} --upgrade --target {site} '{NEEDS}'",
                "timeout": INSTALL_S,
            },
            "run": f"exec env PYTHONPATH={site} python3 -m edgefleet_runtime run {RUN_OPTIONS}",
        }


@contextmanager
def archive(wheels: Path) -> Iterator[Archive]:
    """The archive of a folder of wheels.

    Raises:
        ConfigurationError: the folder lacks something on every kind of device, or all of it.
        IntegrityError: what is named like a wheel is none.
    """
    found = check_some_target(wheels, NEEDS)
    with tempfile.TemporaryDirectory(prefix="edgefleet-") as folder:
        path = Path(folder) / "wheels.zip"
        pack_zip((Member(one.path.name, one.path) for one in found), path)
        yield Archive(path, hex_of(digest_of_file(path)[0]))


def upload(s3: S3, settings: AwsSettings, one: Archive) -> None:
    """Store an archive, unless it is there."""
    key = one.address(settings).removeprefix(f"s3://{settings.bucket}/")
    try:
        s3.head_object(Bucket=settings.bucket, Key=key)
    except Exception as error:
        if code_of(error) not in {"404", "NoSuchKey"}:
            raise
        s3.upload_file(str(one.path), settings.bucket, key)
