//! Measures of generated samples.
