"""Parameter counts to the digit, one forward pass for logits and features, folding that changes nothing."""

import itertools

import pytest
import torch
from torch.nn import functional

from compress import networks
from compress.networks.base import Standardize, conv3x3, count_parameters, padding
from compress.networks.convnext import ConvNeXtBlock
from compress.networks.vit import TransformerBlock
from compress.quantization.lowering import lower
from compress.quantization.sites import quantizer_sites
from edge.core.errors import CompressError


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("resnet8", 10, 75_290),
        ("resnet20", 10, 269_722),
        ("resnet18", 10, 11_173_962),
        ("resnet18", 100, 11_220_132),
        ("mobilenetv2", 10, 2_296_922),
        ("mobilenetv2", 100, 2_412_212),
        ("wrn-16-2", 10, 691_674),
        ("wrn-28-10", 10, 36_479_194),
        ("wrn-34-10", 10, 46_160_474),
        ("wrn-34-10", 100, 46_218_164),
        ("wrn-34-10+sub_block1", 10, 48_262_586),
        ("wrn-34-20", 10, 184_531_674),
        ("wrn-70-16", 10, 266_796_506),
        ("mobilenetv3-small", 1000, 2_542_856),
        ("mobilenetv3-large", 1000, 5_483_032),
        ("vit-ti-16", 1000, 5_717_416),
        ("vit-s-16", 1000, 22_050_664),
        ("vit-b-16", 1000, 86_567_656),
        ("convnext-atto-4", 1000, 3_695_520),
        ("convnext-femto-4", 1000, 5_217_784),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, classes: int, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(networks.build_network(name, channels=3, classes=classes, size=(224, 224))) == count


LARGE = ("wrn-28", "wrn-34", "wrn-70", "vit-s-16", "vit-ti-16", "convnext-femto-4", "convnext-atto-4")
LIGHT = [name for name in networks.model_names() if not name.startswith(LARGE)]
VARIANTS = [
    "mobilenetv2-0.5",
    "wrn-10-1+silu+same+normalize",
    "wrn-10-1+sub_block1",
    "wrn-10-1+pssilu",
    "wrn-10-1+cosine",
    "wrn-10-1+standardize",
    "preactresnet18+raw",
    "preactresnet18+raw+final-bn+same+silu+normalize",
    "vit-nano-2+normalize",
    "convnext-yocto-1+normalize",
]
#: Between their last stage and what the head reads lies a hidden layer, a norm, or a block of attention.
FURTHER = ("mobilenetv3", "vit", "convnext")


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 33)])
@pytest.mark.parametrize("name", [*LIGHT, *VARIANTS])
def test_every_model_gives_logits_and_the_features_behind_them(name: str, channels: int, size: int) -> None:
    torch.manual_seed(0)
    width = size - 4  # rectangular
    if name.startswith("vit"):
        size, width = 28, 24
    model = networks.build_network(name, channels=channels, classes=7, size=(size, width)).eval()
    x = torch.rand(2, channels, size, width)
    with torch.no_grad():
        out = model.forward_features(x)
        assert out.logits.shape == (2, 7) and len(out.stages) >= 3
        assert all(a.shape[2] >= b.shape[2] for a, b in itertools.pairwise(out.stages))
        assert torch.equal(model(x), out.logits)
        head = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
        torch.testing.assert_close(head(out.pooled), out.logits)
        if not name.startswith(FURTHER):
            torch.testing.assert_close(out.stages[-1].mean((2, 3)), out.pooled)


def test_normalisation_is_part_of_the_network() -> None:
    torch.manual_seed(0)
    plain = networks.build_network("resnet8", channels=3, classes=5).eval()
    model = networks.build_network("resnet8+normalize", channels=3, classes=5).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1), torch.tensor([0.5, 0.6, 0.7]).reshape(1, 3, 1, 1)
    model.get_buffer("preprocess.mean").copy_(mean)
    model.get_buffer("preprocess.std").copy_(std)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(x), plain((x - mean) / std))


def test_standardised_images_have_mean_0_and_deviation_1_and_flat_ones_stay_finite() -> None:
    x = torch.rand(3, 3, 8, 8) * 0.3
    x[2] = 0.5
    out = Standardize()(x)
    torch.testing.assert_close(out[:2].flatten(1).mean(1), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(out[:2].flatten(1).std(1), torch.ones(2), atol=1e-5, rtol=0)
    assert torch.equal(out[2], torch.zeros(3, 8, 8))


def test_same_padding_is_tensorflows() -> None:
    conv, pad = conv3x3(1, 1, 2, same=True), padding(2, same=True)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(9.0).reshape(1, 1, 3, 3))
    x = torch.rand(1, 1, 6, 5)
    padded = torch.zeros(7, 7)  # the even side: nothing above, one row below; the odd one: a column on either side
    padded[:6, 1:6] = x[0, 0]
    kernel = conv.weight[0, 0].detach()
    want = [[float((padded[i : i + 3, j : j + 3] * kernel).sum()) for j in (0, 2, 4)] for i in (0, 2, 4)]
    torch.testing.assert_close(conv(pad(x))[0, 0].detach(), torch.tensor(want))


@pytest.mark.parametrize("name", ["resnet9", "wrn-11-2", "vgg", "wrn-10-0", "mobilenetv2-0"])
def test_unknown_models_are_refused(name: str) -> None:
    with pytest.raises(CompressError, match="unknown model"):
        networks.build_network(name, channels=1, classes=10)


