"""The networks of the papers, each built from dualnet's layers alone.

A model is a frozen dataclass.  Its fields are its flags on the command line, and
`network(in_shape, classes)` builds its layers.
"""

from models.alexnet import AlexNet
from models.cnn import CNN, CNN4
from models.lenet5 import LeNet5
from models.local_mixer import LocalMixer
from models.mlp import MLP
from models.mlp_mixer import MLPMixer
from models.resnet import ResNet, ResNet18
from models.vit import ViT

MODELS = {  # name on the command line → model
    "mlp": MLP,
    "cnn": CNN,
    "cnn4": CNN4,
    "lenet5": LeNet5,
    "alexnet": AlexNet,
    "resnet": ResNet,
    "resnet18": ResNet18,
    "vit": ViT,
    "mlp-mixer": MLPMixer,
    "local-mixer": LocalMixer,
}

__all__ = [
    "CNN",
    "CNN4",
    "MLP",
    "MODELS",
    "AlexNet",
    "LeNet5",
    "LocalMixer",
    "MLPMixer",
    "ResNet",
    "ResNet18",
    "ViT",
]
