"""Semantic segmentation with the backbone of a finished run: UPerNet, fine-tuned, tested and recorded."""
