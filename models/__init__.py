"""The papers' networks, each built from dualnet's layers alone.

A model is a frozen dataclass: its fields are its command-line flags, and
`network(in_shape, classes)` builds the layers.
"""

from models.alexnet import AlexNet
from models.cnn import CNN, CNN4
from models.lenet5 import LeNet5
from models.local_mixer import LocalMixer
from models.mlp import MLP
from models.mlp_mixer import MLPMixer
from models.resnet import ResNet, ResNet18
from models.vit import ViT

MODELS = {
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
