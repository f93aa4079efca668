"""The real kubectl, run by tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

LIMIT_S = 120


class Kubectl:
    """Runs kubectl.

    Args:
        program: path of it.
        environment: that it runs in; names the kubeconfig.
    """

    def __init__(self, program: str, environment: Mapping[str, str]) -> None:
        self._program, self._environment = program, dict(environment)

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [self._program, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            env=self._environment,
        )

    @contextmanager
    def started(self, *arguments: str) -> Iterator[Iterator[str]]:
        """Lines of one that runs until the block ends."""
        process = subprocess.Popen(
            [self._program, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        assert process.stdout is not None
        try:
            yield iter(process.stdout)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