def test_an_unknown_variant_is_refused_with_those_that_exist() -> None:
    with pytest.raises(CompressError, match=r"'resnet18' has no variant \+silu \(known: \+normalize\)"):
        networks.build_network("resnet18+silu", channels=3, classes=10)


SIZES = [
    ("vit-ti-16", (28, 28), "16×16 do not cover images of 28×28; take vit-ti-14 or vit-ti-7 or vit-ti-4, or"),
    ("vit-nano-2", (7, 5), "patches of 2×2 do not cover images of 7×5; take images of 8×4"),
    ("vit-nano-2", None, "vit-nano-2: its position embeddings are for images of one size; give their height and width"),
    ("convnext-atto-4", (28, 30), "images of 28×30 are too small .* take convnext-atto-3, or images of at least 32×32"),
    ("convnext-atto-4", (5, 5), "behind patches of 4; take images of at least 32×32"),
]


@pytest.mark.parametrize(("name", "size", "said"), SIZES)
def test_images_that_a_network_cannot_take_are_refused_with_those_that_it_can(
    name: str, size: "tuple[int, int] | None", said: str
) -> None:
    with pytest.raises(CompressError, match=said):
        networks.build_network(name, channels=1, classes=10, size=size)


def test_a_transformer_block_is_torchs_own() -> None:
    """Against `nn.TransformerEncoderLayer`, whose attention is a kernel of its own."""
    torch.manual_seed(0)
    ours = TransformerBlock(64, 2).eval()
    theirs = torch.nn.TransformerEncoderLayer(
        64, 2, 256, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    names = {
        "attn.qkv.": "self_attn.in_proj_",
        "attn.proj": "self_attn.out_proj",
        "mlp.fc1": "linear1",
        "mlp.fc2": "linear2",
    }
    state = {}
    for name, value in ours.state_dict().items():
        for before, after in names.items():
            name = name.replace(before, after)
        state[name] = torch.randn_like(value) * 0.2
    theirs.load_state_dict(state)
    ours.load_state_dict(dict(zip(ours.state_dict(), state.values(), strict=True)))
    x = torch.randn(3, 17, 64)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_a_convnext_block_is_that_of_the_paper() -> None:
    """As its authors write it: channels last, the 1×1 convolutions as linear layers."""
    torch.manual_seed(0)
    block = ConvNeXtBlock(8).eval()
    with torch.no_grad():
        for weight in block.parameters():
            weight.copy_(torch.randn_like(weight) * 0.3)
    x = torch.randn(2, 8, 5, 7)
    inside = functional.conv2d(x, block.conv_dw.weight, block.conv_dw.bias, padding=3, groups=8).permute(0, 2, 3, 1)
    inside = functional.layer_norm(inside, (8,), block.norm.weight, block.norm.bias, 1e-6)
    for layer in (block.mlp.fc1, block.mlp.fc2):
        inside = functional.linear(inside, layer.weight.flatten(1), layer.bias)
        if layer is block.mlp.fc1:
            inside = 0.5 * inside * (1 + torch.erf(inside / 2**0.5))
    torch.testing.assert_close(block(x), x + (block.gamma * inside).permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)


def test_a_transformer_sees_where_a_patch_lies_and_its_stages_keep_the_place() -> None:
    torch.manual_seed(0)
    model = networks.build_network("vit-nano-2", channels=1, classes=10, size=(8, 12)).eval()
    x = torch.rand(1, 1, 8, 12)
    moved = x.clone()
    moved[..., 0:2, 0:2], moved[..., 2:4, 4:6] = x[..., 2:4, 4:6], x[..., 0:2, 0:2]
    assert not torch.allclose(model(x), model(moved), atol=1e-6)
    patches = model.patch_embed(x).transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(patches[0, :, 1, 2], model.patch_embed.proj(x)[0, :, 1, 2])
    assert [stage.shape for stage in model.forward_features(x).stages] == [(1, 64, 4, 6)] * 3


FOLDED = {"resnet8": 0, "resnet18": 0, "cnn": 0, "mobilenetv2-0.25": 0, "wrn-10-4": None, "wrn-10-2+same+silu": None}


@pytest.mark.parametrize("name", FOLDED)
def test_folding_keeps_the_function_and_removes_what_it_can(name: str) -> None:
    torch.manual_seed(0)
    model = networks.build_network(name, channels=1, classes=10)
    for _ in range(3):  # give the BatchNorms statistics that matter
        model.train()(torch.rand(32, 1, 8, 8) * 3)
    model.eval()
    x = torch.rand(16, 1, 8, 8)
    before = model(x)
    bns = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    model = lower(model, (1, 8, 8))
    left = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)
    assert left == (0 if FOLDED[name] == 0 else bns - 4)  # those that follow a sum stay


def test_quantizers_stand_behind_every_activation_and_before_what_comes_from_elsewhere() -> None:
    model = networks.build_network("resnet8", channels=1, classes=10)
    sites = quantizer_sites(lower(model, (1, 8, 8)))
    assert "conv1.input_quantizer" in sites and "linear.input_quantizer" in sites
    assert "layer1.0.conv1.input_quantizer" not in sites  # its input is an activation's output already
    assert {"layer1.0.add.a_quantizer", "layer2.0.add.a_quantizer", "layer2.0.add.b_quantizer"} <= set(sites)
    assert "layer1.0.add.b_quantizer" not in sites
    assert sum(name.endswith("output_quantizer") for name in sites) == 7
