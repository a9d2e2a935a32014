"""A split whose images are read when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxsup.lab.data.loader import Loader, Task, Wait, default_workers
from maxsup.lab.data.sources import Memory, Source
from maxsup.lab.data.view import View
from maxsup.lab.recipes import Data

# Images decoded at a time where all are wanted.
_BATCH = 256
# So many are decoded in the process itself.
_FEW = 512


@dataclass(frozen=True, eq=False)
class Streamed:
    """Images that lie in `source` at `indices` (N,), and labels (N,), int64; offers what a `Split` in memory does.

    `view` says how an image is cut and resized for evaluation, `workers` how many processes do so (None for as many as
    there are processors).
    """

    source: Source
    indices: Tensor
    labels: Tensor
    view: View
    workers: int | None = None
    masks: None = None
    _loaders: dict[object, Loader] = field(init=False, repr=False, default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.view.channels

    @property
    def images(self) -> Tensor:
        """All images, decoded now, (N, C, H, W), uint8: for a few, or a split that fits into memory."""
        if self._at_hand is not None:
            return self._at_hand[self.indices]
        cpu = torch.device("cpu")
        ranges = [range(start, min(start + _BATCH, len(self))) for start in range(0, len(self), _BATCH)]
        parts = list(self.evaluation(ranges, cpu, Wait(cpu)))
        return torch.cat(parts) if parts else torch.empty(0, self.channels, *self.view.size, dtype=torch.uint8)

    @property
    def _at_hand(self) -> Tensor | None:
        """The source's images if they are in memory, of the view's size."""
        images = self.source.images if isinstance(self.source, Memory) else None
        return images if images is not None and tuple(images.shape[2:]) == self.view.size else None

    def to(self, device: torch.device) -> Streamed:
        """Itself: the images go to a device when they are read."""
        return self

    def take(self, indices: Tensor) -> Streamed:
        """The images at `indices`."""
        return replace(self, indices=self.indices[indices], labels=self.labels[indices])

    def of_classes(self, classes: Sequence[int]) -> Streamed:
        """The images of `classes` in their old order; their labels become positions in `classes`."""
        kept = torch.isin(self.labels, torch.tensor(classes)).nonzero().squeeze(1)
        new = torch.full((max(classes) + 1,), -1)
        new[list(classes)] = torch.arange(len(classes))
        return replace(self, indices=self.indices[kept], labels=new[self.labels[kept]])

    def resized(self, image_size: int) -> Streamed:
        """The split with images of `image_size` × `image_size`."""
        return replace(self, view=replace(self.view, size=(image_size, image_size)))

    def target_masks(self) -> Tensor:
        """Raises ValueError: these images have no masks."""
        raise ValueError("these images have no masks")

    def training(
        self,
        batches: Sequence[Tensor],
        seeds: Sequence[NDArray[np.uint32]],
        data: Data,
        device: torch.device,
        wait: Wait,
    ) -> Iterator[Tensor]:
        """Images (n, C, H, W) of the batches of an epoch, augmented one by one; time without them goes to `wait`.

        The processes that decode stay for the next epoch. Only one epoch can be under way.

        Args:
            batches: for each batch, its images' indices in the split.
            seeds: for each batch, its images' seeds.
            data: the recipe's augmentation.
            device: where the batches shall be.
            wait: takes the time.
        """
        view = replace(
            self.view,
            crop=1.0,
            interpolation=data.interpolation,
            crop_scale=data.crop_scale if data.random_resized_crop else None,
            rand_augment=data.rand_augment,
        )
        sizes = [len(batch) for batch in batches]
        key = (view, max(sizes, default=0), device)
        if key not in self._loaders:
            self._loaders.clear()
            self._loaders[key] = self._loader(view, sizes, device, self.workers)

        def tasks(number: int) -> list[Task]:
            return list(zip(self.indices[batches[number]].tolist(), seeds[number].tolist(), strict=True))

        for images in self._loaders[key].batches(sizes, tasks, wait):
            yield images.permute(0, 3, 1, 2)

    def evaluation(self, batches: Sequence[range], device: torch.device, wait: Wait) -> Iterator[Tensor]:
        """Images (n, C, H, W) of each range of the split, in order, centrally cut; time without them goes to `wait`."""
        if self._at_hand is not None:
            for batch in batches:
                yield self._at_hand[self.indices[batch.start : batch.stop]].to(device)
            return

        def tasks(number: int) -> list[Task]:
            batch = batches[number]
            return [(index, None) for index in self.indices[batch.start : batch.stop].tolist()]

        sizes = [len(batch) for batch in batches]
        # A process costs more to start than a few images to decode.
        workers = 0 if self.workers is None and sum(sizes) <= _FEW else self.workers
        for images in self._loader(self.view, sizes, device, workers).batches(sizes, tasks, wait):
            yield images.permute(0, 3, 1, 2)

    def _loader(self, view: View, sizes: Sequence[int], device: torch.device, workers: int | None) -> Loader:
        workers = default_workers() if workers is None else workers
        return Loader(self.source, view, workers, device, max(sizes, default=0))
