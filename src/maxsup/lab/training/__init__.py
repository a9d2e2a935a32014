"""What a training run is made of: its parts, the step, the pass over the images, the checkpoint."""
