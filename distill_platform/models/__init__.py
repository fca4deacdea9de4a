"""Models: a name and plain arguments -> a network; a saved model that is enough to predict.

builders.py   name -> builder, the literal dict MODELS; `import:package.module:function` for a user's own
mlp.py cnn.py resnet.py
preprocess.py what is done to raw inputs, by kind
network.py    preprocessing and body as one module that takes raw inputs and gives named outputs
saved.py      the model folder at rest, and the Student that predicts from it
"""

from distill_platform.models.builders import MODELS, build_body, model_source
from distill_platform.models.network import (
    Network,
    Output,
    Outputs,
    build_network,
    inference_batch_size,
)
from distill_platform.models.preprocess import Ids, Prepared, Preprocess, Standardize, preprocess_for
from distill_platform.models.saved import SavedModel, Student, load_network, load_student_folder, save_model

__all__ = [
    "MODELS",
    "Ids",
    "Network",
    "Output",
    "Outputs",
    "Prepared",
    "Preprocess",
    "SavedModel",
    "Standardize",
    "Student",
    "build_body",
    "build_network",
    "inference_batch_size",
    "load_network",
    "load_student_folder",
    "model_source",
    "preprocess_for",
    "save_model",
]
