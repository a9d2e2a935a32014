"""The mathematics, one method a file: log-probabilities (N, K) in, one value per row (N,) out, pure PyTorch."""
