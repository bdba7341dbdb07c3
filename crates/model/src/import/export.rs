//! Writing configurations and tensors in other layouts.
