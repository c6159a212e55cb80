"""Reading a sealed store: a damaged file is an error with a name, never a number.

reader         StoreReader: rows, images, attributions and maps by row number
store_file     the file, open: what is in it, and its datasets by path
row_views      lazy arrays that take NumPy's indices
row_means      means over rows, a block at a time
tables         pandas tables
labelled       one lazy xarray.Dataset
upsampling     maps at the size of the image
class_names    classes by name or number
progress_line  how far a long reading is, on stderr
checked        reading HDF5 so that damage is named
parts/         the parts of a store, one file each
remote/        stores by address: https://, s3://
"""
