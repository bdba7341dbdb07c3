//! Decoding of pictures in the modes that Pillow gives them.
