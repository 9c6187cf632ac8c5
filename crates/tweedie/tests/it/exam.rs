//! The seams' exam: for every awkward kind of method a small example that has to fit without a side
//! door. It runs on the smallest exact world or on a network of a few numbers.

mod guides;
mod network;
mod populations;
mod processes;
mod samplers;
mod states;
mod world;
