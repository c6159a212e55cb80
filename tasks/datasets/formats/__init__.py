"""The sources that images come from, and how their files become uint8 pixels and class numbers.

named       datasets that TFDS knows by name
digits      scikit-learn's digits, the embedded default
folder      folders of images by split and class
npz         .npz files: Keras's layout, and other spellings of it
labels      the labels of an .npz file as class numbers
pixels      arrays of numbers as uint8 pixels
image_file  one image file, read by Pillow, or why it cannot be used
decoding    many image files, by several threads and in order
"""
