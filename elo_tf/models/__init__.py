"""Networks: shapes in, activations out. Encoders of video and sound, decoders, classifiers."""
