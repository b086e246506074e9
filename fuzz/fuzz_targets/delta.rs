#![no_main]
diskdelta_fuzz::fuzz!(delta);
