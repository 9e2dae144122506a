"""The gap, its links, EXACT and the multi-label losses in C++, for CPUs.

One call makes the loss of a batch and its gradient, in float32, with the scores read once from memory.
"""
