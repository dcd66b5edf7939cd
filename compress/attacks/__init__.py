"""Attacks with gradients on any callable `x → logits`. Pure: no mode, gradient field or BatchNorm statistic changes."""
