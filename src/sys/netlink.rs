//! rtnetlink behind blocking verbs.
