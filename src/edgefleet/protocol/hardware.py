"""The table of hardware targets. Data only: every figure stands on a page that its row cites.

Rules kept here:

- What no page says is left out: a memory or a ceiling that is None, a Python that is empty.
- Whatever suits a target's kin suits the target: it has the same precisions in the same order, the
  same ceiling or none, and opens at least the same formats.
- ``memory_bytes`` is of the smallest board sold under the name, ``max_memory_bytes`` of the
  largest.

Opset ceilings are ONNX Runtime's own where a current release runs. JetPack 4 and 5 carry Pythons
that are too old for one; their ceiling is that of TensorRT's parser, which an external server uses.
"""

from __future__ import annotations

from msgspec.structs import replace

from edgefleet.protocol.hardware_target import ANY, HardwareTarget

ORT_OPSET_CEILING = 26
"""Newest opset of the default ONNX domain that onnxruntime 1.31 loads; it refuses 27 (seen)."""

ORT_IR_CEILING = 13
"""Newest ONNX file format that onnxruntime 1.31 loads; onnx 1.23 writes 14 unless told else."""

_GIB = 1 << 30
_ORT = "https://onnxruntime.ai/docs/"
_NVIDIA = "https://developer.nvidia.com/embedded/"
_TENSORRT = "https://docs.nvidia.com/deeplearning/tensorrt/"
_PARSER = "https://github.com/onnx/onnx-tensorrt/blob/release/"
_AWS_BLOG = "https://aws.amazon.com/blogs/machine-learning/"
_JETSON_WHEELS = "https://pypi.jetson-ai-lab.io"

_X86 = HardwareTarget(
    name="x86-cpu",
    about="x86-64 gateway or server without an accelerator",
    arch="x86_64",
    precisions=("int8", "fp32"),
    formats=("onnx", "openvino", "tflite"),
    opset_ceiling=ORT_OPSET_CEILING,
    os_image="any 64-bit Linux",
    engine_source="onnxruntime, a wheel on PyPI",
    status="tested",
    why="the tests run on one; whether int8 is faster depends on its instructions, see the others",
    source=_ORT + "performance/model-optimizations/quantization.html",
    sources=(_ORT + "install/", _ORT + "reference/compatibility.html"),
)

_RASPBERRY = HardwareTarget(
    name="raspberry-pi-5",
    about="Raspberry Pi 5 (Cortex-A76, dot-product instructions)",
    arch="aarch64",
    precisions=("int8", "fp32"),
    formats=("onnx", "tflite"),
    memory_bytes=1 * _GIB,
    max_memory_bytes=16 * _GIB,
    opset_ceiling=ORT_OPSET_CEILING,
    os_image="Raspberry Pi OS 12 or newer, 64-bit",
    python="3.11",
    engine_source="onnxruntime, a wheel on PyPI",
    why="no board at hand; the same engine runs on x86-64",
    source="https://www.raspberrypi.com/documentation/computers/raspberry-pi.html",
    sources=(
        "https://www.raspberrypi.com/documentation/computers/os.html",
        _ORT + "performance/model-optimizations/quantization.html",
    ),
)

