"""The model as people call it: image bytes in, labels out."""
