"""Every layout and wrapper in which robust networks are published is recognised and computes what its code computes."""

import functools
import importlib.util
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress import folders
from compress.config import ImportConfig, parse
from compress.stages import teacher_import
from compress.zoo import catalog
from compress.zoo.sources import fetch_file
from edge.core.errors import CompressError
from tests.compress import zoo_nets


def imported(path: Path, **options: Any) -> nn.Module:
    """The network of a checkpoint file after `compress teacher import` and `stages.load`."""
    config = parse(ImportConfig, {"source": str(path), **options}, "test")
    teacher_import.run(config, teacher_import.ImportInputs(), path.parent / "teacher")
    return folders.load(path.parent / "teacher")


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got, want = ours(x), theirs(x)
    assert (got - want).abs().max() <= 1e-5 * max(1.0, float(want.abs().max()))


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(0)
    return zoo_nets.randomised(zoo_nets.TradesWRN(normalize=True))


#: Our name for each published network; None where weights alone leave a choice, which `arch` then makes.
FAMILIES: list[tuple[Callable[[], nn.Module], str, bool]] = [
    (zoo_nets.TradesWRN, "wrn-10-1", True),
    (lambda: zoo_nets.TradesWRN(classes=100, sub_block1=True), "wrn-10-1+sub_block1", True),
    (lambda: zoo_nets.TradesWRN(normalize=True), "wrn-10-1+normalize", True),
    (zoo_nets.CosineWRN, "wrn-10-1+cosine+normalize+sub_block1", False),
    (zoo_nets.DeepMindWRN, "wrn-10-1+silu+same+normalize", False),
    (lambda: zoo_nets.DeepMindWRN(torch.relu), "wrn-10-1+same+normalize", False),
    (zoo_nets.DeepMindPreAct18, "preactresnet18+silu+same+raw+final-bn+normalize", False),
    (zoo_nets.PreAct18, "preactresnet18+raw", False),
    (lambda: zoo_nets.PreAct18(raw=False, final_bn=True), "preactresnet18+final-bn", False),
    (zoo_nets.ResNet18, "resnet18", True),
    (lambda: zoo_nets.ResNet18("downsample", "fc"), "resnet18", True),
    (zoo_nets.ResNet20, "resnet20", True),
    (zoo_nets.MobileNetV2, "mobilenetv2", True),
    (zoo_nets.StemWRN, "wrn-34-r", True),
    (zoo_nets.LearnedWRN, "wrn-10-1+pssilu", True),
]


@pytest.mark.parametrize(
    ("make", "model", "certain"), FAMILIES, ids=[f"{n}-{m}" for n, (_, m, _) in enumerate(FAMILIES)]
)
def test_every_family_computes_what_its_own_code_computes(
    make: Callable[[], nn.Module], model: str, certain: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    theirs = zoo_nets.randomised(make())
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "net.pt")
    ours = imported(tmp_path / "net.pt", **({} if certain else {"arch": model}))
    assert_same(ours, theirs)
    from compress.networks import network_files

    assert set(network_files.read_architecture(tmp_path / "teacher")["model"].split("+")) == set(model.split("+"))


