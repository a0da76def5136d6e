"""How an image becomes the model's pixels, for data that is prepared and for photos."""
