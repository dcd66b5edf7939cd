"""Pairs known not to work. Sources: release notes and support matrices of TensorRT, ONNX Runtime, torch and JetPack."""

from edge.doctor.facts import MachineFacts, Rule, release

#: Oldest releases that the torch side was written for; pyproject.toml asks pip for the same.
MINIMA = {"torch": "2.11", "onnx": "1.18", "onnxruntime": "1.23"}
#: Instructions that add U8 × S8 products without saturating at 16 bits.
WIDE_ADD = ("avx512_vnni", "avx_vnni", "amx_int8")
TENSORRT_WHEELS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")


def _minor(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version[:2]))


def _between(version: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> bool:
    """low ≤ version < high, of something that is installed."""
    return bool(version) and low <= version < high


def _tensorrt_provider(found: MachineFacts) -> bool:
    """Whether this ONNX Runtime is a build with the TensorRT provider."""
    told = found.fact("onnxruntime", "providers")
    return found.has("onnxruntime-gpu") if told is None else "TensorrtExecutionProvider" in told


def _torchvision_for(found: MachineFacts) -> str:
    """torchvision 0.(15 + n) belongs to torch 2.n."""
    return f"0.{15 + found.version('torch')[1]}"


def _torchvision_build(found: MachineFacts) -> str:
    """What torchvision was built for, by its local version: `cpu`, `cu130`; empty where it does not say."""
    return found.modules["torchvision"].version.partition("+")[2]


def _torchvision_differs(found: MachineFacts) -> bool:
    if not found.has("torch", "torchvision") or "cuda" not in found.modules["torch"].facts:
        return False
    build = _torchvision_build(found)
    with_cuda = found.fact("torch", "cuda") is not None
    return (build == "cpu" and with_cuda) or (build.startswith("cu") and not with_cuda)


def _driver_behind(found: MachineFacts, needed: "str | None") -> bool:
    """Whether a CUDA release of another major version than the driver's is needed; minor versions go together."""
    return bool(needed and found.gpu.cuda and release(needed)[:1] > release(found.gpu.cuda)[:1])


def _newest_wheel(found: MachineFacts) -> "str | None":
    """The TensorRT wheel that needs CUDA 13."""
    return next((name for name in ("tensorrt-cu13", "tensorrt-rtx-cu13") if found.has(name)), None)


def _jetson_tensorrt(found: MachineFacts) -> str:
    """JetPack's own TensorRT in the place of pip's."""
    wheels = " ".join(name for name in TENSORRT_WHEELS if name in found.distributions) or "tensorrt"
    return f"{found.pip(f'uninstall -y {wheels}')} && sudo apt-get install python3-libnvinfer"


def _too_old_tensorrt(found: MachineFacts) -> str:
    if found.jetpack:
        return "update the board to JetPack 6.2 or newer: https://developer.nvidia.com/embedded/jetpack"
    return found.pip("install --upgrade tensorrt")


def _below(name: str, least: str) -> Rule:
    return Rule(
        f"{name}-too-old",
        when=lambda found: (
            found.jetson is None and found.has("torch") and _between(found.version(name), (0,), release(least))
        ),
        says=lambda found: f"{found.written(name)} is older than {least}, which this package was written for",
        fix=lambda found: found.pip(f"install --upgrade '{name}>={least}'"),
        explains=(name,),
    )


def _broken_imports(found: MachineFacts) -> list[str]:
    return [name for name, module in found.modules.items() if module.works is False]


RULES = (
    Rule(
        "onnxruntime-twice",
        when=lambda found: {"onnxruntime", "onnxruntime-gpu"} <= {*found.distributions},
        says=lambda found: (
            f"onnxruntime {found.distributions['onnxruntime']} and onnxruntime-gpu "
            f"{found.distributions['onnxruntime-gpu']} share one folder: the one installed last overwrote the other"
        ),
        fix=lambda found: (
            f"{found.pip('uninstall -y onnxruntime onnxruntime-gpu')} && "
            f"{found.pip('install onnxruntime-gpu' if found.has_gpu else 'install onnxruntime')}"
        ),
        explains=("onnxruntime",),
    ),
    Rule(
        "onnxruntime-before-tensorrt-11",
        when=lambda found: (
            found.version("tensorrt") >= (11,)
            and _between(found.version("onnxruntime"), (0,), (1, 27))
            and _tensorrt_provider(found)
        ),
        says=lambda found: (
            f"{found.written('onnxruntime')} beside {found.written('tensorrt')}: its TensorRT provider knows "
            f"TensorRT 10 at most, 1.27 is the first for 11"
        ),
        fix=lambda found: found.pip("install --upgrade 'onnxruntime-gpu>=1.27'"),
    ),
    Rule(
        "onnxruntime-before-numpy-2",
        when=lambda found: found.version("numpy") >= (2,) and _between(found.version("onnxruntime"), (0,), (1, 19)),
        says=lambda found: (
            f"{found.written('onnxruntime')} beside {found.written('numpy')}: built against NumPy 1, 1.19 is the first "
            f"for NumPy 2"
        ),
        fix=lambda found: found.pip("install 'numpy<2'" if found.jetson else "install --upgrade onnxruntime"),
        explains=("onnxruntime",),
        blocks=("onnx",),
    ),
    Rule(
        "torchvision-of-another-torch",
        when=lambda found: (
            found.has("torch", "torchvision")
            and found.version("torch")[:1] == (2,)
            and _minor(found.version("torchvision")) != _torchvision_for(found)
        ),
        says=lambda found: (
            f"{found.written('torchvision')} beside {found.written('torch')}: its operators are compiled against one "
            f"torch release, {_torchvision_for(found)} belongs to this one"
        ),
        fix=lambda found: found.pip(
            f"install 'torchvision=={_torchvision_for(found)}.*' 'torch=={_minor(found.version('torch'))}.*'"
        ),
        explains=("torchvision",),
    ),
    Rule(
        "torchvision-of-another-build",
        when=_torchvision_differs,
        says=lambda found: (
            f"{found.written('torchvision')} beside {found.written('torch')}: one was built with CUDA, one without"
        ),
        fix=lambda found: (
            f"{found.pip('uninstall -y torchvision')} && "
            f"{found.pip(f'install --no-cache-dir torchvision=={_torchvision_for(found)}.*')} "
            f"with the same --index-url as torch"
        ),
        explains=("torchvision",),
    ),
    Rule(
        "onnxscript-folds-int8",
        when=lambda found: _between(found.version("onnxscript"), (0,), (0, 6, 2)),
        says=lambda found: (
            f"{found.written('onnxscript')} folds INT8 weights back to float without a word; 0.6.2 is the first that "
            f"does not"
        ),
        fix=lambda found: found.pip("install --upgrade 'onnxscript>=0.6.2'"),
    ),
    Rule(
        "tensorrt-too-old",
        when=lambda found: _between(found.version("tensorrt"), (0,), (10,)),
        says=lambda found: f"{found.written('tensorrt')} is too old: networks here are strongly typed, from 10.0 on",
        fix=_too_old_tensorrt,
        explains=("tensorrt",),
        blocks=("tensorrt",),
    ),
    Rule(
        "tensorrt-11-on-jetpack-6",
        when=lambda found: bool(found.jetpack) and found.jetpack < (7,) and found.version("tensorrt") >= (11,),
        says=lambda found: (
            f"{found.written('tensorrt')} on JetPack {found.jetson and found.jetson['jetpack']}: JetPack 6 stays on "
            f"TensorRT 10, its own is 10.3"
        ),
        fix=_jetson_tensorrt,
        explains=("tensorrt",),
        blocks=("tensorrt",),
    ),
    Rule(
        "tensorrt-11-on-jetpack-7",
        when=lambda found: (
            found.jetpack >= (7, 0)
            and found.version("tensorrt") >= (11,)
            and (found.version("tensorrt") < (11, 4, 1) or found.jetpack < (7, 2, 2))
        ),
        says=lambda found: (
            f"{found.written('tensorrt')} on JetPack {found.jetson and found.jetson['jetpack']}: TensorRT 11 serves "
            f"boards from 11.4.1 and JetPack 7.2.2 on"
        ),
        fix=_jetson_tensorrt,
        explains=("tensorrt",),
        blocks=("tensorrt",),
    ),
    Rule(
        "driver-behind-torch",
        when=lambda found: bool(found.gpu.devices) and _driver_behind(found, found.fact("torch", "cuda")),
        says=lambda found: (
            f"{found.written('torch')} needs CUDA {found.fact('torch', 'cuda')}, driver {found.gpu.driver} serves "
            f"{found.gpu.cuda} at most"
        ),
        fix=lambda found: "sudo apt-get install nvidia-driver-580",
        blocks=("torch-tensorrt", "torch-tensorrt-rtx"),
    ),
    Rule(
        "driver-behind-tensorrt",
        when=lambda found: bool(found.gpu.devices and _newest_wheel(found)) and _driver_behind(found, "13"),
        says=lambda found: (
            f"{_newest_wheel(found)} needs CUDA 13, driver {found.gpu.driver} serves {found.gpu.cuda} at most"
        ),
        fix=lambda found: "sudo apt-get install nvidia-driver-580",
        explains=("tensorrt", "tensorrt_rtx"),
        blocks=("tensorrt", "tensorrt-rtx"),
    ),
    *(_below(name, least) for name, least in MINIMA.items()),
    Rule(
        "import-fails",
        when=lambda found: bool(_broken_imports(found)),
        says=lambda found: "; ".join(
            f"import {name} fails ({found.modules[name].fault})" for name in _broken_imports(found)
        ),
        fix=lambda found: found.pip(
            "install --force-reinstall --no-deps "
            + " ".join(
                f"{found.modules[name].distribution}=={found.modules[name].version}" for name in _broken_imports(found)
            )
        ),
    ),
    Rule(
        "opset-20-at-most",
        when=lambda found: _between(found.version("tensorrt"), (10,), (10, 9)),
        says=lambda found: f"{found.written('tensorrt')} reads ONNX opset 20 at most, 21 from 10.9 on",
        fix=lambda found: "compress export MODEL --target tensorrt --opset 20 --out DIR",
        limit=True,
    ),
    Rule(
        "tensorrt-untested",
        when=lambda found: found.version("tensorrt") >= (12,),
        says=lambda found: f"{found.written('tensorrt')} is newer than 11.x, which this was written for",
        fix=lambda found: found.pip("install 'tensorrt<12'"),
        limit=True,
    ),
    Rule(
        "int8-saturates",
        when=lambda found: (
            found.has("onnxruntime") and "avx2" in (isa := found.host["isa"] or ()) and not {*isa} & {*WIDE_ADD}
        ),
        says=lambda found: (
            "this processor has no VNNI: ONNX Runtime adds U8 × S8 products in 16 bits there, which saturate, so an "
            "INT8 model computes other logits than on a board"
        ),
        fix=lambda found: "compress export STUDENT --target onnx --precision float32 --out DIR",
        limit=True,
    ),
    Rule(
        "no-compiler",
        when=lambda found: found.has("torch") and not found.recorded and not found.tools["g++"],
        says=lambda found: "no g++: torch.compile falls back to the plain network (`compile: true`)",
        fix=lambda found: "sudo apt-get install g++",
        limit=True,
    ),
    Rule(
        "no-ssh",
        when=lambda found: found.has("torch") and not found.recorded and not found.tools["ssh"],
        says=lambda found: "no ssh: a board cannot be reached from here (`--host`)",
        fix=lambda found: "sudo apt-get install openssh-client",
        limit=True,
    ),
)
