"""S3 as a device needs it: read blobs, write below its own prefix; signed with its role's keys.

Requests are those of the runtime's own HTTP source, with AWS's signature (version 4) in headers;
the signing is the AWS Common Runtime's. boto3 would cost a device 100 MB.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urlsplit

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    EdgeFleetError,
    InvalidInputError,
    UnavailableError,
)
from edgefleet_runtime.store.bandwidth import open_plain
from edgefleet_runtime.store.http import TIMEOUT_S, HttpSource, put_opener, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgefleet_runtime.channels.greengrass.credentials import TokenExchange

_UNSIGNED = "UNSIGNED-PAYLOAD"  # the transport is TLS, and blobs are checked by their digests

MAX_ANSWER = 64 << 10  # bytes of a refusal that are read
_CODE = re.compile(rb"<Code>([A-Za-z]{1,80})</Code>")
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_RENEW = "let token exchange renew the keys: the nucleus must reach AWS"
_ENDED = {
    "ExpiredToken": ("the keys have ended", _RENEW),
    "InvalidToken": ("the keys have ended", _RENEW),
    "RequestTimeTooSkewed": ("the device's clock is wrong", "set the device's clock"),
}


class Bucket:
    """A bucket, seen with the keys of a token exchange.

    Args:
        name: of the bucket.
        region: that it lies in.
        exchange: gives keys.
        endpoint: of another store that speaks S3, such as ``https://minio.plant:9000``; None for
            AWS's own.

    Raises:
        InvalidInputError: the endpoint is no address.
    """

    def __init__(
        self, name: str, region: str, exchange: TokenExchange, *, endpoint: str | None = None
    ) -> None:
        if endpoint is None:
            # https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html: the path
            # form works for every bucket name, one with dots included, under one certificate.
            endpoint = f"https://s3.{region}.amazonaws.com"
        if urlsplit(endpoint).scheme not in {"https", "http"}:
            raise InvalidInputError(f"{endpoint!r} is no address of an S3 store")
        self.name = name
        self._region = region
        self._exchange = exchange
        self._base = f"{endpoint.rstrip('/')}/{quote(name)}"

    def source(self, address: str) -> HttpSource:
        """Blobs below an ``s3://`` address of this bucket."""
        below = urlsplit(address).path.strip("/")
        url = f"{self._base}/{quote(below)}" if below else self._base
        found = HttpSource(url, headers=lambda url: self._signed("GET", url), refusal=self._refused)
        found.address = address
        return found

    def put(self, key: str, path: Path, opened: Callable[[Path], BinaryIO] = open_plain) -> None:
        """Write a file under a key; the same again changes nothing.

        Args:
            key: in the bucket.
            path: the file.
            opened: opens it for reading.

        Raises:
            AccessDeniedError: the role may not write there.
            AccessExpiredError: its keys ended.
            UnavailableError, ThrottledError: not now.
        """
        url = f"{self._base}/{quote(key)}"
        headers = {
            **self._signed("PUT", url),
            "Content-Length": str(path.stat().st_size),
            "Content-Type": "application/octet-stream",
        }
        where = f"{urlsplit(url).netloc}, {key}"
        with opened(path) as stream:
            request = urllib.request.Request(url, stream, headers, method="PUT")  # noqa: S310 - checked above
            try:
                with put_opener().open(request, timeout=TIMEOUT_S):
                    return
            except urllib.error.HTTPError as error:
                with error:
                    raise self._refused(error, where) from error
            except (OSError, http.client.HTTPException) as error:
                raise UnavailableError(f"{where}: {error}") from error

    def _refused(self, error: urllib.error.HTTPError, where: str) -> EdgeFleetError:
        """What S3 means, which tells keys that ended apart from keys that may not."""
        self._exchange.forget()
        found = _CODE.search(error.read(MAX_ANSWER))
        code = found[1].decode() if found else ""
        if code in _ENDED:
            why, cure = _ENDED[code]
            return AccessExpiredError(f"{where}: {why} ({code})", cure=cure)
        if code == "AccessDenied":
            return AccessDeniedError(f"{where}: {code}", cure="check the role's policy")
        return refusal_of(error.code, error.headers, where)

    def _signed(self, method: str, url: str) -> Mapping[str, str]:
        """Headers that let a request pass."""
        from awscrt import auth  # noqa: PLC0415 - an extra
        from awscrt.http import HttpHeaders, HttpRequest  # noqa: PLC0415

        keys = self._exchange.keys()
        parts = urlsplit(url)
        request = HttpRequest(method, parts.path, HttpHeaders([("Host", parts.netloc)]))
        config = auth.AwsSigningConfig(
            algorithm=auth.AwsSigningAlgorithm.V4,
            signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
            credentials_provider=auth.AwsCredentialsProvider.new_static(
                keys.key_id, keys.secret, keys.token
            ),
            region=self._region,
            service="s3",
            use_double_uri_encode=False,
            should_normalize_uri_path=False,
            signed_body_value=_UNSIGNED,
            signed_body_header_type=auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
        )
        auth.aws_sign_request(request, config).result()
        return {name: value for name, value in request.headers if name.lower() != "host"}
