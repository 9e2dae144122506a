"""What benchmarks/gpu.py is made of. ``sizes``, ``judge`` and ``picture`` need no PyTorch."""
