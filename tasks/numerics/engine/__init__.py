"""Integrated Gradients of many rows at once, the state of their integrals on the device that computes.

engine    rows from any number of callers, in batches that stay full
work      the rows of a call, and the nodes that are still to be computed
adaptive  the adaptive rule: panels as arrays of numbers on the host
fixed     a fixed rule: the sums of its nodes, and of half as many
buffers   what lies on the device, and the compiled functions over it
slots     numbers of lanes and slots that are free
"""

from tasks.numerics.engine.engine import Engine
from tasks.numerics.engine.work import RowTooLarge

__all__ = ["Engine", "RowTooLarge"]
