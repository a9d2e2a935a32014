"""What a worker that decodes needs: the server of workers imports this once, and they start with it."""

# ruff: noqa: F401

import timm.data.auto_augment
import timm.data.transforms
import torchvision.transforms.v2.functional

import maxsup.lab.data.loader
