//! From a decoded picture to the pixel tensor of a model.