WRAPPERS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda s: s,
    "module": lambda s: {f"module.{k}": v for k, v in s.items()},
    "model": lambda s: {f"model.{k}": v for k, v in s.items()},
    "module.model": lambda s: {"state_dict": {f"module.model.{k}": v for k, v in s.items()}, "epoch": 7},
    "compiled": lambda s: {"model": {f"_orig_mod.{k}": v for k, v in s.items()}},
    "net with figures": lambda s: {"net": s, "clean_acc": 0.8, "PGD10_acc": 0.5, "epoch": 3},
    "with its optimizer": lambda s: {"net": s, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(9, 9)}}}},
    "averaged": lambda s: {"n_averaged": torch.tensor(5), **{f"module.{k}": v for k, v in s.items()}},
    "averaged, parallel": lambda s: {"n_averaged": torch.tensor(5), **{f"module.module.{k}": v for k, v in s.items()}},
    "behind normalisation": lambda s: {
        "model_state_dict": {
            **({"module.0.mean": s["mu"], "module.0.std": s["sigma"]} if "mu" in s else {}),
            **{f"module.1.{k}": v for k, v in s.items() if k not in ("mu", "sigma")},
        }
    },
    "nested": lambda s: {"checkpoint": {"state_dict": {f"module.{k}": v for k, v in s.items()}}},
    "half precision": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    "of numpy": lambda s: {"params": {k: v.numpy().astype(v.numpy().dtype.newbyteorder(">")) for k, v in s.items()}},
    "without counters": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_is_taken_off(wrapper: str, old: bool, small: nn.Module, tmp_path: Path) -> None:
    content = WRAPPERS[wrapper](small.state_dict())
    torch.save(content, tmp_path / "net.pt", _use_new_zipfile_serialization=not old)
    ours = imported(tmp_path / "net.pt")
    if wrapper == "half precision":
        small = zoo_nets.TradesWRN(normalize=True).eval()
        small.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in content.items()})
    assert_same(ours, small)


@pytest.mark.parametrize(
    ("make", "model"), [row[:2] for row in FAMILIES], ids=[f"{n}-{m}" for n, (_, m, _) in enumerate(FAMILIES)]
)
def test_every_family_comes_out_of_every_wrapper(make: Callable[[], nn.Module], model: str, tmp_path: Path) -> None:
    """Without the detour over a file, which the tests above take: names, values and what is detected."""
    from compress.zoo import checkpoints, detect

    torch.manual_seed(0)
    plain = make().state_dict()
    for wrapper, wrap in WRAPPERS.items():
        found = checkpoints.extract_weights(wrap(plain), tmp_path)
        network = detect.detect_network(found, tmp_path, model)
        wanted = {name for name in plain if name not in ("mu", "sigma") and not name.endswith("num_batches_tracked")}
        assert {name for name in found.weights if not name.endswith("num_batches_tracked")} == wanted, wrapper
        assert all(torch.equal(found.weights[name], plain[name].to(found.weights[name].dtype)) for name in wanted), (
            wrapper
        )
        assert set(network.model.split("+")) == set(model.split("+")), wrapper


def headed(state: dict[str, Tensor], head: str, plus: int = 0) -> dict[str, Tensor]:
    return {f"{head}.{name}": value + plus for name, value in state.items()}


