//! Model folders and files; the only place that knows their vocabulary.
