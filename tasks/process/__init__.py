"""This process, before and while TensorFlow runs in it.

keras_settings    Keras by our own settings, whatever the environment says
start_tensorflow  importing it starts TensorFlow quietly
quiet             TensorFlow without its start-up remarks
provenance        software versions and the commit
"""