# TensorRT runs int8 on all but the Nano. It comes last, because CUDA, which takes what TensorRT
# doesn't, has no int8 to speak of, and none of these boards was measured.
_GPU = HardwareTarget(
    name="nvidia-gpu",
    about="x86-64 machine with an NVIDIA GPU",
    arch="x86_64",
    precisions=("fp16", "fp32", "int8"),
    formats=("onnx", "tensorrt"),
    providers=("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
    activations="signed",
    opset_ceiling=ORT_OPSET_CEILING,
    os_image="any 64-bit Linux",
    engine_source="onnxruntime-gpu, a wheel on PyPI",
    why="not run on one; memory depends on the card",
    source=_ORT + "execution-providers/CUDA-ExecutionProvider.html",
    sources=(
        _ORT + "execution-providers/TensorRT-ExecutionProvider.html",
        _ORT + "performance/model-optimizations/quantization.html",
    ),
)

_ORIN = replace(
    _GPU,
    name="jetson-orin",
    about="NVIDIA Jetson Orin of any size",
    arch="aarch64",
    memory_bytes=4 * _GIB,
    max_memory_bytes=64 * _GIB,
    os_image="JetPack 6 (Ubuntu 22.04)",
    python="3.10",
    engine_source="onnxruntime-gpu of NVIDIA's community index, in a container",
    why=(
        "JetPack 6's Python is too old for the runtime, and PyPI has no onnxruntime-gpu for arm64: "
        "a container with Ubuntu 24.04 and a wheel of the community index; no board at hand"
    ),
    source=_NVIDIA + "jetson-modules",
    sources=(
        "https://docs.nvidia.com/jetson/jetpack/introduction",
        _NVIDIA + "jetpack-sdk-511",
        _JETSON_WHEELS,
        _ORT + "performance/model-optimizations/quantization.html",
    ),
)

_XAVIER = replace(
    _GPU,
    name="jetson-agx-xavier",
    about="NVIDIA Jetson AGX Xavier",
    arch="aarch64",
    memory_bytes=32 * _GIB,
    max_memory_bytes=64 * _GIB,
    opset_ceiling=17,
    os_image="JetPack 5.1 (Ubuntu 20.04)",
    python="3.8",
    engine_source="an external engine (Triton), or a container",
    why=(
        "JetPack 5's Python is too old for the runtime and for current onnxruntime, and PyPI has "
        "no onnxruntime-gpu for arm64: a server that uses the GPU runs the models ('external' "
        "engine), with the runtime in a container; no board at hand"
    ),
    source=_NVIDIA + "jetpack-sdk-51",
    sources=(
        _NVIDIA + "jetson-modules",
        _PARSER + "8.5-GA/docs/operators.md",
        _TENSORRT + "archives/tensorrt-853/support-matrix/index.html",
        "https://wiki.ubuntu.com/FocalFossa/ReleaseNotes",
    ),
)

_CORAL = HardwareTarget(
    name="coral-usb",
    about="Coral USB Accelerator (Edge TPU) on any host",
    arch="any",
    precisions=("int8",),
    formats=("tflite",),
    providers=("EdgeTpuDelegate", "CPUExecutionProvider"),
    os_image="the host's",
    engine_source="ai-edge-litert, a wheel on PyPI; libedgetpu of Coral's packages",
    status="built",
    why=(
        "its engine was run on a CPU, with a stand-in for Coral's library; models are LiteRT, "
        "8 bits throughout, and compiled by edgetpu_compiler, which runs on x86-64 only"
    ),
    source="https://coral.ai/docs/edgetpu/models-intro",
    sources=(
        "https://coral.ai/docs/edgetpu/compiler",
        "https://coral.ai/docs/accelerator/datasheet/",
    ),
)

BUILTIN: tuple[HardwareTarget, ...] = (
    HardwareTarget(
        name=ANY,
        about="whatever has no target of its own: the plainest variant that its engine opens",
        arch="any",
        precisions=("fp32", "int8", "fp16"),
        opset_ceiling=ORT_OPSET_CEILING,
        engine_source="whatever is installed",
        status="tested",
        why="a device that doesn't know what it is takes what runs anywhere",
        source=_ORT + "execution-providers/",
        sources=(_ORT + "reference/compatibility.html",),
    ),
    _X86,
    replace(
        _X86,
        name="x86-cpu-avx2",
        kin=("x86-cpu",),
        about="x86-64 CPU with AVX2 and without VNNI",
        activations="unsigned",
        status="built",
        why="no such CPU at hand; on a newer one that hides VNNI and AVX-512 from programs, "
        "onnxruntime took its AVX2 kernels, and int8 was measured; their 16-bit sums overflow, so "
        "weights have 7 bits",
    ),
    replace(
        _X86,
        name="x86-cpu-vnni",
        kin=("x86-cpu",),
        about="x86-64 CPU with VNNI (AVX-512 VNNI or AVX-VNNI)",
        why="the tests run on one",
    ),
    replace(
        _X86,
        name="x86-cpu-amx",
        kin=("x86-cpu-vnni", "x86-cpu"),
        about="x86-64 CPU with AMX (4th generation Xeon or newer)",
        why="the tests run on one",
    ),
    replace(
        _X86,
        name="intel-gateway",
        kin=("x86-cpu",),
        about="Intel CPU, integrated GPU or NPU by OpenVINO",
        formats=("openvino", "onnx", "tflite"),
        providers=("OpenVINOExecutionProvider", "CPUExecutionProvider"),
        engine_source="openvino, or onnxruntime-openvino, wheels on PyPI",
        status="untested",
        why="no Intel GPU or NPU at hand; wheels of onnxruntime-openvino are older than "
        "onnxruntime's",
        source="https://docs.openvino.ai/2025/documentation/compatibility-and-support/"
        "supported-devices.html",
        sources=(_ORT + "execution-providers/OpenVINO-ExecutionProvider.html",),
    ),
    replace(
        _RASPBERRY,
        name="raspberry-pi-4",
        about="Raspberry Pi 4 (Cortex-A72, no dot-product instructions)",
        precisions=("fp32", "int8"),
        max_memory_bytes=8 * _GIB,
    ),
    _RASPBERRY,
    replace(
        _XAVIER,
        name="jetson-nano",
        about="NVIDIA Jetson Nano (Maxwell: no int8)",
        precisions=("fp16", "fp32"),
        memory_bytes=2 * _GIB,
        max_memory_bytes=4 * _GIB,
        opset_ceiling=13,
        os_image="JetPack 4.6 (Ubuntu 18.04)",
        python="3.6",
        why=(
            "JetPack 4 is the last, and its Python too old for the runtime and for current "
            "onnxruntime: a server that uses the GPU runs the models ('external' engine), with the "
            "runtime in a container; no board at hand"
        ),
        source=_NVIDIA + "jetpack-archive",
        sources=(
            _NVIDIA + "jetson-modules",
            "https://developer.nvidia.com/jetpack-sdk-441-archive",
            _PARSER + "8.2-GA/docs/operators.md",
            _TENSORRT + "archives/tensorrt-825/support-matrix/index.html",
            "https://wiki.ubuntu.com/BionicBeaver/ReleaseNotes",
        ),
    ),
    replace(
        _XAVIER,
        name="jetson-xavier-nx",
        about="NVIDIA Jetson Xavier NX",
        memory_bytes=8 * _GIB,
        max_memory_bytes=16 * _GIB,
    ),
    _XAVIER,
    _ORIN,
    replace(
        _ORIN,
        name="jetson-orin-nano",
        kin=("jetson-orin",),
        about="NVIDIA Jetson Orin Nano",
        max_memory_bytes=8 * _GIB,
    ),
    replace(
        _ORIN,
        name="jetson-orin-nx",
        kin=("jetson-orin",),
        about="NVIDIA Jetson Orin NX",
        memory_bytes=8 * _GIB,
        max_memory_bytes=16 * _GIB,
    ),
    replace(
        _ORIN,
        name="jetson-agx-orin",
        kin=("jetson-orin",),
        about="NVIDIA Jetson AGX Orin",
        memory_bytes=32 * _GIB,
    ),
    replace(
        _CORAL,
        name="coral-dev-board",
        about="Coral Dev Board (NXP i.MX 8M, Edge TPU)",
        arch="aarch64",
        memory_bytes=1 * _GIB,
        max_memory_bytes=4 * _GIB,
        os_image="Mendel Linux",
        status="untested",
        why=(
            "Mendel stems from Debian 10, whose Python is too old for the runtime: a container; no "
            "board at hand; models are LiteRT, 8 bits throughout, compiled on x86-64 by "
            "edgetpu_compiler"
        ),
        sources=(
            "https://coral.ai/docs/edgetpu/compiler",
            "https://coral.ai/docs/dev-board/datasheet/",
            "https://coral.ai/software/",
        ),
    ),
    _CORAL,
    HardwareTarget(
        name="qualcomm-rb3-gen2",
        about="Qualcomm RB3 Gen 2 (QCS6490, Hexagon NPU)",
        arch="aarch64",
        precisions=("int8", "fp32"),
        formats=("onnx", "qnn"),
        providers=("QNNExecutionProvider", "CPUExecutionProvider"),
        activations="unsigned",
        opset_ceiling=ORT_OPSET_CEILING,
        os_image="Qualcomm Linux",
        engine_source="onnxruntime-qnn, a wheel on PyPI, beside onnxruntime",
        why=(
            "no board at hand; the NPU runs what is quantized, the CPU the rest; a context binary "
            "goes into an ONNX file (EPContext), a bare one (qnn) needs an engine by a plugin"
        ),
        source=_ORT + "execution-providers/QNN-ExecutionProvider.html",
        sources=(
            "https://github.com/onnxruntime/onnxruntime-qnn/releases/tag/v2.7.0",
            "https://docs.qualcomm.com/doc/80-70017-115/topic/dev-kits.html",
        ),
    ),
    HardwareTarget(
        name="ambarella-cv25",
        about="Ambarella CV25 camera chip (CVflow)",
        arch="aarch64",
        precisions=("int8", "fp16", "fp32"),
        formats=("cvflow", "neo"),
        providers=(),
        os_image="Linux of Ambarella's SDK",
        engine_source="Ambarella's SDK, by a plugin's engine or an external one",
        why=(
            "no chip and no SDK at hand; what Ambarella's or Neo's compiler made is delivered as "
            "it is, and opened by an engine that a plugin brings"
        ),
        source="https://docs.aws.amazon.com/sagemaker/latest/dg/neo-supported-devices-edge-devices.html",
        sources=(
            _AWS_BLOG + "ml-inferencing-at-the-edge-with-amazon-sagemaker-edge-and-ambarella-cv25",
        ),
    ),
    _GPU,
)
"""Every target known here, `ANY` first."""
