"""Pure functions from the model to words, symbols and style names: no IO, no clock, no Textual, no gRPC."""
