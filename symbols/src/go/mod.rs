//! Go executables: `.gopclntab` names, lines and stack-pointer deltas, stripped or not.