AUX = {"fc_aux.weight": torch.ones(10, 64), "fc_aux.bias": torch.ones(10)}
STRANGERS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], int]] = {
    "a loss": (lambda s: {"state_dict": {**s, "criterion.weight": torch.ones(10)}}, 1),
    "a loss of a trainer": (lambda s: {**headed(s, "model"), "criterion.centers": torch.ones(10, 64)}, 1),
    "a second head": (lambda s: {**s, **AUX}, 2),
    "a head by a name that is translated": (lambda s: {**s, "linear.weight": torch.ones(3, 64)}, 1),
    "an average": (lambda s: {**s, **headed(s, "ema", 1)}, -1),
    "an average of a trainer": (lambda s: {**headed(s, "module.model"), **headed(s, "module.model_ema", 1)}, -1),
    "a trainer's figures": (lambda s: {"state_dict": {**headed(s, "model"), "acc.correct": torch.zeros(())}}, 1),
    "a matrix beside": (lambda s: {"state_dict": s, "confusion": torch.ones(10, 10)}, 0),
    "wrappers in the middle": (
        lambda s: {k.replace("block1.", "block1.module._orig_mod."): v for k, v in s.items()},
        0,
    ),
    "a wrapper in each": (
        lambda s: {f"{k.rpartition('.')[0]}._fsdp_wrapped_module.{k.rpartition('.')[2]}": v for k, v in s.items()},
        0,
    ),
    "a wrapper at either end": (lambda s: headed(s, "encoder.module"), 0),
    "a backbone and its head": (lambda s: {("fc" not in k) * "backbone." + k: v for k, v in s.items()}, 0),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_strangers_are_left_out_and_wrappers_taken_off_wherever_they_stand(kind: str, tmp_path: Path) -> None:
    from compress.zoo import checkpoints, detect

    plain = zoo_nets.TradesWRN().state_dict()
    wrap, strangers = STRANGERS[kind]
    found = checkpoints.extract_weights(wrap(plain), tmp_path)
    network = detect.detect_network(found, tmp_path)
    assert network.model == "wrn-10-1" and len(network.ignored) == (strangers if strangers >= 0 else len(plain))
    assert all(torch.equal(network.weights[name], value) for name, value in plain.items())


def test_what_is_left_out_is_said_with_its_count(small: nn.Module, tmp_path: Path, capsys: Any) -> None:
    torch.save({**small.state_dict(), **AUX}, tmp_path / "net.pt")
    assert_same(imported(tmp_path / "net.pt"), small)
    note = "left out 2 tensors of the file: fc_aux.weight, fc_aux.bias"
    assert note in capsys.readouterr().err
    from edge.core import artifact

    assert note in artifact.read(tmp_path / "teacher").metrics["note"]


def test_a_cosine_head_that_was_guessed_is_said(tmp_path: Path, capsys: Any) -> None:
    """A Linear layer without bias has the same tensors and is another function."""
    theirs = {k: v for k, v in zoo_nets.TradesWRN().state_dict().items() if k != "fc.bias"}
    torch.save(theirs, tmp_path / "net.pt")
    imported(tmp_path / "net.pt")
    assert "no fc.bias: read as a cosine head, wrn-10-1+cosine" in capsys.readouterr().err
    (tmp_path / "told").mkdir()
    torch.save(theirs, tmp_path / "told" / "net.pt")
    imported(tmp_path / "told" / "net.pt", arch="wrn-10-1+cosine")
    assert "cosine head" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "convert"),
    [
        ("sparse", Tensor.to_sparse),
        ("int8", lambda w: (w * 99).to(torch.int8)),
        ("uint8", lambda w: (w * 99).to(torch.uint8)),
        ("float8_e4m3fn", lambda w: w.to(torch.float8_e4m3fn)),
        ("complex64", lambda w: w + 0j),
    ],
)
def test_weights_that_need_a_scale_or_an_index_are_refused_by_name(
    name: str, convert: Callable[[Tensor], Tensor], small: nn.Module, tmp_path: Path
) -> None:
    weights = small.state_dict()
    torch.save(weights | {"fc.weight": convert(weights["fc.weight"])}, tmp_path / "net.pt")
    with pytest.raises(CompressError, match=f"fc.weight is {name}, not plain floating-point weights"):
        imported(tmp_path / "net.pt")


def test_what_lies_inside_the_network_is_no_stranger_and_odd_tensors_are_listed(tmp_path: Path) -> None:
    from compress.zoo import checkpoints, detect

    plain = zoo_nets.TradesWRN().state_dict()
    lost = {name: value for name, value in plain.items() if "conv2" not in name}
    cases = [
        (
            {**plain, "block1.layer.0.se.weight": torch.ones(4, 16)},
            r"1 tensor left over \(block1\.layer\.0\.se\.weight\)",
        ),
        (lost, r"3 tensors missing \(block1\.layer\.0\.conv2\.weight, .*\)"),
        (
            {**plain, "bn1.weight": torch.ones(3)},
            r"1 tensor of another shape \(bn1\.weight has shape \(3,\), needed \(64,\)\)",
        ),
    ]
    for content, said in cases:
        with pytest.raises(CompressError, match=f"nearest is wrn-10-1: {said}; name one with --arch"):
            detect.detect_network(checkpoints.extract_weights(content, tmp_path), tmp_path)


