"""The parts of a store, one file each.

part_summary  what a part's file says of itself
linked_parts  which files a virtual store consists of
part_files    those files, opened as they are read
"""
