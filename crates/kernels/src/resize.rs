//! Separable image resampling, bit-equal to Pillow.
