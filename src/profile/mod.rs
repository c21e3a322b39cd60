//! Raw stacks → frames → samples.
