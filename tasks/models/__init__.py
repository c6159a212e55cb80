"""Files of models, whoever wrote them: what a file is, the network in it, and one clear line where there is none.

kinds             what a file or folder is, by its content
contents          the configuration and the version that a Keras file carries
keras2            the configuration of Keras 2 as Keras 3 spells it: models and graphs
keras2_layers     their layers
keras2_calls      their calls of TensorFlow's functions, which tensorflow_calls makes
weights           the weights of a Keras 2 file, each in its place
saved_model       TensorFlow's SavedModel folders
custom_code       layers and functions that are not Keras's own
loading           load_model, which puts it together
"""

from tasks.models.custom_code import digest_code
from tasks.models.file_kinds import ACCEPTED, SUFFIXES
from tasks.models.loading import load_model
from tasks.models.model_digest import digest_file, is_there
from tasks.models.model_errors import ModelError

__all__ = ["ACCEPTED", "SUFFIXES", "ModelError", "digest_code", "digest_file", "is_there", "load_model"]
