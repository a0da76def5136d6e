"""FER-2013 experiments: VGG16 and ResNet50 trained, tracked in MLflow, compared and registered."""

__version__ = "0.1.0"
