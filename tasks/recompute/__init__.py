"""Random rows of a sealed store, computed again: `nightlens verify --recompute`.

recomputed_rows  which rows, by which plan, on which device
compared_rows    what differs, and by how much it may
"""

from tasks.recompute.recomputed_rows import other_device, own_images, recompute_rows

__all__ = ["other_device", "own_images", "recompute_rows"]
