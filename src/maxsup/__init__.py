"""MaxSup and its peers: drop-in replacements for label smoothing in PyTorch."""
