"""Pairs known not to work, of whatever target. Sources: release notes of torch and its packages."""

from edge.doctor.facts import MachineFacts, Rule, between, release

#: Oldest releases that the torch side was written for; pyproject.toml asks pip for the same.
OLDEST = "torch>=2.11 onnx>=1.18 onnxruntime>=1.23"
MINIMA = {name: least for name, _, least in (pin.partition(">=") for pin in OLDEST.split())}


def _minor(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version[:2]))


def _torchvision_for(facts: MachineFacts) -> str:
    """torchvision 0.(15 + n) belongs to torch 2.n."""
    return f"0.{15 + facts.version('torch')[1]}"


def _torchvision_differs(facts: MachineFacts) -> bool:
    if not facts.has("torch", "torchvision") or "cuda" not in facts.modules["torch"].facts:
        return False
    # what torchvision was built for, by its local version: `cpu`, `cu130`; empty where it does not say
    build = facts.modules["torchvision"].version.partition("+")[2]
    with_cuda = facts.fact("torch", "cuda") is not None
    return (build == "cpu" and with_cuda) or (build.startswith("cu") and not with_cuda)


def _below(name: str, least: str) -> Rule:
    return Rule(
        f"{name}-too-old",
        when=lambda facts: (
            facts.jetson is None and facts.has("torch") and between(facts.version(name), (0,), release(least))
        ),
        says=lambda facts: f"{facts.written(name)} is older than {least}, which this package was written for",
        fix=lambda facts: facts.pip(f"install --upgrade '{name}>={least}'"),
        explains=(name,),
    )


def _broken_imports(facts: MachineFacts) -> list[str]:
    return [name for name, module in facts.modules.items() if module.works is False]


#: The last explains nothing that another rule has explained before it, those of the targets too.
RULES = (
    Rule(
        "torchvision-of-another-torch",
        when=lambda facts: (
            facts.has("torch", "torchvision")
            and facts.version("torch")[:1] == (2,)
            and _minor(facts.version("torchvision")) != _torchvision_for(facts)
        ),
        says=lambda facts: (
            f"{facts.written('torchvision')} beside {facts.written('torch')}: its operators are compiled against one "
            f"torch release, {_torchvision_for(facts)} belongs to this one"
        ),
        fix=lambda facts: facts.pip(
            f"install 'torchvision=={_torchvision_for(facts)}.*' 'torch=={_minor(facts.version('torch'))}.*'"
        ),
        explains=("torchvision",),
    ),
    Rule(
        "torchvision-of-another-build",
        when=_torchvision_differs,
        says=lambda facts: (
            f"{facts.written('torchvision')} beside {facts.written('torch')}: one was built with CUDA, one without"
        ),
        fix=lambda facts: (
            f"{facts.pip('uninstall -y torchvision')} && "
            f"{facts.pip(f'install --no-cache-dir torchvision=={_torchvision_for(facts)}.*')} "
            f"with the same --index-url as torch"
        ),
        explains=("torchvision",),
    ),
    Rule(
        "onnxscript-folds-int8",
        when=lambda facts: between(facts.version("onnxscript"), (0,), (0, 6, 2)),
        says=lambda facts: (
            f"{facts.written('onnxscript')} folds INT8 weights back to float without a word; 0.6.2 is the first that "
            f"does not"
        ),
        fix=lambda facts: facts.pip("install --upgrade 'onnxscript>=0.6.2'"),
    ),
    Rule(
        "driver-behind-torch",
        when=lambda facts: bool(facts.gpu.devices) and facts.driver_behind(facts.fact("torch", "cuda")),
        says=lambda facts: (
            f"{facts.written('torch')} needs CUDA {facts.fact('torch', 'cuda')}, driver {facts.gpu.driver} serves "
            f"{facts.gpu.cuda} at most"
        ),
        fix=lambda facts: "sudo apt-get install nvidia-driver-580",
    ),
    *(_below(name, least) for name, least in MINIMA.items()),
    Rule(
        "import-fails",
        when=lambda facts: bool(_broken_imports(facts)),
        says=lambda facts: "; ".join(
            f"import {name} fails ({facts.modules[name].fault})" for name in _broken_imports(facts)
        ),
        fix=lambda facts: facts.pip(
            "install --force-reinstall --no-deps "
            + " ".join(
                f"{facts.modules[name].distribution}=={facts.modules[name].version}" for name in _broken_imports(facts)
            )
        ),
    ),
    Rule(
        "no-compiler",
        when=lambda facts: facts.has("torch") and not facts.recorded and not facts.tools["g++"],
        says=lambda facts: "no g++: torch.compile falls back to the plain network (`compile: true`)",
        fix=lambda facts: "sudo apt-get install g++",
        limit=True,
    ),
    Rule(
        "no-ssh",
        when=lambda facts: facts.has("torch") and not facts.recorded and not facts.tools["ssh"],
        says=lambda facts: "no ssh: a board cannot be reached from here (`--host`)",
        fix=lambda facts: "sudo apt-get install openssh-client",
        limit=True,
    ),
)
