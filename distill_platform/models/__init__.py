"""Models: a name and plain arguments -> a network; a saved model that is enough to predict.

builders.py   name -> builder, the literal dict MODELS; `import:package.module:function` for a user's own
mlp.py cnn.py resnet.py vit.py conv1d.py ngrams.py transformer.py   our own; of attention.py and pooling.py
huggingface.py hf_config.py hf_preprocess.py reference.py           models of transformers: folders, and pinned ones
vision.py optional.py                                               of timm and torchvision; extras that may be missing
prepared.py preprocess.py log_mel.py tokenized.py                   what is done to raw inputs, by kind
network.py    preprocessing and body as one module that takes raw inputs and gives named outputs
saved.py      the model folder at rest, and the Student that predicts from it; raw_inputs.py: what it may be given
start.py      a student's first weights, from a saved model or from the teacher; axes.py: which channels belong together
parts.py      which parts of a network learn how fast
capture.py    what the inside of a network says; listing.py: the layers that there are
"""

from distill_platform.models.builders import MODELS, build_body, model_source, preprocess_for
from distill_platform.models.network import (
    Calibration,
    Network,
    Output,
    Outputs,
    build_network,
    inference_batch_size,
)
from distill_platform.models.preprocess import Ids, LogMel, Prepared, Preprocess, Standardize, Tokenized
from distill_platform.models.saved import SavedModel, Student, load_network, load_student_folder, read_model, save_model

__all__ = [
    "MODELS",
    "Calibration",
    "Ids",
    "LogMel",
    "Network",
    "Output",
    "Outputs",
    "Prepared",
    "Preprocess",
    "SavedModel",
    "Standardize",
    "Student",
    "Tokenized",
    "build_body",
    "build_network",
    "inference_batch_size",
    "load_network",
    "load_student_folder",
    "model_source",
    "preprocess_for",
    "read_model",
    "save_model",
]
