//! See `tintype::fuzzing::TARGETS`.

#![no_main]

tintype_fuzz::target!("strip");
