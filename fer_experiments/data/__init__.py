"""From a source of labelled images to a prepared dataset."""
