"""Files of models, whoever wrote them: what a file is, the network in it, and one clear line where there is none.

loading        load_model, which puts the rest together
registry       the folder of trained models, each with its record
file_kinds     what a file or folder is, by its content
keras_archive  the configuration and the version that a Keras file carries
weights        the weights of a Keras 2 file, each in its place
saved_model    TensorFlow's SavedModel folders
custom_code    layers and functions that are not Keras's own
model_digest   which model a path holds
model_errors   the error of a model that cannot be used
keras2/        the configuration of Keras 2 as Keras 3 spells it
"""

from tasks.models.custom_code import digest_code
from tasks.models.file_kinds import ACCEPTED, SUFFIXES
from tasks.models.loading import load_model
from tasks.models.model_digest import digest_file, is_there
from tasks.models.model_errors import ModelError

__all__ = ["ACCEPTED", "SUFFIXES", "ModelError", "digest_code", "digest_file", "is_there", "load_model"]
