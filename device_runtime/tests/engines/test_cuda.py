"""The calls of NVIDIA's libraries, against one of ours with the same functions and layouts."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import InvalidInputError, UnavailableError
from edgefleet_runtime.engines.cuda import HANDLE_BYTES, LoadedCuda, find_cuda

# The handle holds an address of this process; GPU 1 is broken, and 0 is an address of nothing.
SOURCE = """
#include <stdint.h>
#include <string.h>
typedef struct { char reserved[64]; } handle_t;
static int current = 0;
static char memory[1000];
int closed = 0, last_kind = 0, synchronized = 0;
int cudaGetDeviceCount(int *count) { *count = 2; return 0; }
int cudaSetDevice(int device) { current = device; return device == 1 ? 46 : 0; }
int cudaGetLastError(void) { return 0; }
const char *cudaGetErrorString(int code) { return code == 46 ? "devices are busy" : "invalid"; }
int cudaIpcOpenMemHandle(void **pointer, handle_t handle, unsigned flags) {
    if (handle.reserved[0] != 'H' || handle.reserved[63] != '!' || flags != 1) return 1;
    *pointer = memory;
    return 0;
}
int cudaIpcCloseMemHandle(void *pointer) { closed += pointer == memory; return 0; }
int cudaMemcpy(void *target, const void *source, size_t size, int kind) {
    last_kind = kind;
    memcpy(target, source, size);
    return 0;
}
int cudaDeviceSynchronize(void) { synchronized++; return 0; }
int cuMemGetAddressRange_v2(uint64_t *base, size_t *size, uint64_t pointer) {
    if (pointer < (uint64_t)memory || pointer >= (uint64_t)memory + sizeof memory) return 1;
    *base = (uint64_t)memory;
    *size = sizeof memory;
    return 0;
}
"""
HANDLE = b"H" + bytes(HANDLE_BYTES - 2) + b"!"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to build a library with")
    folder = tmp_path_factory.mktemp("cuda")
    source, built = folder / "cuda.c", folder / "libcudart.so.12"
    source.write_text(SOURCE)
    command = [compiler, "-shared", "-fPIC", "-o", str(built), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return built


@pytest.fixture
def loaded(library: Path) -> LoadedCuda:
    both = ctypes.CDLL(str(library))
    return LoadedCuda(both, both)


def number(loaded: LoadedCuda, name: str) -> int:
    return ctypes.c_int.in_dll(loaded.runtime, name).value


def test_a_handle_opens_memory_that_is_read_written_and_let_go(loaded: LoadedCuda) -> None:
    pointer = loaded.open(0, HANDLE)
    assert loaded.size_of(0, pointer) == 1000
    assert loaded.size_of(0, pointer + 990) == 10
    loaded.to_device(0, pointer, memoryview(b"hello"))
    assert number(loaded, "last_kind") == 1
    loaded.copy(0, pointer + 100, pointer, 5)
    assert (number(loaded, "last_kind"), number(loaded, "synchronized")) == (3, 1)
    seen = bytearray(7)
    loaded.to_host(0, pointer + 99, seen)
    assert number(loaded, "last_kind") == 2
    assert bytes(seen) == b"\0hello\0"
    closed = number(loaded, "closed")
    loaded.close(0, pointer)
    assert number(loaded, "closed") == closed + 1


def test_what_is_no_handle_or_no_address_is_the_callers_fault(loaded: LoadedCuda) -> None:
    with pytest.raises(InvalidInputError, match="can't be opened on GPU 0: invalid"):
        loaded.open(0, bytes(HANDLE_BYTES))
    with pytest.raises(InvalidInputError, match="no memory at that address"):
        loaded.size_of(0, 64)


def test_a_gpu_that_fails_is_unavailable(loaded: LoadedCuda) -> None:
    assert loaded.device_count() == 2
    with pytest.raises(UnavailableError, match="cudaSetDevice failed: devices are busy"):
        loaded.open(1, HANDLE)


def test_a_machine_without_nvidias_driver_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail(f"{name} was loaded"))
    assert find_cuda(tmp_path) is None


def machine(root: Path) -> Path:
    (root / "dev").mkdir()
    (root / "dev/nvidiactl").touch()
    return root


def test_a_driver_that_is_not_installed_is_no_cuda(tmp_path: Path) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has the driver")
    assert find_cuda(machine(tmp_path)) is None


def test_the_runtime_is_taken_from_nvidias_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Path
) -> None:
    real = ctypes.CDLL

    class File:
        def __init__(self, path: Path) -> None:
            self.name = path.name
            self.locate = lambda: path

    class Wheel:
        files = (File(library.parent / "libcudart.py"), File(library))

    def installed(name: str) -> Any:
        if name != "nvidia-cuda-runtime-cu12":
            raise PackageNotFoundError(name)
        return Wheel

    def load(name: str) -> Any:
        if name == str(library) or name == "libcuda.so.1":
            return real(str(library))
        raise OSError(f"{name}: no such file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr("importlib.metadata.distribution", installed)
    found = find_cuda(machine(tmp_path))
    assert found is not None
    assert found.device_count() == 2
