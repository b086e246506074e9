#![no_main]
diskdelta_fuzz::fuzz!(manifest);
