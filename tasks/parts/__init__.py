"""All that decides a number in a part, and how parts run.

Its code is digested whole: parts that other code computed are not used again.

plan              what is to be explained tonight, and how
compute           one part computed and written, unless it is there
explained_rows    every per-row array of the store, from images and labels
part_digest       settings, code and libraries as one digest
precision_choice  `precision: auto`, the fastest that is exact enough
precision_error   how far the night's precision is from float32, measured and in words
precision_sample  rows explained in two precisions, and how far apart they are
quality_rows      what each row's explanation is worth, by the halves of the image that it makes
recorded          the plan that a sealed store was made from, found again
runners           where parts are computed: threads, Dask processes, Dask workers
cluster           what a Dask cluster must be, and how its workers are set up
methods/          what each method computes, and what the audit and recomputation compare of it
"""
