"""An ONNX graph as a torch network: its operators, its twin, or a classifier that gives nothing but logits."""
