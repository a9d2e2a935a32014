"""The losses fused into Triton kernels: `fused_loss` is their autograd, `choice` says where they apply.

Only `choice` may be imported without Triton.
"""
