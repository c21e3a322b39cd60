//! The statistics behind a verdict. Numbers in, numbers out; nothing here knows of profiles.
//!
//! A run's cost `x` of a function varies for two reasons: samples are few and come in clusters, which makes a
//! variance proportional to `x`, and the whole run is faster or slower, which makes one proportional to `x²`.
//! On the scale of `√x` (of a share `p`: `asin √p`) these become a constant and a part proportional to `x`:
//! [`moderation`] fits the two to all functions and lets each function's own variance, which few runs tell badly,
//! borrow from them (Smyth, "Linear models and empirical Bayes methods", 2004, with the trend of limma's `voom`
//! in closed form). [`scale`] has the transformation, [`two_sample`] the test, [`false_discovery`] Benjamini and
//! Hochberg's adjustment, [`common_shift`] what all functions have in common, [`neighbours`] whether what follows each
//! other is alike.

pub mod common_shift;
pub mod false_discovery;
pub mod moderation;
pub mod neighbours;
pub mod scale;
pub mod student;
pub mod two_sample;
