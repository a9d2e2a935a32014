"""The mathematics, one method a file: logits (N, K) and a target to one value per sample (N,), in plain PyTorch.

Each file holds a *penalty*: what the method adds to cross-entropy, before its weight. `maxsup.functional` adds it,
weighs it and reduces once. Penalties see logits and their log-softmax; those that do not change when a constant is
added to a row's logits (all but the logit penalty) read the log-softmax, which exists anyway.
"""
