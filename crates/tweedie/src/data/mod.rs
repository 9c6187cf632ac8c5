//! Data sets: readers and the procedural shapes world.
