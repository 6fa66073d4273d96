"""The networks of the papers, each built from dualnet's layers alone.

A model is a frozen dataclass.  Its fields are its flags on the command line, and
`network(in_shape, classes)` builds its layers.
"""

from dualnet.models.alexnet import AlexNet
from dualnet.models.cnn import CNN, CNN4
from dualnet.models.lenet5 import LeNet5
from dualnet.models.local_mixer import LocalMixer
from dualnet.models.mlp import MLP
from dualnet.models.mlp_mixer import MLPMixer
from dualnet.models.resnet import ResNet, ResNet18
from dualnet.models.vit import ViT

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
"""Name on the command line → model; `MODELS["mlp"](width=64).network((28, 28, 1), 10)`."""

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
