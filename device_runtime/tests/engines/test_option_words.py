"""The command line's words for how models are opened."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.commands.common import add_device, engine_options
from edgefleet_runtime.engines.base import EngineOptions

DIGEST = "sha256:" + "a" * 64


def options(*words: str) -> EngineOptions:
    parser = argparse.ArgumentParser()
    add_device(parser)
    return engine_options(parser.parse_args(words))


def test_nothing_said_is_the_engines_own_choice() -> None:
    assert options() == EngineOptions()


def test_each_word_reaches_the_engine() -> None:
    seen = options(
        *("--device", "cuda", "--strict", "--threads", "3", "--throughput", "always"),
        *("--engine-cache", "cache", "--gpu-memory", "1000", "--allow-custom-ops", DIGEST),
        *("--provider-option", "device_id=1", "--provider-option", "b=c=d"),
    )
    assert seen == EngineOptions(
        providers=("CUDAExecutionProvider",),
        strict=True,
        threads=3,
        throughput="always",
        engine_cache=Path("cache"),
        memory_max_bytes=1000,
        custom_ops=(DIGEST,),
        provider_options=(("device_id", "1"), ("b", "c=d")),
    )


@pytest.mark.parametrize(
    "words,said",
    [
        (("--device", "abacus"), "no device 'abacus'"),
        (("--gpu-memory", "-1"), "no negative number"),
        (("--provider-option", "device_id"), "not KEY=VALUE"),
        (("--allow-custom-ops", "all"), "no digest"),
    ],
)
def test_a_word_that_makes_no_sense_is_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        options(*words)