@pytest.mark.parametrize(("model", "side"), [("vit-ti-16", 64), ("vit-nano-2+normalize", 8), ("convnext-femto-4", 64)])
def test_transformers_and_convnexts_are_recognised_for_images_of_their_size(
    model: str, side: int, tmp_path: Path
) -> None:
    """Their names are timm's, with which `tests/slow/timm_weights.py` compares them."""
    from compress import networks
    from compress.zoo import checkpoints, detect

    plain = networks.build_network(model, channels=3, classes=10, size=(side, side)).state_dict()
    named = {name.replace("preprocess.", ""): value for name, value in plain.items()}
    torch.save({"model": named}, tmp_path / "net.pt")
    ours = imported(tmp_path / "net.pt", image_size=side)
    assert all(torch.equal(value, plain[name]) for name, value in ours.state_dict().items())
    if model.startswith("vit"):
        said = f"pos_embed has shape .* its positions are for images of {side}×{side}: --image-size {side}, or data"
        with pytest.raises(CompressError, match=said):
            detect.detect_network(checkpoints.extract_weights(named, tmp_path), tmp_path, None, (16, 16))
        distilled = {**named, "dist_token": torch.ones(1, 1, 192)}  # beside whose use the rest computes otherwise
        with pytest.raises(CompressError, match=r"left over \(dist_token\)"):
            detect.detect_network(checkpoints.extract_weights(distilled, tmp_path), tmp_path, None, (side, side))


def test_of_networks_side_by_side_the_one_that_is_meant_is_asked(tmp_path: Path) -> None:
    from compress.zoo import checkpoints

    plain = zoo_nets.TradesWRN().state_dict()
    other = {name: value + 1 for name, value in plain.items()}
    for content in (
        {**headed(plain, "student"), **headed(other, "teacher")},
        {
            "state_dict": {
                **headed(plain, "module.student"),
                **headed(other, "module.teacher"),
                "criterion.w": torch.ones(1),
            }
        },
    ):
        with pytest.raises(
            CompressError, match=r"several sets of weights \(.*student, .*teacher\); choose one with --key"
        ):
            checkpoints.extract_weights(content, tmp_path)
        for key, want in (("student", plain), ("teacher", other)):
            found = checkpoints.extract_weights(content, tmp_path, key)
            assert found.weights.keys() == want.keys()
            assert all(torch.equal(found.weights[name], want[name]) for name in want)
    average = {**plain, **headed(other, "ema")}
    assert torch.equal(checkpoints.extract_weights(average, tmp_path, "ema").weights["fc.bias"], other["fc.bias"])


def test_of_mappings_inside_each_other_the_larger_is_taken_and_the_rest_said(tmp_path: Path) -> None:
    from compress.zoo import checkpoints

    plain, prototypes = zoo_nets.TradesWRN().state_dict(), {"a": torch.ones(2, 2), "b": torch.ones(2)}
    outer = checkpoints.extract_weights({**plain, "bank": prototypes}, tmp_path)
    assert outer.weights.keys() == plain.keys() and "left out 2 tensors beside the weights: bank.a" in outer.note
    inner = checkpoints.extract_weights({"net": plain, **prototypes, "loss": torch.ones(())}, tmp_path)
    assert inner.weights.keys() == plain.keys() and inner.note == "left out 2 tensors beside net: a, b"
    with pytest.raises(CompressError, match=r"2 sets of weights under 'net' \(x.net, y.net\); give another --key"):
        checkpoints.extract_weights({"x": {"net": plain}, "y": {"net": plain}}, tmp_path, "net")


