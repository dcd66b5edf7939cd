"""One network of each family, small, and the image that it takes."""

FAMILIES = {
    "resnet8": (1, 8, 8),
    "resnet18": (3, 32, 32),
    "preactresnet18+normalize": (3, 32, 32),
    "wrn-10-4": (1, 8, 8),
    "wrn-10-4+silu": (1, 8, 8),
    "wrn-10-4+pssilu": (1, 8, 8),
    "wrn-10-4+standardize": (1, 8, 8),
    "mobilenetv2-0.5": (3, 32, 32),
    "mobilenetv3-small": (3, 64, 64),
    "cnn": (1, 8, 8),
    "vit-nano-2": (1, 8, 8),
    "convnext-yocto-1": (1, 8, 8),
}
