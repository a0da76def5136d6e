"""Backbones, the classifier on top of them, and augmentation."""