def test_safetensors_are_read(small: nn.Module, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(small.state_dict(), tmp_path / "net.safetensors")
    assert_same(imported(tmp_path / "net.safetensors"), small)


def test_prefixes_are_stripped_as_prefixes_only(tmp_path: Path) -> None:
    """A loader that replaces `model.` anywhere would merge these two keys."""
    from compress.zoo import checkpoints

    weights = {"layer.model.weight": torch.ones(2, 2), "layer.weight": torch.zeros(2, 2)}
    assert set(checkpoints.extract_weights(weights, tmp_path / "x").weights) == set(weights)


def test_what_weights_cannot_show_is_named_and_arch_decides(tmp_path: Path) -> None:
    theirs = zoo_nets.randomised(zoo_nets.DeepMindWRN())
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    with pytest.raises(CompressError, match=r"fits wrn-10-1\+silu.* and wrn-10-1\+.*choose one with --arch") as fault:
        imported(tmp_path / "net.pt")
    assert "\n" not in str(fault.value) and not (tmp_path / "teacher").exists()


def test_a_wrong_arch_says_what_does_not_fit(small: nn.Module, tmp_path: Path) -> None:
    torch.save(small.state_dict(), tmp_path / "net.pt")
    with pytest.raises(
        CompressError, match=r"does not fit wrn-10-2.*: .*shape \(16, 16, 3, 3\), needed \(32, 16, 3, 3\)"
    ):
        imported(tmp_path / "net.pt", arch="wrn-10-2")
    with pytest.raises(CompressError, match=r"does not fit wrn-16-1.*tensors missing"):
        imported(tmp_path / "net.pt", arch="wrn-16-1")


def test_several_sets_of_weights_are_listed_and_key_chooses(small: nn.Module, tmp_path: Path) -> None:
    other = {k: v + 1 if v.is_floating_point() else v for k, v in small.state_dict().items()}
    torch.save({"best": small.state_dict(), "last": other}, tmp_path / "net.pt")
    with pytest.raises(CompressError, match=r"several sets of weights \(best, last\); choose one with --key"):
        imported(tmp_path / "net.pt")
    assert_same(imported(tmp_path / "net.pt", key="best"), small)


def test_normalisation_can_be_given_or_taken_away(small: nn.Module, tmp_path: Path) -> None:
    torch.save(small.state_dict(), tmp_path / "net.pt")
    bare = imported(tmp_path / "net.pt", normalize="none")
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(bare((x - small.mu) / small.sigma), small(x), atol=1e-5, rtol=1e-5)
    (tmp_path / "b").mkdir()
    torch.save(small.state_dict(), tmp_path / "b" / "net.pt")
    half = imported(tmp_path / "b" / "net.pt", normalize="0.5,0.5,0.5/0.5,0.5,0.5")
    torch.testing.assert_close(half(x), bare(2 * x - 1), atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------ the catalogue


def test_the_catalogue_holds_both_zoos() -> None:
    entries = catalog.entries()
    assert [sum(e.dataset == d for e in entries) for d in ("cifar10", "cifar100")] == [76, 38]
    assert len({e.source for e in entries}) == 114 and sum(e.native for e in entries) == 96
    assert all(0 <= e.autoattack < e.clean <= 100 for e in entries)
    found = catalog.find_entry("Chen2021LTD_WRN34_10")
    assert (found.model, found.clean, found.autoattack) == ("wrn-34-10", 85.21, 56.94)
    assert catalog.find_entry("Chen2021LTD_WRN34_10", "cifar100").model == "wrn-34-10+sub_block1"
    assert catalog.find_entry("cifar100/Rice2020Overfitting").normalization == "cifar100-exact"
    assert catalog.find_entry("Addepalli2021Towards_PARN18").dataset == "cifar100"  # only there


def test_native_entries_have_the_published_number_of_parameters() -> None:
    from compress import networks
    from compress.networks.base import count_parameters

    for entry in catalog.entries():
        if entry.native:
            with torch.device("meta"):
                built = networks.build_network(entry.model, channels=3, classes=entry.classes)
            assert count_parameters(built) == entry.parameters, entry.source
            assert ("normalize" in entry.model) == bool(entry.normalization), entry.source


def test_an_entry_is_imported_from_robustbenchs_own_folder_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = zoo_nets.randomised(zoo_nets.PreAct18(raw=True))
    path = tmp_path / "cifar10" / "Linf" / "Andriushchenko2020Understanding.pt"
    path.parent.mkdir(parents=True)
    worse = {k: torch.zeros_like(v) for k, v in theirs.state_dict().items()}
    torch.save({"last": theirs.state_dict(), "best": worse}, path)  # its published figures are of `last`
    source = {"source": "robustbench:Andriushchenko2020Understanding", "models": str(tmp_path)}
    teacher_import.run(parse(ImportConfig, source, "test"), teacher_import.ImportInputs(), tmp_path / "teacher")
    assert_same(folders.load(tmp_path / "teacher"), theirs)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("robustbench:Wang2023Beter_WRN-28-10", "did you mean 'Wang2023Better_WRN-28-10'"),
        ("robustbench:svhn/x", "no zoo 'svhn' here"),
        ("robustbench:Debenedetti2022Light_XCiT-S12", "its authors publish no download; give the file with --weights"),
        ("hf:owner/repo", "write hf:OWNER/REPO/FILE"),
        ("nowhere.pt", "no such file; give a checkpoint"),
        ("torchvision:resnet18", "torchvision cannot be imported"),
        ("timm:resnet18", "timm cannot be imported"),
        ("no_such_module:make", "no module no_such_module in "),
        ("os:getcwd", "returned a str; a torch.nn.Module is needed"),
        ("os:no_such_function", "os has no function no_such_function (it has "),
    ],
)
def test_a_source_that_leads_nowhere_is_one_line(source: str, said: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    package = source.partition(":")[0]
    if package in ("timm", "torchvision") and importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed here")
    with pytest.raises(CompressError) as fault:
        teacher_import.run(
            parse(ImportConfig, {"source": source}, "test"), teacher_import.ImportInputs(), tmp_path / "out"
        )
    assert said in str(fault.value) and "\n" not in str(fault.value)
    assert not any(path.name.startswith("out") for path in tmp_path.iterdir())


def test_a_factory_of_the_users_own_is_a_teacher(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets_for_this_test.py").write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 20), torch.nn.Linear(20, 10))\n"
        "def pair():\n"
        "    class Pair(torch.nn.Linear):\n"
        "        def forward(self, x):\n"
        "            return super().forward(x.flatten(1)), x\n"
        "    return Pair(3072, 10)\n"
    )
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 20), nn.Linear(20, 10))
    torch.save({"state_dict": net.state_dict()}, tmp_path / "w.pt")
    config = {"source": "my_nets_for_this_test:make", "weights": str(tmp_path / "w.pt")}
    teacher_import.run(parse(ImportConfig, config, "test"), teacher_import.ImportInputs(), tmp_path / "teacher")
    model = folders.load(tmp_path / "teacher")
    assert_same(model, net)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model.forward_features(x).pooled, net[1](x.flatten(1)))
    with pytest.raises(CompressError, match="its forward gives a tuple; return logits"):
        bad = parse(ImportConfig, {"source": "my_nets_for_this_test:pair"}, "test")
        teacher_import.run(bad, teacher_import.ImportInputs(), tmp_path / "pair")


