"""The target `reference` on the device: numpy and onnx alone. `compress bundle` carries this package."""
