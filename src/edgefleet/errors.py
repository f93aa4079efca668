"""The whole error tree. Every failure that EdgeFleet raises on purpose is one of these.

Rules kept here:

- each class also inherits the builtin that a Python user would catch;
- each error can carry the provider and operation it came from, whether a retry may help, a cure;
- the message of an error ends with its cure, so that printing it is enough.

The tree (``tests/house/test_errors.py`` holds it against the code)::

    EdgeFleetError(Exception)
    ├── ConfigurationError(ValueError)
    │   ├── ProfileError
    │   ├── ProviderNotFoundError(LookupError)
    │   ├── PluginImportError(ImportError)
    │   └── MissingExtraError(ImportError)
    ├── NotFoundError(LookupError)
    │   └── AmbiguousReferenceError
    ├── ConflictError(RuntimeError)
    │   ├── AlreadyExistsError(FileExistsError)
    │   └── LoopHeldError
    ├── AccessDeniedError(PermissionError)
    │   └── AccessExpiredError
    ├── PolicyError(RuntimeError)
    │   ├── ApprovalRequiredError
    │   └── VetoedError
    ├── UnsupportedError(NotImplementedError)
    ├── InvalidInputError(ValueError)
    │   ├── LimitExceededError
    │   ├── InvalidModelError
    │   └── DocumentError
    │       └── UnknownFeatureError
    ├── IntegrityError(ValueError)
    ├── UnavailableError(ConnectionError)
    │   └── ThrottledError
    ├── StorageFullError(OSError)
    ├── WaitTimeoutError(TimeoutError)
    ├── CancelledError(RuntimeError)
    ├── TrainingFailedError(RuntimeError)
    ├── AccuracyGateError(RuntimeError)
    ├── DeploymentFailedError(RuntimeError)
    └── InferenceError(RuntimeError)
"""

from __future__ import annotations


class EdgeFleetError(Exception):
    """Base of every error that EdgeFleet raises on purpose.

    Args:
        message: what went wrong, naming the thing it went wrong with.
        cure: what the reader can do about it; appended to the message.
        provider: the plugin the failure came through, if any.
        operation: the public operation that failed, such as ``registry.push``.
        retryable: whether the same call may succeed later without a change.
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        cure: str | None = None,
        provider: str | None = None,
        operation: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.provider = provider
        self.operation = operation
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        return self.message if self.cure is None else f"{self.message}\n  cure: {self.cure}"

    def prefixed(self, where: str) -> None:
        """Put where it happened in front of the message: ``where: message``."""
        self.message = f"{where}: {self.message}"
        self.args = (self.message,)

    def located(self, *, provider: str | None = None, operation: str | None = None) -> None:
        """Fill in where the error passed through, keeping what an inner boundary already said."""
        self.provider = self.provider or provider
        self.operation = self.operation or operation


class ConfigurationError(EdgeFleetError, ValueError):
    """The set-up on this machine is wrong: a profile, a setting, a plugin, an extra."""


class ProfileError(ConfigurationError):
    """A profile or one of its settings is missing or wrong."""


class ProviderNotFoundError(ConfigurationError, LookupError):
    """A profile names a provider that no installed plugin offers."""


class PluginImportError(ConfigurationError, ImportError):
    """An installed plugin fails to import."""


class MissingExtraError(ConfigurationError, ImportError):
    """An optional dependency is needed for this call and is not installed."""


class NotFoundError(EdgeFleetError, LookupError):
    """A model, version, run, group, device or document does not exist."""


class AmbiguousReferenceError(NotFoundError):
    """A bare name fits more than one thing."""


class ConflictError(EdgeFleetError, RuntimeError):
    """Somebody else changed the same document first; read it again and retry."""

    retryable = True


class AlreadyExistsError(ConflictError, FileExistsError):
    """A thing that may exist only once exists already with other content."""

    retryable = False


class LoopHeldError(ConflictError):
    """Another process works at the same loop."""


class AccessDeniedError(EdgeFleetError, PermissionError):
    """The identity in use may not do this."""


class AccessExpiredError(AccessDeniedError):
    """The access was valid once; renew it and retry."""

    retryable = True


class PolicyError(EdgeFleetError, RuntimeError):
    """A rule of this fleet forbids the operation."""


class ApprovalRequiredError(PolicyError):
    """The profile asks for approved versions only."""


class VetoedError(PolicyError):
    """A plugin's ``edgefleet_before_deploy`` hook refused the deployment."""


class UnsupportedError(EdgeFleetError, NotImplementedError):
    """The backend lacks this operation or cannot honour this option."""


class InvalidInputError(EdgeFleetError, ValueError):
    """An argument or a file given by the caller is unusable."""


class LimitExceededError(InvalidInputError):
    """A documented limit would be exceeded; nothing was sent."""


class InvalidModelError(InvalidInputError):
    """A model file is not what it claims to be, or the runtime cannot load it."""


class DocumentError(InvalidInputError):
    """A wire document is malformed."""


class UnknownFeatureError(DocumentError):
    """A document requires features that this receiver does not know.

    Args:
        features: the names that the document requires and this receiver lacks.
    """

    def __init__(
        self, message: str, *, features: tuple[str, ...] = (), cure: str | None = None
    ) -> None:
        super().__init__(message, cure=cure)
        self.features = features


class IntegrityError(EdgeFleetError, ValueError):
    """Bytes do not match their digest or size."""


class UnavailableError(EdgeFleetError, ConnectionError):
    """A service or device cannot be reached now."""

    retryable = True


class ThrottledError(UnavailableError):
    """A service asks for fewer calls.

    Attributes:
        retry_after_s: how long it asks to wait, in seconds; None when it doesn't say.
    """

    retry_after_s: float | None = None


class StorageFullError(EdgeFleetError, OSError):
    """No room is left where the bytes should go; what was there before is untouched."""


class WaitTimeoutError(EdgeFleetError, TimeoutError):
    """The condition waited for did not come true in time; the work itself goes on."""

    retryable = True


class CancelledError(EdgeFleetError, RuntimeError):
    """The work waited for was cancelled by somebody."""


class TrainingFailedError(EdgeFleetError, RuntimeError):
    """A training run ended without success."""


class AccuracyGateError(EdgeFleetError, RuntimeError):
    """No candidate kept the accuracy asked for."""


class DeploymentFailedError(EdgeFleetError, RuntimeError):
    """Groups weren't given a release, or more devices rejected it than the gate allows."""


class InferenceError(EdgeFleetError, RuntimeError):
    """A device refused or failed an inference request."""