# ------------------------------------------------------------------------------------------ downloading


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a real server on loopback that has `page` (HTML) and `net.pt` (3 MB)."""
    root = tmp_path / "served"
    root.mkdir()
    (root / "page").write_bytes(b"<!DOCTYPE html><html>Quota exceeded</html>")
    (root / "net.pt").write_bytes(bytes(range(256)) * 12_000)
    handler = functools.partial(QuietHandler, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_file_is_downloaded_whole(served: str, tmp_path: Path) -> None:
    fetch_file(f"{served}/net.pt", tmp_path / "models" / "cifar10" / "net.pt")
    assert (tmp_path / "models" / "cifar10" / "net.pt").read_bytes() == bytes(range(256)) * 12_000


@pytest.mark.parametrize(("name", "said"), [("page", "a web page, not the file"), ("nothing", "404")])
def test_what_is_not_the_file_leaves_nothing_behind(name: str, said: str, served: str, tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=said):
        fetch_file(f"{served}/{name}", tmp_path / "models" / "net.pt")
    assert not (tmp_path / "models").exists()


def test_without_a_network_nothing_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="no network, or no answer"):
        fetch_file("http://127.0.0.1:9/net.pt", tmp_path / "models" / "net.pt")
    assert not (tmp_path / "models").exists()
